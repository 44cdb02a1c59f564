//! How layers are pruned: metric, update and pattern by the names that users give them.

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use wanda::{
    Admm, Damping, ImportanceMetric, KeepWeights, Obs, ObsSweep, Pattern, Refit, WeightUpdate,
};

/// The importance metrics on offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[value(rename_all = "lower")]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The size of a weight; looks at no data
    Magnitude,
    /// The size of a weight times the norm of its input
    Wanda,
    /// What the layer's output loses if the weights after this one make up for it
    SparseGpt,
}

impl Method {
    /// The library's metric of this name.
    fn metric(self, damping: Damping) -> Box<dyn ImportanceMetric> {
        match self {
            Self::Magnitude => Box::new(wanda::Magnitude),
            Self::Wanda => Box::new(wanda::Wanda),
            Self::SparseGpt => Box::new(Obs::new().damping(damping)),
        }
    }

    /// The update that is part of the method as published.
    pub fn own_update(self) -> Update {
        match self {
            Self::Magnitude | Self::Wanda => Update::None,
            Self::SparseGpt => Update::Obs,
        }
    }

    /// The name as papers write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Magnitude => "Magnitude",
            Self::Wanda => "Wanda",
            Self::SparseGpt => "SparseGPT",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magnitude => "magnitude",
            Self::Wanda => "wanda",
            Self::SparseGpt => "sparsegpt",
        })
    }
}

/// The updates on offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[value(rename_all = "lower")]
#[serde(rename_all = "lowercase")]
pub enum Update {
    /// They keep their bits
    None,
    /// They make up for those that go, column by column, as in sparsegpt
    Obs,
    /// They are sought together with those that go, by ADMM; with wanda as the method each iterate
    /// is ranked as ADMM does
    Joint,
    /// They get their best values after the obs update has chosen those that go
    Refit,
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Obs => "obs",
            Self::Joint => "joint",
            Self::Refit => "refit",
        })
    }
}

impl Update {
    /// The library's update of this name.
    pub fn with(self, damping: Damping) -> Box<dyn WeightUpdate> {
        match self {
            Self::None => Box::new(KeepWeights),
            Self::Obs => Box::new(ObsSweep::new().damping(damping)),
            Self::Joint => Box::new(Admm::new().damping(damping)),
            Self::Refit => {
                let sweep = ObsSweep::new().damping(damping);
                Box::new(Refit::after(sweep).damping(damping))
            }
        }
    }
}

/// When the statistics of a layer's inputs are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[value(rename_all = "lower")]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Once the layers before it are pruned, those of its own block too: one forward pass
    Sequential,
    /// While all of its block is dense, as published: two forward passes
    Block,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sequential => "sequential",
            Self::Block => "block",
        })
    }
}

/// How far layers are pruned toward what the dense model gives: `0.5`, or `0.5,0.3`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TargetStrength {
    /// β, of the outputs that the dense model's layer has.
    pub outputs: f64,
    /// γ, of what the hidden states lack when a layer adds to them.
    pub hidden: f64,
}

impl TargetStrength {
    /// Each layer reproduces its own output.
    pub const OFF: Self = Self {
        outputs: 0.0,
        hidden: 0.0,
    };

    /// Whether there is a target.
    pub fn is_on(self) -> bool {
        self != Self::OFF
    }
}

impl FromStr for TargetStrength {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (outputs, hidden) = text.split_once(',').unwrap_or((text, text));
        let number = |text: &str| {
            let number = text.trim().parse().ok();
            number
                .filter(|number| (0.0..=2.0).contains(number))
                .with_context(|| format!("`{text}` is not a number from 0 to 2"))
        };
        Ok(Self {
            outputs: number(outputs)?,
            hidden: number(hidden)?,
        })
    }
}

impl fmt::Display for TargetStrength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.outputs, self.hidden)
    }
}

/// What is added to the diagonal of a Gram matrix: `mean:0.01` or `diagonal:0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamedDamping(pub Damping);

impl NamedDamping {
    /// That of the published methods.
    pub const PUBLISHED: Self = Self(Damping::Mean(0.01));
    /// What suits targets and solvers better.
    pub const DIAGONAL: Self = Self(Damping::Diagonal(0.1));
}

impl FromStr for NamedDamping {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let form = "it must be such as `mean:0.01` or `diagonal:0.1`";
        let (kind, factor) = text.split_once(':').context(form)?;
        let factor: f64 = factor.parse().ok().context(form)?;
        ensure!(
            factor.is_finite() && factor >= 0.0,
            "`{factor}` is no damping"
        );
        match kind {
            "mean" => Ok(Self(Damping::Mean(factor))),
            "diagonal" => Ok(Self(Damping::Diagonal(factor))),
            _ => bail!(form),
        }
    }
}

