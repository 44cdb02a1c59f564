//! Which layers are pruned, and how much of each.

use crate::{
    model::{Config, LinearKind, Tap, layer_name},
    recipe::Recipe,
};
use anyhow::{Context, Result, ensure};
use clap::Args;
use regex::Regex;
use std::{fmt, str::FromStr};
use wanda::Pattern;

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
    fn takes(&self, name: &str) -> bool {
        let matches = |regexes: &[Regex]| regexes.iter().any(|regex| regex.is_match(name));
        (self.include.is_empty() || matches(&self.include)) && !matches(&self.exclude)
    }

    fn sparsity(&self, name: &str) -> Option<f64> {
        let mut last_first = self.sparsity_of.iter().rev();
        last_first
            .find(|of| of.layers.is_match(name))
            .map(|of| of.sparsity)
    }

    /// Every expression with the argument it was given as.
    fn expressions(&self) -> impl Iterator<Item = (&'static str, &Regex)> {
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

/// What becomes of every layer of a model.
#[derive(Debug, Clone)]
pub struct Plan {
    pub recipe: Recipe,
    /// Block by block; `None` for layers that stay dense.
    patterns: Vec<[Option<Pattern>; LinearKind::ALL.len()]>,
}

impl Plan {
    /// Finds the layers of a model that were chosen.
    ///
    /// # Errors
    /// An expression matches no layer, no layer is left, or a pattern has no sparsity to change.
    pub fn new(config: &Config, recipe: Recipe, choice: &Choice) -> Result<Self> {
        let blocks = 0..config.num_hidden_layers;
        for (argument, regex) in choice.expressions() {
            let mut names = blocks.clone().flat_map(layer_names);
            ensure!(
                names.any(|name| regex.is_match(&name)),
                "`{argument} {regex}` matches no layer; layers have names such as `{}`",
                layer_name(0, LinearKind::Query)
            );
        }
        let plan = Self {
            recipe,
            patterns: blocks
                .map(|block| block_patterns(block, recipe.pattern, choice))
                .collect::<Result<_>>()?,
        };
        ensure!(
            plan.patterns.iter().flatten().any(Option::is_some),
            "`--include` and `--exclude` leave no layer to prune"
        );
        Ok(plan)
    }

    /// All layers alike.
    #[must_use]
    pub fn uniform(config: &Config, recipe: Recipe) -> Self {
        let block = [Some(recipe.pattern); LinearKind::ALL.len()];
        Self {
            recipe,
            patterns: vec![block; config.num_hidden_layers],
        }
    }

    /// How a layer is pruned, if it is.
    #[must_use]
    pub fn pattern(&self, block: usize, layer: LinearKind) -> Option<Pattern> {
        self.patterns.get(block).and_then(|b| b[layer as usize])
    }

    /// Whether a layer that reads here is pruned.
    #[must_use]
    pub fn needs(&self, block: usize, tap: Tap) -> bool {
        let mut layers = tap.layers().iter();
        layers.any(|&layer| self.pattern(block, layer).is_some())
    }

    /// The places of a block where layers that are pruned read.
    pub fn taps(&self, block: usize) -> impl Iterator<Item = Tap> {
        let taps = Tap::ALL.into_iter();
        taps.filter(move |&tap| self.needs(block, tap))
    }

    /// The layers that are pruned, each with its pattern.
    pub fn layers(&self) -> impl Iterator<Item = (usize, LinearKind, Pattern)> {
        (0..self.patterns.len()).flat_map(move |block| {
            LinearKind::ALL.into_iter().filter_map(move |layer| {
                let pattern = self.pattern(block, layer)?;
                Some((block, layer, pattern))
            })
        })
    }
}

fn layer_names(block: usize) -> impl Iterator<Item = String> {
    LinearKind::ALL
        .into_iter()
        .map(move |layer| layer_name(block, layer))
}

fn block_patterns(
    block: usize,
    pattern: Pattern,
    choice: &Choice,
) -> Result<[Option<Pattern>; LinearKind::ALL.len()]> {
    let mut patterns = [None; LinearKind::ALL.len()];
    for (place, name) in patterns.iter_mut().zip(layer_names(block)) {
        if !choice.takes(&name) {
            continue;
        }
        *place = Some(match choice.sparsity(&name) {
            None => pattern,
            Some(sparsity) => pattern.with_sparsity(sparsity).with_context(|| {
                format!(
                    "`--sparsity-of` says nothing about `{pattern}`, whose numbers are its sparsity"
                )
            })?,
        });
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Method, Update};

    fn plan(pattern: Pattern, choice: &Choice) -> Result<Vec<String>> {
        let config = Config::from_json(
            r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "vocab_size": 8,
                "num_hidden_layers": 12, "num_attention_heads": 2}"#,
        )?;
        let recipe = Recipe {
            method: Method::Wanda,
            update: Update::None,
            pattern,
        };
        let plan = Plan::new(&config, recipe, choice)?;
        Ok(plan
            .layers()
            .map(|(block, layer, pattern)| format!("{block} {} {pattern}", layer.module()))
            .collect())
    }

    fn regexes(texts: &[&str]) -> Vec<Regex> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn layers_are_chosen_by_name() {
        let half = Pattern::PerLayer(0.5);
        assert_eq!(plan(half, &Choice::default()).unwrap().len(), 84);
        let choice = Choice {
            include: regexes(&[r"layers\.1\.", "layers.11.*(up|down)"]),
            exclude: regexes(&["attn", "layers.1[.].*gate"]),
            sparsity_of: ["mlp=0.6", "down=0.25"]
                .map(|of| of.parse().unwrap())
                .into(),
        };
        assert_eq!(
            plan(half, &choice).unwrap(),
            [
                "1 mlp.up_proj per-layer:0.6",
                "1 mlp.down_proj per-layer:0.25",
                "11 mlp.up_proj per-layer:0.6",
                "11 mlp.down_proj per-layer:0.25",
            ]
        );
    }

    #[test]
    fn choices_that_mean_nothing_are_refused() {
        let half = Pattern::PerOutput(0.5);
        let error = |pattern, choice: Choice| format!("{:#}", plan(pattern, &choice).unwrap_err());
        let include = regexes(&["q_porj"]);
        let message = error(
            half,
            Choice {
                include,
                ..Choice::default()
            },
        );
        assert!(
            message.contains("`--include q_porj` matches no layer"),
            "{message}"
        );
        let exclude = regexes(&["proj"]);
        let message = error(
            half,
            Choice {
                exclude,
                ..Choice::default()
            },
        );
        assert!(message.contains("no layer to prune"), "{message}");
        let sparsity_of = vec!["mlp=0.6".parse().unwrap()];
        let message = error(
            Pattern::NOfM { keep: 2, of: 4 },
            Choice {
                sparsity_of,
                ..Choice::default()
            },
        );
        assert!(message.contains("`2:4`"), "{message}");
        for text in ["mlp", "mlp=", "mlp=1", "mlp=-0.1", "mlp=NaN", "(=0.5"] {
            assert!(text.parse::<SparsityOf>().is_err(), "{text}");
        }
        let of: SparsityOf = "a=b=0.5".parse().unwrap();
        assert_eq!(of.to_string(), "a=b=0.5");
    }
}
