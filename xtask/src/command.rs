//! Running other programs: their output streams through, and a failure names the command and what to do.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// A command to be run, shown as a shell would take it.
pub(crate) struct Run {
    command: Command,
    /// Said when it fails: what to do.
    advice: &'static str,
}

impl Run {
    /// `program` in the present folder.
    pub(crate) fn new(program: impl AsRef<OsStr>, advice: &'static str) -> Self {
        Self { command: Command::new(program), advice }
    }

    /// The cargo that runs this program, in `folder`.
    pub(crate) fn cargo(folder: &Path, advice: &'static str) -> Self {
        let mut run = Self::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), advice);
        run.command.current_dir(folder);
        run
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// In `folder`.
    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Builds for wasm: flags meant for this machine's compiler and linker would break it.
    pub(crate) fn without_native_flags(mut self) -> Self {
        self.command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        self
    }

    /// Runs it and passes its status on, whatever it is.
    pub(crate) fn status(mut self) -> Result<ExitStatus> {
        let shown = self.shown();
        eprintln!("$ {shown}");
        self.command.status().with_context(|| format!("`{shown}` could not be started; {}", self.advice))
    }

    /// Runs it to success.
    pub(crate) fn success(self) -> Result<()> {
        let (shown, advice) = (self.shown(), self.advice);
        let status = self.status()?;
        if !status.success() {
            bail!("`{shown}` failed ({status}); {advice}");
        }
        Ok(())
    }

    /// Runs it quietly to success and takes what it printed.
    pub(crate) fn output(mut self) -> Result<String> {
        let shown = self.shown();
        let output = self.command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("`{shown}` could not be started; {}", self.advice))?;
        if !output.status.success() {
            bail!("`{shown}` failed ({}); {}", output.status, self.advice);
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed something that is not UTF-8"))
    }

    fn shown(&self) -> String {
        let program = Path::new(self.command.get_program());
        let program = program.file_name().unwrap_or(program.as_os_str());
        let words = std::iter::once(program).chain(self.command.get_args());
        words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }
}

/// A heading between steps.
pub(crate) fn heading(text: &str) {
    eprintln!("\n=== {text}");
}

/// The file that a shell would run as `name`; also looks where only root's PATH leads, and where Debian keeps the
/// programs of each PostgreSQL.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    let folders = env::split_paths(&path).chain(system).chain(version_folders(Path::new("/usr/lib/postgresql")));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The folders `{version}/bin` in `root`; none where there is no such folder.
fn version_folders(root: &Path) -> Vec<PathBuf> {
    let entries = root.read_dir().into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("bin")).filter(|folder| folder.is_dir()).collect()
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Run, quoted, version_folders};

    #[test]
    fn every_versions_programs_are_found() {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["15/bin", "17/bin", "16/share"] {
            std::fs::create_dir_all(root.path().join(folder)).expect("writable");
        }
        let mut found = version_folders(root.path());
        found.sort();
        assert_eq!(found, [root.path().join("15/bin"), root.path().join("17/bin")]);
        assert!(version_folders(&root.path().join("nowhere")).is_empty());
    }

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        for (word, expected) in [("a-b/c=d", "a-b/c=d"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'")] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn a_failure_names_the_command_and_what_to_do() {
        let error = Run::new("false", "mend it").arg("a b").success().expect_err("it fails");
        let error = error.to_string();
        assert!(error.contains("`false 'a b'`") && error.ends_with("mend it"), "{error}");

        let error = Run::new("/nowhere/at-all", "install it").success().expect_err("it is not there");
        assert_eq!(error.to_string(), "`at-all` could not be started; install it");
    }
}
