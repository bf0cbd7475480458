//! What is wrong with the settings, where, and what to do.

use std::fmt;
use std::path::PathBuf;

/// One thing wrong in a settings file. Holds no value that could be a secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// What is wrong with which key.
    pub message: String,
    /// `file:line:column`.
    pub at: String,
    /// What to do.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  at {}", self.message, self.at)?;
        self.help.iter().try_for_each(|help| write!(f, "\n  help: {help}"))
    }
}

/// Why there are no settings. Each means: mend the file or name another one.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No file in any of the places looked at.
    #[error("there is no settings file; looked for {}", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and "))]
    NotFound(Vec<PathBuf>),
    /// The file named can't be read.
    #[error("the settings file {}{} can't be read: {source}", path.display(), named_by)]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// ` named by …`, where something named it.
        named_by: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The file is there, and something in it is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Problem>),
}
