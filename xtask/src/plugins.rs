//! Builds the example plugins, and the hostile ones of the tests.

mod c;
pub(crate) mod builtin;
pub(crate) mod projects;
pub(crate) mod zig;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

use crate::command::{Run, heading};
use crate::paths::Paths;

/// Core modules, which the host encodes.
const CORE: &str = "wasm32-unknown-unknown";
/// Components with std's view of WASI.
const WASI: &str = "wasm32-wasip2";

/// The example that every language has; behind a hyphen, in which.
const EXAMPLE: &str = "orders";

const ADVICE: &str = "the compiler's message is above";

/// Builds into `target/plugins`, and with `guests` into `target/guests`.
pub(crate) fn run(paths: &Paths, guests: bool) -> Result<()> {
    examples(paths)?;
    if guests {
        self::guests(paths)?;
        projects::guests(paths)?;
    }
    Ok(())
}

/// Folders under `target/tools` with programs of the toolchains that the set-up keeps there, searched before `PATH`.
const TOOL_FOLDERS: [&str; 3] = ["go/go/bin", "python/bin", "js/node_modules/.bin"];

/// The folders under `plugins/` that are packages of Rust.
pub(crate) fn example_folders(paths: &Paths) -> Result<Vec<PathBuf>> {
    packages(&paths.root.join("plugins"))
}

fn examples(paths: &Paths) -> Result<()> {
    heading("plugins: building the host, which knows how each language is built");
    Run::cargo(&paths.root, ADVICE).args(["build", "--locked", "--package", "wirehook"]).success()?;
    heading("plugins: the examples");
    for folder in folders(&paths.root.join("plugins"))? {
        example(paths, &folder)?;
    }
    Ok(())
}

/// How long the builds of the example take once more, in every language that it is in: after a change of its sources,
/// what they depend on being built.
pub(crate) fn time_builds(paths: &Paths) -> Result<Vec<(String, Duration)>> {
    let mut times = Vec::new();
    for folder in folders(&paths.root.join("plugins"))? {
        let name = name_of(&folder)?;
        if name == EXAMPLE || name.starts_with(&format!("{EXAMPLE}-")) {
            touch(&folder.join("src"))?;
            let started = Instant::now();
            example(paths, &folder)?;
            times.push((name, started.elapsed()));
        }
    }
    Ok(times)
}

/// Makes every file in `folder` look changed, where there is such a folder: toolchains that look at content know better.
fn touch(folder: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            fs::OpenOptions::new().append(true).open(&path)?.set_modified(SystemTime::now())?;
        }
    }
    Ok(())
}

/// As an author would: with `wirehook plugin build`, whatever the language.
fn example(paths: &Paths, folder: &Path) -> Result<()> {
    let lock = folder.join("Cargo.lock");
    let locked = fs::read(&lock).ok();
    let output = paths.plugins().join(format!("{}.wasm", name_of(folder)?));
    let tools = env::join_paths(TOOL_FOLDERS.map(|tools| paths.target.join("tools").join(tools)))?;
    Run::new(paths.binary("debug", "wirehook"), "what the toolchain said is above")
        .env("WIREHOOK_TOOLS", tools)
        .env("CARGO_TARGET_DIR", paths.guest_builds())
        .args(["plugin", "build", "--out"])
        .args([&output, folder])
        .success()?;
    if fs::read(&lock).ok() != locked {
        bail!("{} was not up to date, and is now: commit it", lock.display());
    }
    Ok(())
}

fn guests(paths: &Paths) -> Result<()> {
    heading("plugins: the hostile guests");
    let workspace = paths.root.join("tests/guests");
    let mut installed = BTreeSet::new();
    for (folder, target) in [("core", CORE), ("wasi", WASI)] {
        let names =
            packages(&workspace.join(folder))?.iter().map(|folder| name_of(folder)).collect::<Result<Vec<_>>>()?;
        build(&workspace, paths, target, &names)?;
        for name in names {
            let file = paths.guests().join(format!("{name}.wasm"));
            install(&built(paths, target, &name), &file)?;
            installed.insert(file);
        }
    }
    remove_others(&paths.guests(), &installed)
}

fn build(folder: &Path, paths: &Paths, target: &str, packages: &[String]) -> Result<()> {
    let run = Run::cargo(folder, ADVICE)
        .args(["build", "--locked", "--release", "--target", target, "--target-dir"])
        .arg(paths.guest_builds());
    packages.iter().fold(run, |run, package| run.args(["--package", package])).without_native_flags().success()
}

fn built(paths: &Paths, target: &str, name: &str) -> PathBuf {
    paths.guest_builds().join(target).join("release").join(format!("{name}.wasm"))
}

/// The folders in `folder` that are packages of Rust, by name.
fn packages(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(folders(folder)?.into_iter().filter(|path| path.join("Cargo.toml").is_file()).collect())
}

/// The folders in `folder`, by name.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A package is named as its folder.
fn name_of(folder: &Path) -> Result<String> {
    let name = folder.file_name().and_then(|name| name.to_str());
    Ok(name.with_context(|| format!("{} has no name in UTF-8", folder.display()))?.to_owned())
}

/// Puts `from` in place of `to` whole or not at all, and only where they differ: a running host watches the folder.
fn install(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let folder = to.parent().with_context(|| format!("{} has no folder", to.display()))?;
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let draft = to.with_extension("draft");
    fs::write(&draft, &bytes).with_context(|| format!("writing {}", draft.display()))?;
    fs::rename(&draft, to).with_context(|| format!("putting {} in place", to.display()))?;
    eprintln!("built {} ({} KiB)", to.display(), bytes.len().div_ceil(1024));
    Ok(())
}

/// What is no longer built must not be tested.
fn remove_others(folder: &Path, kept: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))? {
        let path = entry?.path();
        if path.is_file() && !kept.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}
