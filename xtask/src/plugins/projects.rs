//! The example plugins in other languages: what an author does with `wirehook plugin build`, and the tests of each SDK.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::name_of;
use crate::command::{Run, heading};
use crate::paths::Paths;
use crate::setup::go;

const ADVICE: &str = "what failed is above";

/// Builds those under `plugins/` that are no packages of Rust, with their sidecars, into `target/plugins`; with `guests`
/// also those of the tests, into `target/guests`.
pub(crate) fn run(paths: &Paths, guests: bool) -> Result<()> {
    heading("plugins: the examples in other languages");
    Run::cargo(&paths.root, ADVICE)
        .args(["build", "--locked", "--package", "wirehook", "--bin", "wirehook"])
        .success()?;
    let wirehook = paths.binary("debug", "wirehook");
    let tools = env::join_paths(go::folder(paths))?;
    let examples = folders(&paths.root.join("plugins"))?.into_iter().map(|folder| (folder, paths.plugins()));
    let guests = if guests { folders(&paths.root.join("tests/guests/go"))? } else { Vec::new() };
    for (folder, to) in examples.chain(guests.into_iter().map(|folder| (folder, paths.guests()))) {
        let file = to.join(format!("{}.wasm", name_of(&folder)?));
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
    Ok(())
}

/// Nothing is fetched, and what the toolchain keeps stays in the target folder.
fn offline(run: Run, paths: &Paths) -> Run {
    let cache: OsString = paths.target.join("go-cache").into();
    run.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GOCACHE", cache)
}

/// The folders in `parent` that are projects of another language than Rust.
fn folders(parent: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(parent).with_context(|| format!("reading the folder {}", parent.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.join("Cargo.toml").is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
