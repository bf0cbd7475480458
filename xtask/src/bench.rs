//! Builds with optimisation and measures.

use anyhow::Result;

use crate::command::{Run, heading};
use crate::paths::Paths;
use crate::plugins;
use crate::setup::{self, Needs};

/// Where the table by language is.
const DOCUMENT: &str = "host/docs/plugins.md";

/// Runs `bench` of the tests' package on the host as it is released.
pub(crate) fn run(paths: &Paths, quick: bool, scale: bool, languages: bool) -> Result<()> {
    setup::run(Needs::Everything, paths)?;
    plugins::run(paths, false)?;
    let built = if languages { plugins::time_builds(paths)? } else { Vec::new() };
    heading("bench: building with optimisation");
    Run::cargo(&paths.root, "the compiler's message is above")
        .args(["build", "--locked", "--release", "--package", "wirehook", "--package", "wirehook-tests", "--bins"])
        .success()?;
    heading("bench");
    let flags = [(quick, "--quick"), (scale, "--scale"), (languages, "--languages")];
    let bench = Run::new(paths.binary("release", "bench"), "what went wrong is above")
        .args(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| flag));
    let bench = built
        .iter()
        .fold(bench, |bench, (name, time)| bench.arg("--built").arg(format!("{name}={}", time.as_millis())));
    if languages { bench.arg("--docs").arg(paths.root.join(DOCUMENT)).success() } else { bench.success() }
}
