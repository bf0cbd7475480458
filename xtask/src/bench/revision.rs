//! The host of another revision, built as it was released.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::command::{Run, heading};
use crate::paths::Paths;

/// Characters of a commit's name that tell it from others.
const NAME_CHARS: usize = 12;

/// A revision's host.
#[derive(Debug)]
pub(super) struct OtherHost {
    /// The start of its commit's name.
    name: String,
    program: PathBuf,
}

impl OtherHost {
    /// As `bench --against` takes it.
    pub(super) fn argument(&self) -> OsString {
        let mut argument = OsString::from(&self.name);
        argument.push("=");
        argument.push(&self.program);
        argument
    }
}

/// Builds the host of `revision` with the flags and the locked packages of its own tree. What was built stays in the build
/// folder, a program for each revision.
pub(super) fn build(paths: &Paths, revision: &str) -> Result<OtherHost> {
    let git =
        || Run::new("git", "is the revision in this clone? `git fetch` brings what is missing").within(&paths.root);
    let commit = git().args(["rev-parse", "--verify", "--quiet", &format!("{revision}^{{commit}}")]).output()?;
    let name: String = commit.trim().chars().take(NAME_CHARS).collect();
    let folder = paths.target.join("against");
    let program = folder.join(format!("wirehook-{name}"));
    if program.is_file() {
        return Ok(OtherHost { name, program });
    }
    heading(&format!("bench: building the host of {name} with optimisation"));
    let (tree, archive) = (folder.join("tree"), folder.join("tree.tar"));
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))?;
    }
    fs::create_dir_all(&tree).with_context(|| format!("making {}", tree.display()))?;
    git().args(["archive", "--output"]).arg(&archive).arg(&name).success()?;
    Run::new("tar", "it is part of every Unix").args(["-xf"]).arg(&archive).arg("-C").arg(&tree).success()?;
    // One build folder for all revisions: their dependencies are mostly the same.
    let builds = folder.join("build");
    Run::cargo(&tree, "does the revision build with this toolchain?")
        .args(["build", "--locked", "--release", "--package", "wirehook", "--bins", "--target-dir"])
        .arg(&builds)
        .success()?;
    let built = builds.join("release/wirehook");
    fs::copy(&built, &program).with_context(|| format!("copying {} to {}", built.display(), program.display()))?;
    fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))?;
    fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
    Ok(OtherHost { name, program })
}
