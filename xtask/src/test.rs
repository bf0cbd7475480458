//! What belongs in every change.

use anyhow::Result;

use crate::command::{Run, find_program, heading};
use crate::paths::Paths;
use crate::plugins::{self, projects, zig};
use crate::publishers;
use crate::setup::{self, Needs};
use crate::tidy;

const ADVICE: &str = "what failed is above";

/// Tells the tests that the long ones are wanted too.
const FULL_VARIABLE: &str = "WIREHOOK_TEST_FULL";

/// Each step ends the run where it fails.
pub(crate) fn run(paths: &Paths, full: bool) -> Result<()> {
    setup::run(Needs::Everything, paths)?;
    plugins::run(paths, true)?;
    tidy::run(paths)?;
    for folder in plugins::example_folders(paths)? {
        heading(&format!("test: {}", folder.display()));
        Run::cargo(&folder, ADVICE).args(["test", "--locked", "--target-dir"]).arg(paths.guest_builds()).success()?;
    }
    projects::test(paths)?;
    let cargo = || {
        let run = Run::cargo(&paths.root, ADVICE);
        if full { run.env(FULL_VARIABLE, "1") } else { run }
    };
    if full {
        publishers::build(paths)?;
        zig::build(paths)?;
    }
    heading("test: the programs that the tests start");
    cargo().args(["build", "--locked", "--workspace", "--bins"]).success()?;
    heading(if full { "test: the workspace, the long tests too" } else { "test: the workspace" });
    if find_program("cargo-nextest").is_some() {
        // One failure hides no other.
        cargo().args(["nextest", "run", "--locked", "--workspace", "--no-fail-fast"]).success()?;
        heading("test: the examples in the documentation");
        cargo().args(["test", "--locked", "--workspace", "--doc"]).success()?;
    } else {
        cargo().args(["test", "--locked", "--workspace", "--no-fail-fast"]).success()?;
    }
    heading("test: everything passed");
    if !full {
        eprintln!(
            "left out: the long tests, FraiseQL's own publishers and the example in Zig among them; `cargo xtask test --full` runs them"
        );
    }
    Ok(())
}
