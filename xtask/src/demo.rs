//! Builds the host and runs its demo.

use std::process::ExitCode;

use anyhow::Result;

use crate::command::{Run, heading};
use crate::paths::Paths;
use crate::setup::{self, Needs};

/// The demo's own exit code is this command's.
pub(crate) fn run(paths: &Paths, arguments: &[String]) -> Result<ExitCode> {
    setup::run(Needs::Build, paths)?;
    heading("demo: building the host");
    // Without optimisation: what the demo shows does not need it, and it builds in a third of the time.
    Run::cargo(&paths.root, "the compiler's message is above").args(["build", "--package", "wirehook"]).success()?;
    heading("demo");
    let status = Run::new(paths.binary("debug", "wirehook"), "build it with `cargo build --package wirehook`")
        .arg("demo")
        .args(arguments)
        .status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
