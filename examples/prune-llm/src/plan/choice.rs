//! The layers that a user chooses by their names.

use anyhow::{Context, Result};
use clap::Args;
use regex::Regex;
use std::{fmt, str::FromStr};

/// The layers that a user has chosen by their names.
#[derive(Debug, Clone, Default, Args)]
pub struct Choice {
    /// Prune only layers whose name matches, such as "layers\.[0-9]\." or "mlp"; may be given
    /// several times
    ///
    /// Names are those of the Hugging Face modules, `model.layers.0.self_attn.q_proj` for one;
    /// `--dry-run` lists them.
    #[arg(long, value_name = "REGEX")]
    pub include: Vec<Regex>,

    /// Prune no layer whose name matches; may be given several times
    #[arg(long, value_name = "REGEX")]
    pub exclude: Vec<Regex>,

    /// Another sparsity for layers whose name matches, such as "mlp=0.6"; may be given several
    /// times, and the last that matches counts
    #[arg(long, value_name = "REGEX=SPARSITY")]
    pub sparsity_of: Vec<SparsityOf>,
}

impl Choice {
    pub(super) fn takes(&self, name: &str) -> bool {
        let matches = |regexes: &[Regex]| regexes.iter().any(|regex| regex.is_match(name));
        (self.include.is_empty() || matches(&self.include)) && !matches(&self.exclude)
    }

    pub(super) fn sparsity(&self, name: &str) -> Option<f64> {
        let mut last_first = self.sparsity_of.iter().rev();
        last_first
            .find(|of| of.layers.is_match(name))
            .map(|of| of.sparsity)
    }

    /// Every expression with the argument it was given as.
    pub(super) fn expressions(&self) -> impl Iterator<Item = (&'static str, &Regex)> {
        let include = self.include.iter().map(|regex| ("--include", regex));
        let exclude = self.exclude.iter().map(|regex| ("--exclude", regex));
        let of = self.sparsity_of.iter();
        let of = of.map(|of| ("--sparsity-of", &of.layers));
        include.chain(exclude).chain(of)
    }
}

/// A sparsity for the layers whose names match: `REGEX=0.6`.
#[derive(Debug, Clone)]
pub struct SparsityOf {
    pub layers: Regex,
    pub sparsity: f64,
}

impl FromStr for SparsityOf {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        // The last one, since an expression may hold others.
        let (layers, sparsity) = text
            .rsplit_once('=')
            .context("it must be REGEX=SPARSITY, such as `mlp=0.6`")?;
        let sparsity = sparsity
            .parse()
            .ok()
            .filter(|sparsity| (0.0..1.0).contains(sparsity))
            .with_context(|| format!("`{sparsity}` is not a number from 0 up to 1"))?;
        Ok(Self {
            layers: layers.parse()?,
            sparsity,
        })
    }
}

impl fmt::Display for SparsityOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.layers, self.sparsity)
    }
}
