//! The rules of the code's style that a program can check.

mod rules;
mod reasons;

use std::fs;

use anyhow::{Context, Result, bail};

use crate::command::{Run, heading};
use crate::paths::Paths;
use crate::plugins;
use crate::publishers;

/// One file that is or will be tracked.
pub(crate) struct File {
    /// From the repository's root, with `/` between folders.
    path: String,
    bytes: u64,
    /// `None` where it is not UTF-8.
    text: Option<String>,
}

/// A rule that is broken.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    /// The file, and the line where there is one.
    place: String,
    /// What is wrong and what to do.
    message: String,
    /// A warning is printed, and nothing more.
    is_warning: bool,
}

impl Finding {
    fn error(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into(), is_warning: false }
    }

    fn warning(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { is_warning: true, ..Self::error(place, message) }
    }
}

/// The quick rules first: all that they find is printed at once.
pub(crate) fn run(paths: &Paths) -> Result<()> {
    heading("tidy: the rules");
    let files = files(paths)?;
    let mut errors = 0;
    for finding in rules::check(&files).into_iter().chain(reasons::check(&files)) {
        let kind = if finding.is_warning { "warning" } else { "error" };
        eprintln!("{kind}: {}: {}", finding.place, finding.message);
        errors += usize::from(!finding.is_warning);
    }
    if errors > 0 {
        bail!("tidy found {errors} errors, listed above");
    }
    eprintln!("{} files are in order", files.len());
    plugins::builtin::check(paths)?;
    format(paths)?;
    lint(paths)
}

fn format(paths: &Paths) -> Result<()> {
    heading("tidy: the format");
    let mut folders = vec![paths.root.clone(), paths.root.join("tests/guests")];
    folders.extend(publishers::folders(paths));
    folders.extend(plugins::example_folders(paths)?);
    for folder in folders {
        // Not `--all`: that would follow the plugins' dependency on the SDK into the whole workspace.
        Run::cargo(&folder, "run `cargo fmt` in the folder of the files above").args(["fmt", "--check"]).success()?;
    }
    Ok(())
}

fn lint(paths: &Paths) -> Result<()> {
    const ADVICE: &str = "mend what clippy says above";
    heading("tidy: clippy");
    Run::cargo(&paths.root, ADVICE)
        .args(["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"])
        .success()?;
    for folder in plugins::example_folders(paths)? {
        clippy_outside(paths, Run::cargo(&folder, ADVICE), &["--all-targets"]).success()?;
    }
    let guests = Run::cargo(&paths.root.join("tests/guests"), ADVICE);
    let target = ["--workspace", "--release", "--target", "wasm32-wasip2"];
    clippy_outside(paths, guests, &target).without_native_flags().success()
}

/// Packages outside the workspace build beside it.
fn clippy_outside(paths: &Paths, run: Run, arguments: &[&str]) -> Run {
    run.args(["clippy", "--locked"])
        .args(arguments)
        .arg("--target-dir")
        .arg(paths.guest_builds())
        .args(["--", "--deny", "warnings"])
}

/// What git tracks, and what it would with the next `git add`.
fn files(paths: &Paths) -> Result<Vec<File>> {
    let listed = Run::new("git", "tidy needs git, and a clone of the repository")
        .arg("-C")
        .arg(&paths.root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()?;
    let mut files = Vec::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        let file = paths.root.join(path);
        // A file that was deleted and not yet committed is still listed.
        if !file.is_file() {
            continue;
        }
        let content = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        files.push(File { path: path.to_owned(), bytes: content.len() as u64, text: String::from_utf8(content).ok() });
    }
    Ok(files)
}