impl TryFrom<String> for NamedDamping {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<NamedDamping> for String {
    fn from(damping: NamedDamping) -> Self {
        damping.to_string()
    }
}

impl fmt::Display for NamedDamping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Damping::Diagonal(_) => "diagonal",
            _ => "mean",
        };
        write!(f, "{kind}:{}", self.0.factor())
    }
}

/// All that decides what becomes of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub method: Method,
    pub update: Update,
    pub pattern: Pattern,
    pub order: Order,
    pub target: TargetStrength,
    pub damping: NamedDamping,
    /// Whether scores of different rows are compared by what the rows' outputs do further on.
    pub output_weights: bool,
}

impl Recipe {
    /// Methods as they were published.
    pub const fn published(method: Method, update: Update, pattern: Pattern) -> Self {
        Self {
            method,
            update,
            pattern,
            order: Order::Block,
            target: TargetStrength::OFF,
            damping: NamedDamping::PUBLISHED,
            output_weights: false,
        }
    }

    /// The metric, damped as all else.
    pub fn metric(&self) -> Box<dyn ImportanceMetric> {
        self.method.metric(self.damping.0)
    }

    /// Whether pruning is impossible without calibration.
    pub fn needs_calibration(&self) -> bool {
        self.method != Method::Magnitude || self.needs_gram() || self.needs_streams().is_some()
    }

    /// Whether calibration has to gather Gram matrices and not norms alone.
    pub fn needs_gram(&self) -> bool {
        self.method == Method::SparseGpt || self.update != Update::None || self.target.is_on()
    }

    /// The argument for which texts have to flow through the model as it is pruned, if there is
    /// one.
    pub fn needs_streams(&self) -> Option<&'static str> {
        match self {
            _ if self.target.is_on() => Some("--target"),
            _ if self.output_weights => Some("--output-weights"),
            _ => None,
        }
    }

    /// The method, and the update where it is not the method's own.
    pub fn name(&self) -> String {
        if self.update == self.method.own_update() {
            self.method.to_string()
        } else {
            format!("{}-{}", self.method, self.update)
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.name(), self.pattern)?;
        if self.order != Order::Block {
            write!(f, ", {} order", self.order)?;
        }
        if self.target.is_on() {
            write!(f, ", target {}", self.target)?;
        }
        if self.output_weights {
            f.write_str(", output weights")?;
        }
        if self.damping != NamedDamping::PUBLISHED {
            write!(f, ", damping {}", self.damping)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command line, reports and messages use the same words.
    #[test]
    fn names_agree() {
        fn check<T: ValueEnum + fmt::Display + Serialize>() {
            for value in T::value_variants() {
                let name = value.to_string();
                assert_eq!(value.to_possible_value().unwrap().get_name(), name);
                assert_eq!(serde_json::to_value(value).unwrap(), name.as_str());
            }
        }
        check::<Method>();
        check::<Update>();
        check::<Order>();
    }

    #[test]
    fn strengths_and_dampings_are_read_as_they_are_written() {
        let strength = |text: &str| text.parse::<TargetStrength>();
        assert_eq!(strength("0.5").unwrap(), strength("0.5,0.5").unwrap());
        assert_eq!(strength("0.5,0.25").unwrap().to_string(), "0.5,0.25");
        assert!(!strength("0").unwrap().is_on());
        for text in ["", "-1", "1,", "NaN", "1,2,3"] {
            assert!(strength(text).is_err(), "{text}");
        }
        for text in ["mean:0.01", "diagonal:0.1", "mean:0"] {
            assert_eq!(text.parse::<NamedDamping>().unwrap().to_string(), text);
        }
        for text in ["", "0.01", "mean", "mean:-1", "mode:1"] {
            assert!(text.parse::<NamedDamping>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_update_is_named_where_it_is_not_the_method_s_own() {
        let name =
            |method, update| Recipe::published(method, update, Pattern::PerOutput(0.5)).name();
        assert_eq!(name(Method::Wanda, Update::None), "wanda");
        assert_eq!(name(Method::Wanda, Update::Obs), "wanda-obs");
        assert_eq!(name(Method::SparseGpt, Update::Obs), "sparsegpt");
        assert_eq!(name(Method::SparseGpt, Update::None), "sparsegpt-none");
    }
}
