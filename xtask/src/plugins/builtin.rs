//! The component that the host has in it: `plugins/forward`, kept in git as it was built, so that building the host needs no
//! target of WebAssembly.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{ADVICE, CORE, build, built};
use crate::command::heading;
use crate::paths::Paths;

const NAME: &str = "forward";
/// The folder of the host with the component and the fingerprint of its sources.
const FOLDER: &str = "host/src/plugin/builtin";
/// What the component is built of.
const SOURCES: [&str; 4] =
    ["plugins/forward/Cargo.toml", "plugins/forward/Cargo.lock", "plugins/forward/src", "sdk/rust/src"];

/// Builds the component and puts it in its place.
pub(crate) fn run(paths: &Paths) -> Result<()> {
    heading("builtin: the component that routes run");
    build(&paths.root.join("plugins").join(NAME), paths, CORE, &[NAME.to_owned()])?;
    let folder = paths.root.join(FOLDER);
    let (from, to) = (built(paths, CORE, NAME), folder.join(NAME).with_extension("wasm"));
    fs::copy(&from, &to).with_context(|| format!("{}; {ADVICE}", to.display()))?;
    let fingerprint = format!("{:016x}\n", fingerprint(&paths.root)?);
    fs::write(kept(&folder), fingerprint).with_context(|| format!("writing in {}", folder.display()))?;
    eprintln!("built {} ({} KiB)", to.display(), fs::metadata(&to)?.len().div_ceil(1024));
    Ok(())
}

/// Refuses a component that is older than its sources.
pub(crate) fn check(paths: &Paths) -> Result<()> {
    let kept = fs::read_to_string(kept(&paths.root.join(FOLDER))).unwrap_or_default();
    if kept.trim() != format!("{:016x}", fingerprint(&paths.root)?) {
        bail!("{FOLDER}/{NAME}.wasm is not what its sources are now: run `cargo xtask builtin` and commit it");
    }
    Ok(())
}

fn kept(folder: &Path) -> PathBuf {
    folder.join(NAME).with_extension("sources")
}

/// FNV-1a (64 bits) over the names and contents of the sources: it tells a change, not a forger.
fn fingerprint(root: &Path) -> Result<u64> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for file in files {
        add(file.strip_prefix(root)?.as_os_str().as_encoded_bytes());
        add(&fs::read(&file).with_context(|| format!("reading {}", file.display()))?);
    }
    Ok(hash)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("reading the folder {}", path.display()))? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}
