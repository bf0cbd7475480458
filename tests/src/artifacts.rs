//! Where cargo and xtask put what the tests run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The host's binary, from the same profile as the running test.
pub fn host_binary() -> Result<PathBuf> {
    let path = profile_folder()?.join("wirehook");
    if !path.is_file() {
        bail!("{} is missing: run `cargo xtask test`, or `cargo build -p wirehook` first", path.display());
    }
    Ok(path)
}

/// Another binary of this package, from the same profile as the running program.
pub fn own_binary(name: &str) -> Result<PathBuf> {
    let path = profile_folder()?.join(name);
    if !path.is_file() {
        bail!("{} is missing: run `cargo build -p wirehook-tests --bins` in the same profile first", path.display());
    }
    Ok(path)
}

/// An example plugin built by `cargo xtask plugins`.
pub fn example_plugin(name: &str) -> Result<PathBuf> {
    built_guest("plugins", name, "cargo xtask plugins")
}

/// A hostile plugin built by `cargo xtask plugins --guests`.
pub fn hostile_guest(name: &str) -> Result<PathBuf> {
    built_guest("guests", name, "cargo xtask plugins --guests")
}

/// The program that `tests/fraiseql` is, built by `cargo xtask test --full`.
pub fn fraiseql_publishers() -> Result<PathBuf> {
    let path = target_folder()?.join("fraiseql/debug/fraiseql-publishers");
    if !path.is_file() {
        bail!("{} is missing: run `cargo xtask test --full`", path.display());
    }
    Ok(path)
}

/// The program that `tests/fraiseql-receiver` is, built by `cargo xtask test --full`.
pub fn fraiseql_receiver() -> Result<PathBuf> {
    let path = target_folder()?.join("fraiseql/debug/fraiseql-receiver");
    if !path.is_file() {
        bail!("{} is missing: run `cargo xtask test --full`", path.display());
    }
    Ok(path)
}

/// A folder of what `cargo xtask setup` installs.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = target_folder()?.join("tools").join(name);
    if !path.is_dir() {
        bail!("{} is missing: run `cargo xtask test`, or `cargo xtask setup` first", path.display());
    }
    Ok(path)
}

/// A file under `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// The build folder on a real disk, for files whose syncs are measured.
pub fn target_folder() -> Result<PathBuf> {
    let profile = profile_folder()?;
    Ok(profile.parent().context("the profile's folder has a parent")?.to_owned())
}

fn built_guest(folder: &str, name: &str, command: &str) -> Result<PathBuf> {
    let path = target_folder()?.join(folder).join(format!("{name}.wasm"));
    if !path.is_file() {
        bail!("{} is missing: run `cargo xtask test`, or `{command}` first", path.display());
    }
    Ok(path)
}

/// `target/debug` or `target/release`: tests run in its `deps`, binaries in itself.
fn profile_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("the path of the running program")?;
    let folder = program.parent().context("the running program's folder")?;
    let profile = if folder.ends_with("deps") { folder.parent().context("the profile's folder")? } else { folder };
    Ok(profile.to_owned())
}
