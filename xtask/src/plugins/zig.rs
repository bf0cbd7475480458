//! The example in Zig, which only the long tests run: its compiler is a download of 100 MB and takes 400 MB of disk.

use std::fs;

use anyhow::{Context, Result};

use crate::command::{Run, heading};
use crate::paths::Paths;

/// What brings the compiler.
const PACKAGE: &str = "ziglang==0.17.1";

/// A module without an entry point, for no system at all.
const FLAGS: [&str; 7] = ["-target", "wasm32-freestanding", "-fno-entry", "-rdynamic", "-fstrip", "-O", "ReleaseSmall"];

/// Installs the compiler under `target/tools` where it is missing, and builds `target/zig/orders.wasm`, where the tests
/// look.
pub(crate) fn build(paths: &Paths) -> Result<()> {
    heading("test: the example in Zig");
    let tools = paths.tools().join("zig");
    let zig = tools.join("ziglang/zig");
    if !zig.is_file() {
        Run::new("python3", "check the network, then run it again")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"])
            .args(["--target".as_ref(), tools.as_os_str(), PACKAGE.as_ref()])
            .success()
            .with_context(|| format!("installing {PACKAGE} into {}", tools.display()))?;
    }
    let folder = paths.target.join("zig");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Run::new(zig, "the compiler's message is above")
        .within(&folder)
        .env("ZIG_GLOBAL_CACHE_DIR", folder.join("cache"))
        .env("ZIG_LOCAL_CACHE_DIR", folder.join("cache"))
        .arg("build-exe")
        .arg(paths.root.join("sdk/c/examples/zig/orders.zig"))
        .args(FLAGS)
        .arg("-femit-bin=orders.wasm")
        .success()
}
