//! What a plugin may reach only where its sidecar asks for it and the operator grants it.

use std::collections::BTreeSet;
use std::fmt;

use super::capability::state;

/// A capability, by the name it has in the sidecar and in the settings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Grant {
    /// `state`: a small keyed store of the plugin's own.
    State,
}

impl Grant {
    /// Every grant.
    pub const ALL: &[Self; 1] = &[Self::State];

    /// The name in files and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
        }
    }

    /// The interface it opens.
    pub fn interface(self) -> &'static str {
        match self {
            Self::State => state::INTERFACE,
        }
    }

    /// The grant of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|grant| grant.as_str() == name)
    }

    /// Every name, for messages.
    pub fn known() -> String {
        Self::ALL.iter().map(|grant| format!("`{grant}`")).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// As a TOML array.
pub(super) fn as_toml(grants: &BTreeSet<Grant>) -> String {
    format!("[{}]", grants.iter().map(|grant| format!("\"{grant}\"")).collect::<Vec<_>>().join(", "))
}
