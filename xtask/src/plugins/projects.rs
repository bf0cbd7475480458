//! What is in other languages than Rust beside the examples: guests of the tests, and the tests of each SDK.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::{c, folders, name_of};
use crate::command::{Run, heading};
use crate::paths::Paths;
use crate::setup::{go, python};

const ADVICE: &str = "what failed is above";

/// Builds the guests of the tests that are in other languages than Rust, with their sidecars, into `target/guests`. The host
/// is built.
pub(super) fn guests(paths: &Paths) -> Result<()> {
    let wirehook = paths.binary("debug", "wirehook");
    let fetched = [python::folder(paths), paths.tools().join("js/node_modules/.bin")];
    let tools = env::join_paths(go::folder(paths).into_iter().chain(fetched))?;
    let guests = ["go", "python", "js"].map(|language| folders(&paths.root.join("tests/guests").join(language)));
    for folder in guests.into_iter().collect::<Result<Vec<_>>>()?.concat() {
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
    let with_tests = |folder: &PathBuf| folder.join("pyproject.toml").is_file();
    let projects = folders(&paths.root.join("plugins"))?.into_iter().filter(with_tests);
    for folder in [paths.root.join("sdk/python")].into_iter().chain(projects) {
        heading(&format!("test: {}", folder.display()));
        let pytest = python::folder(paths).join("pytest");
        Run::new(pytest, ADVICE).within(&folder).args(["-q", "-p", "no:cacheprovider"]).success()?;
    }
    js(paths)?;
    c::test(paths)
}

/// The SDK's tests by Node itself, the examples' by the steps of their language.
fn js(paths: &Paths) -> Result<()> {
    let (sdk, tools) = (paths.root.join("sdk/js"), paths.tools().join("js/node_modules/.bin"));
    heading(&format!("test: {}", sdk.display()));
    Run::new("node", ADVICE).within(&sdk).args(["--test", "test/"]).success()?;
    for folder in folders(&paths.root.join("plugins"))? {
        if !folder.join("package.json").is_file() {
            continue;
        }
        heading(&format!("test: {}", folder.display()));
        let install = ["install", "--ignore-scripts", "--no-audit", "--no-fund"];
        Run::new("npm", ADVICE).within(&folder).args(install).success()?;
        let cli = sdk.join("tools/cli.js");
        Run::new("node", ADVICE).within(&folder).arg(cli).arg("test").env("WIREHOOK_TOOLS", &tools).success()?;
    }
    Ok(())
}

/// Nothing is fetched, and what the toolchain keeps stays in the target folder.
fn offline(run: Run, paths: &Paths) -> Run {
    let cache: OsString = paths.target.join("go-cache").into();
    run.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GOCACHE", cache)
}
