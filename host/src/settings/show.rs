//! Every effective value with its origin; what `config show` prints. Secrets are never in here.

use std::fmt;

use serde_json::Value;

/// What stands for a secret.
pub const REDACTED: &str = "<redacted>";

/// One effective value.
#[derive(Clone, PartialEq, Debug)]
pub struct Shown {
    /// `section.key`, or `section.name.key` where there are several sections of a kind.
    pub key: String,
    /// The value; [`REDACTED`] for a secret.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The settings do not say.
    Default,
    /// `file:line` of the settings.
    Settings(String),
    /// An environment variable.
    Variable(String),
    /// An environment variable that is not set, so the default beside it, at `file:line`.
    VariableDefault(String, String),
    /// A file of its own.
    File(String),
    /// More than one origin, in order.
    Several(Vec<Origin>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Settings(at) => f.write_str(at),
            Self::Variable(name) => write!(f, "env {name}"),
            Self::VariableDefault(name, at) => write!(f, "{at}, as env {name} is not set"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Several(origins) => {
                let mut separator = "";
                for origin in origins {
                    write!(f, "{separator}{origin}")?;
                    separator = ", ";
                }
                Ok(())
            }
        }
    }
}
