//! Runs that are stopped, by whatever, and resumed.

mod common;

use candle_core::DType;
use common::{Fixture, assert_says, config, deep_tensors, names_in, write_in_order};
use rand_pcg::{Pcg64, rand_core::Rng};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const BLOCKS: usize = 6;

fn fixture() -> Fixture {
    let mut config = config();
    config["num_hidden_layers"] = json!(BLOCKS);
    Fixture::new(&config, &deep_tensors(BLOCKS, DType::F32))
}

/// A file, or every file of a folder.
fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    if path.is_file() {
        return [(String::new(), fs::read(path).unwrap())].into();
    }
    let names = names_in(path).into_iter();
    names
        .map(|name| {
            let contents = fs::read(path.join(&name)).unwrap();
            (name, contents)
        })
        .collect()
}

fn remove(path: &Path) {
    if path.is_file() {
        fs::remove_file(path).unwrap();
    } else {
        fs::remove_dir_all(path).unwrap();
    }
}

/// The folder of an unfinished run.
fn unfinished(output: &Path) -> PathBuf {
    let name = output.file_name().unwrap().to_str().unwrap();
    output.with_file_name(format!(".{name}.unfinished"))
}

/// How many blocks an unfinished run has finished.
fn finished_blocks(output: &Path) -> Option<u64> {
    let state = fs::read(unfinished(output).join("state.json")).ok()?;
    let state: Value = serde_json::from_slice(&state).unwrap();
    state["blocks"].as_u64()
}

#[test]
fn killed_at_any_moment_it_ends_with_the_same_bytes() {
    let fixture = fixture();
    let output = fixture.path("pruned");
    let commands = [
        &["--method=wanda"] as &[_],
        &["--method=sparsegpt", "--pattern=2:4"],
        &["--method=magnitude", "--update=obs"],
        &["--order=sequential"],
        &["--preset=best"],
    ]
    .map(|more| fixture.command(&[more, &["--output", output.to_str().unwrap()]].concat()));
    kill_and_resume(&fixture, &output, &mut commands.into_iter());
}

#[test]
fn killed_at_any_moment_statistics_end_with_the_same_bytes() {
    let fixture = fixture();
    let commands = [&[][..], &["--gram"]].map(|more| fixture.calibrate_command("norms", more));
    kill_and_resume(&fixture, &fixture.path("norms"), &mut commands.into_iter());
}

/// Fails unless each command, killed at least eight times, writes what it writes undisturbed.
fn kill_and_resume(fixture: &Fixture, output: &Path, commands: &mut dyn Iterator<Item = Command>) {
    const KILLS: usize = 8;
    let mut random = Pcg64::new(5, 1);
    let mut kills_between_blocks = 0;
    for mut command in commands {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        assert!(command.status().unwrap().success());
        let whole = start.elapsed();
        let expected = contents(output);
        assert!(expected.len() > 3 || output.is_file());
        remove(output);

        let mut kills = 0;
        while kills < KILLS {
            let mut child = command.spawn().unwrap();
            let share = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            thread::sleep(whole.mul_f64(0.7 * share));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                let blocks = finished_blocks(output).unwrap_or(0);
                kills_between_blocks += usize::from(blocks > 0);
            }
            // There is nothing of it, or all.
            if output.exists() {
                assert!(contents(output) == expected);
                remove(output);
            }
        }
        assert!(command.status().unwrap().success());
        assert!(contents(output) == expected);
        remove(output);
        assert_eq!(fixture.entries(), ["model", "text"]);
    }
    assert!(kills_between_blocks > 3, "{kills_between_blocks}");
}

/// The program where no file may be longer than so many bytes, as when the disk is full.
fn limited(command: &Command, bytes: usize) -> Command {
    let script = format!(
        "trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"",
        bytes / 512
    );
    let mut limited = Command::new("sh");
    limited
        .args(["-c", &script])
        .arg(command.get_program())
        .args(command.get_args());
    limited
}

