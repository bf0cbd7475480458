//! What is in other languages than Rust beside the examples: guests of the tests, and the tests of each SDK.

use std::env;
use std::ffi::OsString;

use anyhow::{Context, Result, ensure};

use super::{c, folders, name_of};
use crate::command::{Run, heading};
use crate::paths::Paths;
use crate::setup::go;

const ADVICE: &str = "what failed is above";

/// Builds the guests of the tests that are in Go, with their sidecars, into `target/guests`. The host is built.
pub(super) fn guests(paths: &Paths) -> Result<()> {
    let wirehook = paths.binary("debug", "wirehook");
    let tools = env::join_paths(go::folder(paths))?;
    for folder in folders(&paths.root.join("tests/guests/go"))? {
        let file = paths.guests().join(format!("{}.wasm", name_of(&folder)?));
        let build = Run::new(&wirehook, ADVICE).args(["plugin", "build"]).arg(&folder).arg("--out").arg(file);
        offline(build, paths).env("WIREHOOK_TOOLS", &tools).success()?;
    }
    Ok(())
}

/// Runs the tests of the SDKs and examples that are not Rust's.
pub(crate) fn test(paths: &Paths) -> Result<()> {
    let go = go::folder(paths).context("there is no Go: run `cargo xtask setup`")?.join("go");
    let modules = folders(&paths.root.join("plugins"))?.into_iter().filter(|folder| folder.join("go.mod").is_file());
    for folder in [paths.root.join("sdk/go")].into_iter().chain(modules) {
        heading(&format!("test: {}", folder.display()));
        let unformatted = Run::new(go.with_file_name("gofmt"), ADVICE).arg("-l").arg(&folder).output()?;
        ensure!(unformatted.is_empty(), "run `gofmt -w` on\n{unformatted}");
        let test = Run::new(&go, ADVICE).within(&folder).args(["test", "./..."]);
        offline(test, paths).success()?;
    }
    c::test(paths)
}

/// Nothing is fetched, and what the toolchain keeps stays in the target folder.
fn offline(run: Run, paths: &Paths) -> Run {
    let cache: OsString = paths.target.join("go-cache").into();
    run.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GOCACHE", cache)
}
