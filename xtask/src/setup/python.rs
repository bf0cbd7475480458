//! componentize-py and pytest, in an environment under `target/tools`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::command::Run;
use crate::paths::Paths;

/// What is installed; newer ones of the first make other components.
const PACKAGES: [&str; 2] = ["componentize-py==0.25.1", "pytest==9.0.2"];

/// Whether Python can make environments: Debian packs apart what it needs.
pub(super) fn makes_environments() -> bool {
    Run::new("python3", "install python3-venv").args(["-c", "import ensurepip, venv"]).output().is_ok()
}

pub(super) fn is_there(paths: &Paths) -> bool {
    ["componentize-py", "pytest"].iter().all(|program| folder(paths).join(program).is_file())
}

/// Where the programs are.
pub(crate) fn folder(paths: &Paths) -> PathBuf {
    paths.tools().join("python/bin")
}

pub(super) fn install(paths: &Paths) -> Result<()> {
    let to = paths.tools().join("python");
    let advice = "check the network, then run it again";
    Run::new("python3", advice).args(["-m", "venv", "--clear"]).arg(&to).success()?;
    Run::new(folder(paths).join("pip"), advice)
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(PACKAGES)
        .success()
        .with_context(|| format!("installing {} into {}", PACKAGES.join(" and "), to.display()))
}
