//! FraiseQL's own publishers and receivers, packages outside the workspace that only the long tests start.

use std::path::PathBuf;

use anyhow::Result;

use crate::command::{Run, heading};
use crate::paths::Paths;

const ADVICE: &str = "the compiler's message is above";

/// The packages.
pub(crate) fn folders(paths: &Paths) -> [PathBuf; 2] {
    ["tests/fraiseql", "tests/fraiseql-receiver"].map(|folder| paths.root.join(folder))
}

/// Checks and builds them into `target/fraiseql`, where the tests look.
pub(crate) fn build(paths: &Paths) -> Result<()> {
    heading("test: FraiseQL's own publishers and receivers");
    for folder in folders(paths) {
        let cargo = |task: &str| {
            let run = Run::cargo(&folder, ADVICE).args([task, "--locked", "--target-dir"]);
            run.arg(paths.target.join("fraiseql"))
        };
        cargo("clippy").args(["--", "--deny", "warnings"]).success()?;
        cargo("build").success()?;
    }
    Ok(())
}
