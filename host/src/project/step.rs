//! One step of a build: a program of the language's toolchain, or work that the host does by itself.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use thiserror::Error;

/// Folders that tools are looked for in before `PATH`, in the form of `PATH`.
const TOOLS_VARIABLE: &str = "WIREHOOK_TOOLS";

/// A program of a toolchain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tool {
    /// Its name: `cargo`.
    pub program: &'static str,
    /// Folders of the project that it may be in, before `$WIREHOOK_TOOLS` and `PATH`: `node_modules/.bin`.
    pub folders: &'static [&'static str],
    /// What to do where it is missing; a whole sentence's predicate, as in "install Rust from https://rustup.rs".
    pub install: &'static str,
}

/// One step.
pub enum Step {
    /// Runs a program.
    Run(Run),
    /// Does something in the host: writes a file, encodes a component.
    Work {
        /// What, for people: "writing wit/subscriber.wit".
        what: String,
        /// Does it; what went wrong is said with what to do.
        work: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    },
}

/// A program to be run in the project's folder. What it prints goes to standard error.
#[derive(Clone, Debug)]
pub struct Run {
    tool: &'static Tool,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    removed: Vec<&'static str>,
    help: Option<&'static str>,
    needs: Option<&'static Tool>,
}

/// Why a step did not end well.
#[derive(Debug, Error)]
pub enum StepError {
    /// A program is missing. Found out before the first step.
    #[error("`{program}` is missing: {install}", program = tool.program, install = tool.install)]
    Missing {
        /// The tool.
        tool: &'static Tool,
    },
    /// It could not be started.
    #[error("`{line}` could not be started: {source}")]
    Start {
        /// The command line.
        line: String,
        /// Why.
        source: std::io::Error,
    },
    /// It failed; what it said is on standard error.
    #[error("`{line}` failed ({status}); what it said is above")]
    Failed {
        /// The command line.
        line: String,
        /// How it ended.
        status: ExitStatus,
        /// What may help.
        help: Option<&'static str>,
    },
    /// The host's own work failed.
    #[error("{what} failed: {error}")]
    Work {
        /// What it was.
        what: String,
        /// What went wrong, and what to do.
        error: String,
    },
}

impl Tool {
    /// Whether a folder of `$WIREHOOK_TOOLS` has it.
    pub(super) fn is_listed(&self) -> bool {
        std::env::split_paths(&tools()).any(|folder| folder.join(self.program).is_file())
    }
}

impl StepError {
    /// What may help.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Failed { help, .. } => *help,
            _ => None,
        }
    }
}

impl Run {
    /// `tool` without arguments.
    pub fn new(tool: &'static Tool) -> Self {
        Self { tool, arguments: Vec::new(), variables: Vec::new(), removed: Vec::new(), help: None, needs: None }
    }

    /// With more arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// With a variable.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Without a variable that the caller may have.
    #[must_use]
    pub fn env_remove(mut self, name: &'static str) -> Self {
        self.removed.push(name);
        self
    }

    /// With what to try when it fails.
    #[must_use]
    pub fn help(mut self, help: &'static str) -> Self {
        self.help = Some(help);
        self
    }

    /// With another program that the tool itself runs.
    #[must_use]
    pub fn needs(mut self, tool: &'static Tool) -> Self {
        self.needs = Some(tool);
        self
    }

    /// The first of its programs that is missing.
    fn missing(&self, folder: &Path) -> Option<&'static Tool> {
        std::iter::once(self.tool).chain(self.needs).find(|tool| find(tool, folder).is_none())
    }

    fn run(&self, folder: &Path) -> Result<(), StepError> {
        let line = self.to_string();
        let program = find(self.tool, folder).ok_or(StepError::Missing { tool: self.tool })?;
        let mut command = Command::new(program);
        command.args(&self.arguments).current_dir(folder).stdin(Stdio::null()).stdout(std::io::stderr());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        for name in &self.removed {
            command.env_remove(name);
        }
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(StepError::Failed { line, status, help: self.help }),
            Err(source) => Err(StepError::Start { line, source }),
        }
    }
}

