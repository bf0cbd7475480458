//! How a command ends, and what it says when that is not well.

use std::process::ExitCode;

use super::table::printable;
use crate::ops::access::{AskError, OfflineError};
use crate::settings::{Problem, SettingsError};

/// How a command ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// 0.
    Success,
    /// 1: it was not done, or what it looked at is not well.
    Failure,
    /// 2: the settings or the arguments are wrong.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Success => Self::SUCCESS,
            Exit::Failure => Self::FAILURE,
            Exit::Usage => Self::from(2),
        }
    }
}

/// One thing that went wrong: what happened to which thing, where, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What happened to which thing.
    pub message: String,
    /// Where, as `file:line:column`.
    pub at: Option<String>,
    /// What to do.
    pub help: Option<String>,
}

/// Everything that went wrong, and how the command ends for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failures {
    /// What to say; nothing where nobody is left to read it.
    pub failures: Vec<Failure>,
    /// How the command ends.
    pub exit: Exit,
}

impl Failure {
    /// What happened, without a place and without advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), at: None, help: None }
    }

    /// That nothing of a kind has this name, and which ones there are; `none` says why there may be none.
    pub fn unknown(kind: &str, name: &str, known: &[impl AsRef<str>], none: &str) -> Self {
        let failure = Self::new(format!("there is no {kind} `{}`", printable(name)));
        match known {
            [] => failure.help(none),
            known => failure.help(format!(
                "there are: {}",
                known.iter().map(|name| printable(name.as_ref())).collect::<Vec<_>>().join(", ")
            )),
        }
    }

    /// With what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Of the arguments or settings: exit code 2.
    pub fn into_usage(self) -> Failures {
        Failures { failures: vec![self], exit: Exit::Usage }
    }
}

impl From<Failure> for Failures {
    fn from(failure: Failure) -> Self {
        Self { failures: vec![failure], exit: Exit::Failure }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { message: problem.message, at: Some(problem.at), help: problem.help }
    }
}

impl From<SettingsError> for Failures {
    fn from(error: SettingsError) -> Self {
        let failures = match error {
            SettingsError::Refused(problems) => problems.into_iter().map(Failure::from).collect(),
            SettingsError::NotFound(_) => {
                vec![Failure::new(error.to_string()).help("write one, or name it with --config FILE")]
            }
            SettingsError::Unreadable { .. } => {
                vec![Failure::new(error.to_string()).help("name a file that this user may read")]
            }
        };
        Self { failures, exit: Exit::Usage }
    }
}

impl From<OfflineError> for Failures {
    fn from(error: OfflineError) -> Self {
        Failure { message: error.message, at: None, help: error.help }.into()
    }
}

impl From<AskError> for Failures {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Offline(error) => error.into(),
            AskError::Host(error) => Failure::new(error.to_string()).into(),
        }
    }
}

impl From<std::io::Error> for Failures {
    fn from(error: std::io::Error) -> Self {
        // `wirehook … | head` is no error to speak of.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { failures: Vec::new(), exit: Exit::Failure };
        }
        Failure::new(format!("standard output can't be written: {error}")).into()
    }
}
