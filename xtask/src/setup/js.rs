//! The packages of npm that make a component of a plugin in JavaScript: by the SDK's lock file, under `target/tools`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::Run;
use crate::paths::Paths;

const LOCK: &str = "package-lock.json";

/// Whether they are there, as the lock file has them now.
pub(super) fn is_there(paths: &Paths) -> bool {
    installed(paths).join("node_modules/.bin/componentize-qjs").is_file()
        && has_locked(&source(paths), &installed(paths))
}

pub(super) fn install(paths: &Paths) -> Result<()> {
    install_locked(&source(paths), &installed(paths))
}

/// Whether what the lock file in `source` names was installed into `to`.
pub(super) fn has_locked(source: &Path, to: &Path) -> bool {
    let present = fs::read(to.join(LOCK));
    let wanted = fs::read(source.join(LOCK));
    to.join("node_modules").is_dir() && matches!((present, wanted), (Ok(present), Ok(wanted)) if present == wanted)
}

/// Installs what the lock file in `source` names into `to`.
pub(super) fn install_locked(source: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for name in ["package.json", LOCK] {
        fs::copy(source.join(name), to.join(name)).with_context(|| format!("copying {name}"))?;
    }
    Run::new("npm", "check the network, then run it again")
        .within(to)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .success()
        .with_context(|| format!("installing the packages of {LOCK} into {}", to.display()))
}

fn source(paths: &Paths) -> PathBuf {
    paths.root.join("sdk/js/tools")
}

fn installed(paths: &Paths) -> PathBuf {
    paths.tools().join("js")
}
