//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

/// The folders that the commands work in.
pub(crate) struct Paths {
    /// The repository.
    pub(crate) root: PathBuf,
    /// The workspace's build folder; the built plugins stand in it too.
    pub(crate) target: PathBuf,
}

impl Paths {
    pub(crate) fn new() -> Self {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = package.parent().unwrap_or(package).to_owned();
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder));
        Self { root, target }
    }

    /// A program of the workspace, built in `profile`.
    pub(crate) fn binary(&self, profile: &str, name: &str) -> PathBuf {
        self.target.join(profile).join(name).with_extension(env::consts::EXE_EXTENSION)
    }

    /// The example plugins, each with its sidecar.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.target.join("plugins")
    }

    /// The hostile plugins.
    pub(crate) fn guests(&self) -> PathBuf {
        self.target.join("guests")
    }

    /// What setup installs where the system has none: one folder a tool.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// What cargo keeps of packages outside the workspace: they share it, so that what they have in common is built
    /// once.
    pub(crate) fn guest_builds(&self) -> PathBuf {
        self.target.join("guest-builds")
    }
}
