//! Recipes by one name, and what a user says beyond it.

use super::recipe::{Method, NamedDamping, Order, Recipe, TargetStrength, Update};
use clap::ValueEnum;
use std::fmt;
use wanda::Pattern;

/// The recipes that have a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Preset {
    /// Wanda, or another method, as published
    #[default]
    Published,
    /// The sweep of sparsegpt toward the dense model, in sequential order, with output weights
    Balanced,
    /// The same with the joint solver in place of the sweep
    Best,
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Published => "published",
            Self::Balanced => "balanced",
            Self::Best => "best",
        })
    }
}

/// What a user says of a recipe; the rest is up to the preset.
#[derive(Debug, Clone, Copy, Default)]
pub struct Explicit {
    pub method: Option<Method>,
    pub update: Option<Update>,
    pub pattern: Option<Pattern>,
    pub order: Option<Order>,
    pub target: Option<TargetStrength>,
    pub damping: Option<NamedDamping>,
    pub output_weights: Option<bool>,
}

impl Preset {
    /// How far the presets go toward the dense model.
    const TARGET: TargetStrength = TargetStrength {
        outputs: 0.5,
        hidden: 0.5,
    };

    /// The recipe with what is said explicitly.
    pub fn recipe(self, explicit: Explicit) -> Recipe {
        let published = self == Self::Published;
        let method = explicit.method.unwrap_or(match self {
            Self::Published | Self::Best => Method::Wanda,
            Self::Balanced => Method::SparseGpt,
        });
        let update = explicit.update.unwrap_or(match self {
            Self::Published => method.own_update(),
            Self::Balanced => Update::Obs,
            Self::Best => Update::Joint,
        });
        let pattern = explicit.pattern.unwrap_or(if published {
            Pattern::PerOutput(0.5)
        } else {
            Pattern::PerLayer(0.5)
        });
        let order = explicit.order.unwrap_or(if published {
            Order::Block
        } else {
            Order::Sequential
        });
        let target = explicit.target.unwrap_or(if published {
            TargetStrength::OFF
        } else {
            Self::TARGET
        });
        let as_published = !target.is_on() && matches!(update, Update::None | Update::Obs);
        let damping = explicit.damping.unwrap_or(if as_published {
            NamedDamping::PUBLISHED
        } else {
            NamedDamping::DIAGONAL
        });
        Recipe {
            method,
            update,
            pattern,
            order,
            target,
            damping,
            output_weights: explicit.output_weights.unwrap_or(!published),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_explicitly_counts() {
        let text = |preset: Preset, explicit| preset.recipe(explicit).to_string();
        let nothing = Explicit::default();
        assert_eq!(text(Preset::Published, nothing), "wanda, 0.5");
        assert_eq!(
            text(Preset::Best, nothing),
            "wanda-joint, per-layer:0.5, sequential order, target 0.5,0.5, output weights, damping \
             diagonal:0.1"
        );
        let method = Some(Method::SparseGpt);
        let explicit = Explicit { method, ..nothing };
        assert_eq!(text(Preset::Published, explicit), "sparsegpt, 0.5");
        let off = Explicit {
            order: Some(Order::Block),
            target: Some(TargetStrength::OFF),
            output_weights: Some(false),
            ..nothing
        };
        assert_eq!(text(Preset::Balanced, off), "sparsegpt, per-layer:0.5");
    }
}