/// A model whose file holds the blocks last, first to last.
fn blocks_last() -> (Fixture, usize) {
    let fixture = fixture();
    let tensors = deep_tensors(BLOCKS, DType::F32);
    let mut names: Vec<String> = tensors.keys().cloned().collect();
    names.sort_by_key(|name| name.contains("_proj"));
    let file = fixture.model().join("model.safetensors");
    write_in_order(&names, &tensors, &file);
    let size = fs::metadata(file).unwrap().len();
    (fixture, usize::try_from(size).unwrap())
}

#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing() {
    let (fixture, size) = blocks_last();
    let output = fixture.path("pruned");
    let command = fixture.command(&["--output", output.to_str().unwrap()]);
    let run = |mut command: Command| command.output().unwrap();
    let error = |limit| {
        let result = run(limited(&command, limit));
        assert!(!result.status.success());
        String::from_utf8(result.stderr).unwrap()
    };
    // At once, and after several blocks.
    for (limit, blocks) in [(size / 4, 0), (size * 7 / 10, 1)] {
        let message = error(limit);
        assert_says(
            &message,
            &[
                "model.safetensors",
                "File too large",
                "same command",
                ".pruned.unfinished",
            ],
        );
        assert!(finished_blocks(&output).unwrap() >= blocks);
        assert!(!output.exists());
    }
    let mut command = command;
    let resumed = command.output().unwrap();
    assert!(resumed.status.success());
    let text = String::from_utf8(resumed.stdout).unwrap();
    assert!(text.contains("resuming after block"), "{text}");
    let found = contents(&output);
    assert_eq!(fixture.entries(), ["model", "pruned", "text"]);

    assert!(command.status().unwrap().success());
    assert!(contents(&output) == found);
}

#[cfg(unix)]
#[test]
fn what_was_begun_is_not_resumed_as_something_else() {
    let (fixture, size) = blocks_last();
    let output = fixture.path("pruned");
    let limit = size * 7 / 10;
    let command = fixture.command(&["--output", output.to_str().unwrap()]);
    let begun = limited(&command, limit).output().unwrap();
    assert!(!begun.status.success());
    let blocks = finished_blocks(&output);
    assert!(blocks > Some(0));
    let refused = |more: &[&str], parts: &[&str]| {
        let error = fixture.error(more);
        assert_says(&error, parts);
        assert_says(&error, &["unfinished", "start over"]);
        assert_eq!(finished_blocks(&output), blocks);
    };
    for (more, parts) in [
        (["--pattern", "2:4"], ["--pattern", "2:4"]),
        (["--method", "magnitude"], ["--method", "magnitude"]),
        (
            ["--calibration-samples", "3"],
            ["--calibration", "checksum"],
        ),
        (["--exclude", "q_proj"], ["--exclude", "[q_proj]"]),
        (["--seed", "1"], ["--seed", "now it is 1"]),
    ] {
        refused(&more, &parts);
    }
    let text = fixture.path("text");
    let words = fs::read_to_string(&text).unwrap();
    fs::write(&text, words.replace('A', "B")).unwrap();
    refused(&[], &["--calibration"]);
    fs::write(&text, words).unwrap();

    let weights = fixture.model().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    thread::sleep(Duration::from_millis(20));
    fs::write(&weights, bytes).unwrap();
    refused(&[], &["the file `model.safetensors`"]);

    // Said how to start over, one can.
    fs::remove_dir_all(fixture.path(".pruned.unfinished")).unwrap();
    fixture.run(&[]).unwrap();
    assert_eq!(fixture.entries(), ["model", "pruned", "text"]);
}

