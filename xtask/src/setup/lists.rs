//! Packages of npm and PyPI, by the lists in a folder of `tests`, installed under `target/tools`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::js;
use crate::command::Run;
use crate::paths::Paths;

const REQUIREMENTS: &str = "requirements.txt";

/// A folder of `tests` with a `package-lock.json` and a `requirements.txt`.
#[derive(Clone, Copy)]
pub(crate) struct Lists(&'static str);

impl Lists {
    /// The libraries that receivers of webhooks use, which judge the host's signatures in the tests.
    pub(crate) const VERIFIERS: Self = Self("verifiers");
    /// What subscribers written by hand use, which the bench measures the host beside.
    pub(crate) const SUBSCRIBERS: Self = Self("subscribers");

    /// Whether they are there, as the lists have them now.
    pub(crate) fn are_there(self, paths: &Paths) -> bool {
        js::has_locked(&self.source(paths), &self.node(paths)) && self.has_required(paths)
    }

    pub(crate) fn install(self, paths: &Paths) -> Result<()> {
        js::install_locked(&self.source(paths), &self.node(paths))?;
        let (list, to) = (self.source(paths).join(REQUIREMENTS), self.python(paths));
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

    fn has_required(self, paths: &Paths) -> bool {
        let wanted = fs::read(self.source(paths).join(REQUIREMENTS));
        let present = fs::read(self.python(paths).join(REQUIREMENTS));
        matches!((present, wanted), (Ok(present), Ok(wanted)) if present == wanted)
    }

    fn source(self, paths: &Paths) -> PathBuf {
        paths.root.join("tests").join(self.0)
    }

    fn node(self, paths: &Paths) -> PathBuf {
        paths.tools().join(format!("{}-js", self.0))
    }

    fn python(self, paths: &Paths) -> PathBuf {
        paths.tools().join(format!("{}-python", self.0))
    }
}
