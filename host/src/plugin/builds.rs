//! The last good builds, kept beside the store: what goes on when a new file is bad at a start, and what is put back when
//! a new build turns out to be bad at work.
//!
//! A build is a plugin's pair of files. Of each plugin two are kept: the one at work, and the one before it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::rollback::Standing;

/// A plugin's pair of files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pair {
    pub(super) wasm: Vec<u8>,
    pub(super) sidecar: Option<String>,
}

/// What is remembered of one plugin's builds. Builds are named as [`Pair::build`] names them.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub(super) struct History {
    /// The build at work, or last at work.
    pub(super) serving: Option<String>,
    /// The one before it.
    pub(super) before: Option<String>,
    /// The one that was taken from work.
    pub(super) rolled_back: Option<RolledBack>,
    /// How the build at work does.
    pub(super) standing: Standing,
}

/// A build that was taken from work. It is not tried again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct RolledBack {
    pub(super) build: String,
    /// The SHA-256 of its file, which its runs carry.
    pub(super) digest: String,
    /// How often what it killed is still to be put back to work: a call of it may end after the first time.
    pub(super) redrives_left: u32,
}

/// The folder of builds.
#[derive(Debug)]
pub struct Builds {
    dir: PathBuf,
}

impl Pair {
    /// Names the build: hex, of both files' content.
    pub(super) fn build(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(Sha256::digest(&self.wasm));
        if let Some(sidecar) = &self.sidecar {
            hash.update(sidecar);
        }
        hex::encode(hash.finalize())
    }
}

impl Builds {
    /// The folder `dir`, made with mode 0700 where it is not there.
    ///
    /// # Errors
    /// It can't be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// What is remembered of every plugin, by name.
    pub(super) fn histories(&self) -> BTreeMap<Arc<str>, History> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return BTreeMap::new() };
        let names = entries.filter_map(Result::ok).filter_map(|entry| {
            let file = entry.file_name();
            Some(Arc::from(file.to_str()?.strip_suffix(HISTORY)?.strip_suffix('.')?))
        });
        names.map(|name: Arc<str>| (Arc::clone(&name), self.history(&name))).collect()
    }

    /// What is remembered of the plugin `name`; nothing where that can't be read.
    pub(super) fn history(&self, name: &str) -> History {
        let path = self.history_path(name);
        let read = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return History::default(),
            Err(error) => Err(error),
        };
        read.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "what was known of a plugin's builds can't be read; it begins anew");
            History::default()
        })
    }

    /// Makes `history` durable, and removes the builds that it does not name.
    pub(super) fn keep_history(&self, name: &str, history: &History) {
        let kept = serde_json::to_vec(history)
            .map_err(io::Error::from)
            .and_then(|text| self.write(&self.history_path(name), &text))
            .and_then(|()| self.prune(name, history));
        if let Err(error) = kept {
            tracing::warn!(plugin = %name, dir = %self.dir.display(), %error, "what is known of the plugin's builds could not be kept");
        }
    }

    /// Makes a build durable; one that is there already is left alone.
    pub(super) fn keep(&self, name: &str, build: &str, pair: &Pair) {
        let path = self.wasm_path(name, build);
        if path.exists() {
            return;
        }
        // The sidecar first: a build is there when its file is.
        let sidecar =
            pair.sidecar.as_ref().map_or(Ok(()), |text| self.write(&path.with_extension("toml"), text.as_bytes()));
        if let Err(error) = sidecar.and_then(|()| self.write(&path, &pair.wasm)) {
            tracing::warn!(plugin = %name, dir = %self.dir.display(), %error, "the plugin's build could not be kept; it can't be put back later");
        }
    }

    /// The build, where it is kept and whole.
    pub(super) fn load(&self, name: &str, build: &str) -> io::Result<Pair> {
        let path = self.wasm_path(name, build);
        let wasm = fs::read(&path)?;
        let sidecar = match fs::read_to_string(path.with_extension("toml")) {
            Ok(sidecar) => Some(sidecar),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let pair = Pair { wasm, sidecar };
        if pair.build() == build {
            Ok(pair)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the build that was kept is not what it was"))
        }
    }

    fn prune(&self, name: &str, history: &History) -> io::Result<()> {
        let own = format!("{name}.");
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(rest) = file.strip_prefix(&own).filter(|rest| *rest != HISTORY) else { continue };
            let named = [&history.serving, &history.before].into_iter().flatten();
            if !named.into_iter().any(|build| rest.starts_with(build.as_str())) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Beside, then renamed: what is there is whole, also after a power cut.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let private = fs::Permissions::from_mode(0o600);
        let mut file = tempfile::Builder::new().prefix(".new-").permissions(private).tempfile_in(&self.dir)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(&self.dir)?.sync_all()
    }

    fn history_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.{HISTORY}"))
    }

    fn wasm_path(&self, name: &str, build: &str) -> PathBuf {
        self.dir.join(format!("{name}.{build}.wasm"))
    }
}

/// The end of a history's name.
const HISTORY: &str = "history.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(wasm: &[u8], sidecar: Option<&str>) -> Pair {
        Pair { wasm: wasm.to_owned(), sidecar: sidecar.map(str::to_owned) }
    }

    #[test]
    fn a_build_is_named_by_both_files() {
        let names =
            [pair(b"a", None), pair(b"b", None), pair(b"a", Some("")), pair(b"a", Some("x"))].map(|it| it.build());
        assert_eq!(names[0], pair(b"a", None).build());
        assert_eq!(
            names.iter().collect::<std::collections::BTreeSet<_>>().len(),
            3,
            "an empty sidecar asks for nothing"
        );
    }

    #[test]
    fn what_the_history_names_is_kept_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Builds::open(&dir.path().join("builds")).unwrap();
        assert_eq!(builds.history("orders"), History::default());
        let pairs = [pair(b"a", None), pair(b"b", Some("x")), pair(b"c", Some("y"))];
        pairs.iter().for_each(|pair| builds.keep("orders", &pair.build(), pair));
        builds.keep("orders-2", &pairs[0].build(), &pairs[0]);
        let history = History {
            serving: Some(pairs[2].build()),
            before: Some(pairs[1].build()),
            standing: Standing::default(),
            rolled_back: None,
        };
        builds.keep_history("orders", &history);
        assert_eq!(builds.history("orders"), history);
        assert_eq!(builds.histories(), BTreeMap::from([("orders".into(), history)]));
        assert_eq!(builds.load("orders", &pairs[1].build()).unwrap(), pairs[1]);
        assert_eq!(builds.load("orders", &pairs[0].build()).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(builds.load("orders-2", &pairs[0].build()).is_ok(), "another plugin's");
        let mode = fs::metadata(&builds.dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn what_is_damaged_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Builds::open(dir.path()).unwrap();
        let good = pair(b"a", Some("x"));
        builds.keep("orders", &good.build(), &good);
        fs::write(builds.wasm_path("orders", &good.build()), b"b").unwrap();
        assert_eq!(builds.load("orders", &good.build()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        fs::write(builds.history_path("orders"), b"{").unwrap();
        assert_eq!(builds.history("orders"), History::default());
    }
}
