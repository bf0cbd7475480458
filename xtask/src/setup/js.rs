//! The packages of npm that make a component of a plugin in JavaScript: by the SDK's lock file, under `target/tools`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::command::Run;
use crate::paths::Paths;

const LOCK: &str = "package-lock.json";

/// Whether they are there, as the lock file has them now.
pub(super) fn is_there(paths: &Paths) -> bool {
    let present = fs::read(installed(paths).join(LOCK));
    let wanted = fs::read(source(paths).join(LOCK));
    let program = installed(paths).join("node_modules/.bin/componentize-qjs");
    program.is_file() && matches!((present, wanted), (Ok(present), Ok(wanted)) if present == wanted)
}

pub(super) fn install(paths: &Paths) -> Result<()> {
    let to = installed(paths);
    fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
    for name in ["package.json", LOCK] {
        fs::copy(source(paths).join(name), to.join(name)).with_context(|| format!("copying {name}"))?;
    }
    Run::new("npm", "check the network, then run it again")
        .within(&to)
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
