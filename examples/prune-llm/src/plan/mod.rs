//! Which layers are pruned, and how each.

mod choice;
mod preset;
mod recipe;

pub use choice::{Choice, SparsityOf};
pub use preset::{Explicit, Preset};
pub use recipe::{Method, NamedDamping, Order, Recipe, TargetStrength, Update};

use crate::model::{BlockSpec, LayerSpec};
use anyhow::{Context, Result, ensure};
use wanda::Pattern;

/// What becomes of every layer of a model.
#[derive(Debug, Clone)]
pub struct Plan {
    pub recipe: Recipe,
    /// What each block consists of.
    pub spec: BlockSpec,
    /// Block by block, layer by layer; `None` for layers that stay dense.
    patterns: Vec<Vec<Option<Pattern>>>,
}

impl Plan {
    /// Finds the layers that were chosen in a model of so many blocks.
    ///
    /// # Errors
    /// An expression matches no layer, no layer is left, or a pattern has no sparsity to change.
    pub fn new(spec: &BlockSpec, blocks: usize, recipe: Recipe, choice: &Choice) -> Result<Self> {
        for (argument, regex) in choice.expressions() {
            let mut names = (0..blocks).flat_map(|block| layer_names(block, spec));
            ensure!(
                names.any(|name| regex.is_match(&name)),
                "`{argument} {regex}` matches no layer; layers have names such as `{}`",
                layer_names(0, spec).next().unwrap_or_default()
            );
        }
        let block_patterns = |block| {
            let names = layer_names(block, spec);
            names
                .map(|name| layer_pattern(&name, recipe.pattern, choice))
                .collect()
        };
        let plan = Self {
            recipe,
            spec: spec.clone(),
            patterns: (0..blocks).map(block_patterns).collect::<Result<_>>()?,
        };
        ensure!(
            plan.layers().next().is_some(),
            "`--include` and `--exclude` leave no layer to prune"
        );
        Ok(plan)
    }

    /// How many blocks the model has.
    pub fn blocks(&self) -> usize {
        self.patterns.len()
    }

    /// The layers of a block that are pruned, each with its place in the block and its pattern.
    pub fn block(&self, block: usize) -> impl Iterator<Item = (usize, &LayerSpec, Pattern)> {
        let patterns = self.patterns.get(block).into_iter().flatten();
        let layers = patterns.zip(&self.spec.layers).enumerate();
        layers.filter_map(|(place, (pattern, layer))| Some((place, layer, (*pattern)?)))
    }

    /// All layers that are pruned, each with its block and its pattern.
    pub fn layers(&self) -> impl Iterator<Item = (usize, &LayerSpec, Pattern)> {
        let blocks = 0..self.blocks();
        blocks.flat_map(|block| {
            let layers = self.block(block);
            layers.map(move |(_, layer, pattern)| (block, layer, pattern))
        })
    }

    /// Whether a layer that reads this input is pruned.
    pub fn needs(&self, block: usize, input: usize) -> bool {
        self.block(block).any(|(_, layer, _)| layer.input == input)
    }

    /// The inputs of a block that layers to prune read.
    pub fn inputs(&self, block: usize) -> impl Iterator<Item = usize> {
        (0..self.spec.inputs()).filter(move |&input| self.needs(block, input))
    }
}

fn layer_names(block: usize, spec: &BlockSpec) -> impl Iterator<Item = String> {
    let layers = spec.layers.iter();
    layers.map(move |layer| layer.full_name(block))
}

fn layer_pattern(name: &str, pattern: Pattern, choice: &Choice) -> Result<Option<Pattern>> {
    if !choice.takes(name) {
        return Ok(None);
    }
    let Some(sparsity) = choice.sparsity(name) else {
        return Ok(Some(pattern));
    };
    let changed = pattern.with_sparsity(sparsity).with_context(|| {
        format!("`--sparsity-of` says nothing about `{pattern}`, whose numbers are its sparsity")
    })?;
    Ok(Some(changed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::families;
    use regex::Regex;

    fn plan(pattern: Pattern, choice: &Choice) -> Result<Vec<String>> {
        let llama = families::from_json(
            r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "vocab_size": 8,
                "num_hidden_layers": 12, "num_attention_heads": 2}"#,
        )?;
        let recipe = Recipe::published(Method::Wanda, Update::None, pattern);
        let plan = Plan::new(llama.block(), 12, recipe, choice)?;
        Ok(plan
            .layers()
            .map(|(block, layer, pattern)| format!("{block} {} {pattern}", layer.name))
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
