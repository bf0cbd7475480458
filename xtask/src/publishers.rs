//! FraiseQL's own publishers, a package outside the workspace that only the long tests start.

use std::path::PathBuf;

use anyhow::Result;

use crate::command::{Run, heading};
use crate::paths::Paths;

const ADVICE: &str = "the compiler's message is above";

/// The package.
pub(crate) fn folder(paths: &Paths) -> PathBuf {
    paths.root.join("tests/fraiseql")
}

/// Checks and builds them into `target/fraiseql`, where the tests look.
pub(crate) fn build(paths: &Paths) -> Result<()> {
    heading("test: FraiseQL's own publishers");
    let cargo = |task: &str| {
        let run = Run::cargo(&folder(paths), ADVICE).args([task, "--locked", "--target-dir"]);
        run.arg(paths.target.join("fraiseql"))
    };
    cargo("clippy").args(["--", "--deny", "warnings"]).success()?;
    cargo("build").success()
}
