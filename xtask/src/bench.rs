//! Builds with optimisation and measures.

use anyhow::Result;

use crate::command::{Run, heading};
use crate::paths::Paths;
use crate::plugins;
use crate::setup::{self, Needs};

/// Runs `bench` of the tests' package on the host as it is released.
pub(crate) fn run(paths: &Paths, quick: bool, scale: bool) -> Result<()> {
    setup::run(Needs::Everything, paths)?;
    plugins::run(paths, false)?;
    heading("bench: building with optimisation");
    Run::cargo(&paths.root, "the compiler's message is above")
        .args(["build", "--locked", "--release", "--package", "wirehook", "--package", "wirehook-tests", "--bins"])
        .success()?;
    heading("bench");
    let flags = [(quick, "--quick"), (scale, "--scale")];
    Run::new(paths.binary("release", "bench"), "what went wrong is above")
        .args(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| flag))
        .success()
}
