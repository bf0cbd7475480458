//! The libraries that receivers of webhooks use, which judge the host's signatures in the tests: from npm and PyPI, by the
//! lists in `tests/verifiers`, under `target/tools`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::js;
use crate::command::Run;
use crate::paths::Paths;

const REQUIREMENTS: &str = "requirements.txt";

/// Whether they are there, as the lists have them now.
pub(super) fn is_there(paths: &Paths) -> bool {
    let wanted = fs::read(source(paths).join(REQUIREMENTS));
    let present = fs::read(python(paths).join(REQUIREMENTS));
    js::has_locked(&source(paths), &node(paths))
        && matches!((present, wanted), (Ok(present), Ok(wanted)) if present == wanted)
}

pub(super) fn install(paths: &Paths) -> Result<()> {
    js::install_locked(&source(paths), &node(paths))?;
    let (list, to) = (source(paths).join(REQUIREMENTS), python(paths));
    let advice = "check the network, then run it again";
    Run::new("python3", advice).args(["-m", "venv", "--clear"]).arg(&to).success()?;
    Run::new(to.join("bin/pip"), advice)
        .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(&list)
        .success()
        .with_context(|| format!("installing {} into {}", list.display(), to.display()))?;
    // Last: it says that everything before it went well.
    fs::copy(&list, to.join(REQUIREMENTS)).with_context(|| format!("copying {REQUIREMENTS}"))?;
    Ok(())
}

fn source(paths: &Paths) -> PathBuf {
    paths.root.join("tests/verifiers")
}

fn node(paths: &Paths) -> PathBuf {
    paths.tools().join("verifiers-js")
}

fn python(paths: &Paths) -> PathBuf {
    paths.tools().join("verifiers-python")
}
