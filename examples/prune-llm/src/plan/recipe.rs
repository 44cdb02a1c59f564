//! How layers are pruned: metric, update and pattern by the names that users give them.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use wanda::{
    ImportanceMetric, KeepWeights, Obs, ObsSweep, Pattern, UpdateTask, Updated, WeightUpdate,
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
    pub fn metric(self) -> Box<dyn ImportanceMetric> {
        match self {
            Self::Magnitude => Box::new(wanda::Magnitude),
            Self::Wanda => Box::new(wanda::Wanda),
            Self::SparseGpt => Box::new(Obs::new()),
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
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Obs => "obs",
        })
    }
}

impl WeightUpdate for Update {
    fn run(&self, task: &UpdateTask<'_, f32>) -> wanda::Result<Option<Updated<f32>>> {
        match self {
            Self::None => KeepWeights.run(task),
            Self::Obs => ObsSweep::new().run(task),
        }
    }
}

/// All that decides what becomes of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub method: Method,
    pub update: Update,
    pub pattern: Pattern,
}

impl Recipe {
    /// Whether pruning is impossible without calibration.
    pub fn needs_calibration(&self) -> bool {
        self.method != Method::Magnitude || self.needs_gram()
    }

    /// Whether calibration has to gather Gram matrices and not norms alone.
    pub fn needs_gram(&self) -> bool {
        self.method == Method::SparseGpt || self.update == Update::Obs
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
        write!(f, "{}, {}", self.name(), self.pattern)
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
    }

    #[test]
    fn an_update_is_named_where_it_is_not_the_method_s_own() {
        let name = |method, update| {
            let pattern = Pattern::PerOutput(0.5);
            Recipe {
                method,
                update,
                pattern,
            }
            .name()
        };
        assert_eq!(name(Method::Wanda, Update::None), "wanda");
        assert_eq!(name(Method::Wanda, Update::Obs), "wanda-obs");
        assert_eq!(name(Method::SparseGpt, Update::Obs), "sparsegpt");
        assert_eq!(name(Method::SparseGpt, Update::None), "sparsegpt-none");
    }
}