/// Pruning with statistics from a file resumes with those alone, and knows in the end what it saw
/// before it was stopped.
#[cfg(unix)]
#[test]
fn statistics_stay_the_same_to_the_end() {
    let (fixture, size) = blocks_last();
    let statistics = fixture.calibrate("statistics", &["--gram"]);
    let line = [
        "--method=sparsegpt",
        "--statistics",
        statistics.to_str().unwrap(),
    ];
    let whole = fixture.run(&line).unwrap();
    assert_eq!(whole.layers.len(), 7 * BLOCKS);
    assert_eq!(whole.inputs.len(), 4 * BLOCKS);
    let output = fixture.path("pruned");
    let expected = contents(&output);
    fs::remove_dir_all(&output).unwrap();

    let command = fixture.command(&[&line[..], &["--output", output.to_str().unwrap()]].concat());
    let begun = limited(&command, size * 7 / 10).output().unwrap();
    assert!(!begun.status.success());
    let blocks = finished_blocks(&output);
    assert!(blocks > Some(0));

    let known = fs::read(&statistics).unwrap();
    fixture.calibrate("statistics", &["--gram", "--calibration-samples", "3"]);
    let error = fixture.error(&line);
    assert_says(&error, &["--statistics", "checksum", "start over"]);
    assert_eq!(finished_blocks(&output), blocks);

    fs::write(&statistics, known).unwrap();
    let resumed = fixture.run(&line).unwrap();
    assert!(contents(&output) == expected);
    assert_eq!(resumed.inputs, whole.inputs);
    assert_eq!(resumed.continuation, whole.continuation);
    assert_eq!(fixture.entries(), ["model", "pruned", "statistics", "text"]);
}

/// A full disk, or a killed process, does not cost what was gathered; another text does not get
/// into it.
#[cfg(unix)]
#[test]
fn gathering_statistics_is_resumed() {
    let fixture = fixture();
    let output = fixture.calibrate("norms", &["--gram"]);
    let expected = contents(&output);
    fs::remove_file(&output).unwrap();
    let size = expected[""].len();

    let command = fixture.calibrate_command("norms", &["--gram"]);
    let begun = limited(&command, size * 7 / 10).output().unwrap();
    assert!(!begun.status.success());
    let message = String::from_utf8(begun.stderr).unwrap();
    assert_says(
        &message,
        &[
            "norms`",
            "File too large",
            "same command",
            ".norms.unfinished",
        ],
    );
    assert!(!output.exists());
    let blocks = finished_blocks(&output);
    assert!(blocks > Some(0));

    for (more, part) in [
        (
            &["--gram", "--calibration-samples", "3"][..],
            "--calibration",
        ),
        (&[], "--gram"),
    ] {
        let refused = fixture.calibrate_command("norms", more).output().unwrap();
        let message = String::from_utf8(refused.stderr).unwrap();
        assert_says(&message, &[part, "start over"]);
        assert_eq!(finished_blocks(&output), blocks);
    }
    let mut command = command;
    let resumed = command.output().unwrap();
    let text = String::from_utf8(resumed.stdout).unwrap();
    assert!(text.contains("resuming after block"), "{text}");
    assert!(contents(&output) == expected);
    assert_eq!(fixture.entries(), ["model", "norms", "text"]);
}

/// Where a report cannot be written, the pruned model waits for another time.
#[cfg(target_os = "linux")]
#[test]
fn reports_on_a_full_disk_lose_nothing() {
    let fixture = fixture();
    let output = fixture.path("pruned");
    fixture.run(&[]).unwrap();
    let expected = contents(&output);
    fs::remove_dir_all(&output).unwrap();
    for flag in ["--report", "--html"] {
        let file = fixture.path("report");
        // A device that is always full stands in for the disk.
        std::os::unix::fs::symlink("/dev/full", fixture.path(".report.unfinished")).unwrap();
        let line = [flag, file.to_str().unwrap()];
        let message = fixture.error(&line);
        assert_says(&message, &["report", "No space left", "same command"]);
        assert_eq!(finished_blocks(&output), Some(BLOCKS as u64));
        assert!(!output.exists());
        fixture.run(&line).unwrap();
        assert!(contents(&output) == expected);
        assert_eq!(fixture.entries(), ["model", "pruned", "report", "text"]);
        fs::remove_file(file).unwrap();
        fs::remove_dir_all(&output).unwrap();
    }
}

/// The second does not touch what the first is writing.
#[test]
fn two_at_once_are_one_too_many() {
    let fixture = fixture();
    let output = fixture.path("pruned");
    let line = ["--output", output.to_str().unwrap()];
    let mut first = fixture
        .command(&line)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fixture.path(".pruned.unfinished/state.json").exists() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
    let second = fixture.command(&line).output().unwrap();
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains("another run"), "{message}");
    assert!(first.wait().unwrap().success());
    assert_eq!(fixture.entries(), ["model", "pruned", "text"]);
}