impl fmt::Display for Run {
    /// As a shell would take it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.variables {
            write!(f, "{name}={} ", quoted(&value.to_string_lossy()))?;
        }
        f.write_str(self.tool.program)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", quoted(&argument.to_string_lossy())))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(run) => run.fmt(f),
            Self::Work { what, .. } => f.write_str(what),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step({self})")
    }
}

impl From<Run> for Step {
    fn from(run: Run) -> Self {
        Self::Run(run)
    }
}

/// Runs `steps` in `folder`, telling of each before it begins; the first that fails ends them. A program that is missing is told of
/// before anything runs.
///
/// # Errors
/// A program is missing, could not be started or failed.
pub fn run_steps(steps: &[Step], folder: &Path, tell: &mut dyn FnMut(&Step)) -> Result<(), StepError> {
    for step in steps {
        if let Step::Run(run) = step
            && let Some(tool) = run.missing(folder)
        {
            return Err(StepError::Missing { tool });
        }
    }
    for step in steps {
        tell(step);
        match step {
            Step::Run(run) => run.run(folder)?,
            Step::Work { what, work } => work().map_err(|error| StepError::Work { what: what.clone(), error })?,
        }
    }
    Ok(())
}

/// The tool's file.
fn find(tool: &Tool, folder: &Path) -> Option<PathBuf> {
    let own = tool.folders.iter().map(|relative| folder.join(relative));
    let (tools, path) = (tools(), std::env::var_os("PATH").unwrap_or_default());
    let folders = own.chain(std::env::split_paths(&tools)).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(tool.program)).find(|file| file.is_file())
}

fn tools() -> OsString {
    std::env::var_os(TOOLS_VARIABLE).unwrap_or_default()
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SHELL: Tool = Tool { program: "sh", folders: &["bin"], install: "install a shell" };
    static ABSENT: Tool = Tool { program: "no-such-tool-at-all", folders: &[], install: "install it from nowhere" };

    fn shell(script: &str) -> Step {
        Run::new(&SHELL).args(["-c", script]).help("mend it").into()
    }

    #[test]
    fn a_missing_tool_is_told_of_before_anything_runs() {
        let folder = tempfile::tempdir().unwrap();
        for last in [Run::new(&ABSENT), Run::new(&SHELL).needs(&ABSENT)] {
            let steps = [shell("echo > ran"), last.into()];
            let error = run_steps(&steps, folder.path(), &mut |_| {}).unwrap_err();
            assert_eq!(error.to_string(), "`no-such-tool-at-all` is missing: install it from nowhere");
            assert!(!folder.path().join("ran").exists());
        }
    }

    #[test]
    fn steps_run_in_order_in_the_folder_until_one_fails() {
        let folder = tempfile::tempdir().unwrap();
        let write = |what: &str, path: PathBuf| Step::Work {
            what: what.to_owned(),
            work: Box::new(move || std::fs::write(&path, "x").map_err(|error| error.to_string())),
        };
        let steps = [
            shell("echo > first"),
            write("writing", folder.path().join("second")),
            shell("test -f first -a -f second && exit 3"),
            shell("echo > never"),
        ];
        let mut told = Vec::new();
        let error = run_steps(&steps, folder.path(), &mut |step| told.push(step.to_string())).unwrap_err();
        assert_eq!(told.len(), 3);
        assert_eq!(told[0], "sh -c 'echo > first'");
        assert_eq!(error.help(), Some("mend it"));
        assert!(matches!(&error, StepError::Failed { status, .. } if status.code() == Some(3)), "{error}");
        assert!(!folder.path().join("never").exists());

        let error = run_steps(&[write("writing", "/nowhere/x".into())], folder.path(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().starts_with("writing failed: "), "{error}");
    }

    #[test]
    fn a_projects_own_tool_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        let own = folder.path().join("bin/sh");
        assert_ne!(find(&SHELL, folder.path()).unwrap(), own);
        std::fs::write(&own, "").unwrap();
        assert_eq!(find(&SHELL, folder.path()).unwrap(), own);
    }
}
