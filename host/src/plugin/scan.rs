//! The plugins folder: every `*.wasm` in it, each on its own, so that a bad file never disturbs another.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::builds::{Builds, Pair};
use super::builtin;
use super::compiler::Effort;
use super::loader::FILE_BYTES_MAX;
use super::manifest::{SIDECAR_BYTES_MAX, subjects_of};
use super::{Engine, LoadError, Manifest, ManifestError, Plugin, digest, effective};
use crate::regular_file::{self, WithinError};
use crate::settings::{Admit, PluginCeiling, PluginsSettings, RouteSettings};
use crate::sync::lock;

/// Plugins in one folder.
pub(super) const PLUGINS_MAX: usize = 256;
/// Plugins loaded at once: each may hold its file's bytes, and a compiler's process.
const LOADERS_MAX: usize = 4;
/// Bytes of a plugin's name.
const NAME_BYTES_MAX: usize = 64;

/// One plugin of the folder, or one that the settings list.
#[derive(Debug)]
pub struct Scanned {
    /// The file's stem.
    pub name: Arc<str>,
    /// The file.
    pub path: PathBuf,
    /// What its files looked like before they were read.
    pub stamp: Stamp,
    /// Whether they looked different afterwards: somebody is writing them, and what was read may be neither the old pair
    /// nor the new one.
    pub changing: bool,
    /// The plugin, or why there is none.
    pub outcome: Result<Arc<Plugin>, PluginError>,
}

/// What a plugin's pair of files looks like from outside. As long as it is the same, so is what is in them: a file that is
/// written or replaced gets another time of change or another inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    wasm: Option<FileStamp>,
    sidecar: Option<FileStamp>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// In seconds and nanoseconds.
    changed_at: (i64, i64),
}

impl Stamp {
    fn of(wasm: &Path) -> Self {
        Self { wasm: FileStamp::of(wasm), sidecar: FileStamp::of(&wasm.with_extension("toml")) }
    }
}

impl FileStamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed_at: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The plugins folder at one look.
#[derive(Debug)]
pub struct Folder {
    /// The names of all that is there, or listed in the settings.
    pub names: BTreeSet<Arc<str>>,
    /// What was looked into, in the order of names.
    pub scanned: Vec<Scanned>,
}

/// Why the folder can't be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// It is not there.
    #[error("the plugins folder `{}` does not exist; create it, or set `[plugins] dir`", .0.display())]
    Missing(PathBuf),
    /// It can't be read.
    #[error("the plugins folder `{}` can't be read; it must be a folder the host may list", dir.display())]
    Unreadable {
        /// The folder.
        dir: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// More than [`PLUGINS_MAX`].
    #[error("the plugins folder `{}` has {count} plugins; {PLUGINS_MAX} are the most", dir.display())]
    TooMany {
        /// The folder.
        dir: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// The machine could not look into it just now.
    #[error("the plugins folder could not be looked into just now: {0}")]
    Busy(String),
}

/// Why one file is not a plugin that runs.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Its name can't be a plugin's.
    #[error(
        "the file's name can't be a plugin's; rename it to 1 to {NAME_BYTES_MAX} of the characters a-z, 0-9, `_`, `-`, then `.wasm`"
    )]
    Name,
    /// The settings list it, the folder has no such file.
    #[error("the settings list it, but `{}` does not exist; put it there, or remove its [[plugin]]", .0.display())]
    Missing(PathBuf),
    /// `admit = "listed"`, and it is not.
    #[error(
        "it is not listed, and `[plugins] admit` is \"listed\"; add a [[plugin]] with its name to the settings to admit it"
    )]
    NotListed,
    /// Its content is not the one the settings pin.
    #[error(
        "its sha256 is {found}, the settings admit only {pinned}; put the right file there, or change `sha256` in its [[plugin]]"
    )]
    Digest {
        /// What it is.
        found: String,
        /// What the settings say.
        pinned: String,
    },
    /// A file can't be read.
    #[error("`{}` can't be read; it must be a file the host may read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// It, or its sidecar, is a link that leads out of the folder: whoever may write into the folder could have the host
    /// read, and tell of, what only the host may read.
    #[error("`{}` is a link to a file outside the plugins folder; copy the file itself there", .0.display())]
    Outside(PathBuf),
    /// Its sidecar is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It ends before it should: somebody may still be writing it.
    #[error(
        "the file is not whole: it ends in the middle of a section; copy it again, best under another name and then renamed"
    )]
    NotWhole,
    /// It was taken from work.
    #[error(
        "this build was rolled back, because it failed so much more often than the one before it; put another build there"
    )]
    RolledBack,
    /// It took the host down with one event after the other.
    #[error(
        "this build took the host down with {0} events (dead letters `host_crash`); put another build there, or discard those dead letters and restart"
    )]
    HostCrashes(usize),
    /// The machine has no thread to read it on.
    #[error("there is no thread to load it on just now; raise the limit on processes of the service")]
    NoThread,
    /// Reading it panicked.
    #[error("loading it panicked: {0}; please report this with the file")]
    Panicked(String),
    /// It does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl PluginError {
    /// Whether it is not the files' fault and may pass by itself.
    pub fn is_passing(&self) -> bool {
        match self {
            // What is no regular file stays so until somebody changes it; all else may be a full table, a volume that is away.
            Self::Unreadable { source, .. } => source.kind() != io::ErrorKind::InvalidInput,
            Self::NoThread => true,
            Self::Load(error) => error.is_passing(),
            _ => false,
        }
    }
}

/// Loads every `*.wasm` of the folder (not of folders within) and reports what the settings list and the folder lacks.
/// `endpoints` are the configured ones; files that are not `wanted`, by their stem and what they look like, are left alone.
pub fn scan(
    engine: &Arc<Engine>,
    settings: &PluginsSettings,
    endpoints: &[Arc<str>],
    wanted: impl Fn(&str, Stamp) -> bool,
) -> Result<Folder, ScanError> {
    scan_with(&Making { engine, settings, endpoints, effort: &Effort::default() }, wanted, None)
}

/// Loads one file with its sidecar, wherever it lies, as it would be loaded in the plugins folder.
///
/// # Errors
/// When it would not run there.
pub fn admitted(
    engine: &Arc<Engine>,
    settings: &PluginsSettings,
    endpoints: &[Arc<str>],
    path: &Path,
) -> Result<Plugin, PluginError> {
    load(&Making { engine, settings, endpoints, effort: &Effort::default() }, &stem(path), path, None)
}

/// One plugin of the folder, or one that the settings list, before it is read.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The file's stem.
    pub(super) name: Arc<str>,
    pub(super) stamp: Stamp,
    /// The file's size.
    pub(super) bytes: u64,
    /// What its events are kept for while it has never been loaded; none where it would not be admitted.
    pub(super) awaited: Option<Vec<String>>,
    path: PathBuf,
    origin: Origin,
}

/// Where a plugin comes from.
#[derive(Clone, Debug)]
enum Origin {
    /// A file of the folder.
    File,
    /// The settings, and there is no such file.
    Listed,
    /// A `[[route]]`: a component of the host's own.
    Route(Arc<Pair>),
}

impl Seen {
    /// The same at every look: settings are read once.
    fn of_route(route: &RouteSettings) -> Self {
        let pair = builtin::pair(route);
        Self {
            name: Arc::clone(&route.ceiling.name),
            stamp: Stamp { wasm: None, sidecar: None },
            bytes: pair.wasm.len() as u64,
            awaited: Some(route.subjects.clone()),
            path: PathBuf::from(builtin::FORWARD_NAME),
            origin: Origin::Route(Arc::new(pair)),
        }
    }

    /// That it was not read, because of `error`.
    pub(super) fn failed(&self, error: PluginError) -> Scanned {
        let (name, path) = (Arc::clone(&self.name), self.path.clone());
        Scanned { name, path, stamp: self.stamp, changing: false, outcome: Err(error) }
    }
}

/// What is in the folder and in the settings, without reading more than sidecars.
pub(super) fn survey(settings: &PluginsSettings) -> Result<Vec<Seen>, ScanError> {
    let mut files = match wasm_files(&settings.dir) {
        Err(ScanError::Missing(_)) if settings.dir_is_optional() => BTreeMap::new(),
        files => files?,
    };
    for listed in &settings.listed {
        let path = settings.dir.join(format!("{}.wasm", listed.name));
        files.entry(path).or_insert(false);
    }
    let seen = |(path, exists): (PathBuf, bool)| Seen {
        name: Arc::from(super::limits::detail(&stem(&path))),
        stamp: Stamp::of(&path),
        bytes: fs::metadata(&path).map_or(0, |metadata| metadata.len()),
        awaited: awaited(settings, &path),
        path,
        origin: if exists { Origin::File } else { Origin::Listed },
    };
    Ok(files.into_iter().map(seen).chain(settings.routes.iter().map(Seen::of_route)).collect())
}

/// The subjects that a plugin's sidecar names, whatever else is wrong with it; all of them where that can't be read. None for
/// what is no plugin here: a name that none can have, or one that is not admitted.
fn awaited(settings: &PluginsSettings, path: &Path) -> Option<Vec<String>> {
    let name = stem(path);
    let is_admitted = settings.admit == Admit::Any || settings.listed.iter().any(|listed| *listed.name == *name);
    if !is_name(&name) || !is_admitted {
        return None;
    }
    let sidecar = path.with_extension("toml");
    let text = sidecar_text(&sidecar).ok().flatten();
    Some(text.map_or_else(|| Manifest::default().subjects, |text| subjects_of(&text)))
}

/// Reads and makes one plugin.
pub(super) fn load_one(making: &Making<'_>, seen: &Seen, kept: Option<&Kept<'_>>) -> Scanned {
    let Seen { name, stamp, path, origin, .. } = seen.clone();
    let outcome = match &origin {
        Origin::File => load(making, &stem(&path), &path, kept),
        Origin::Listed => Err(PluginError::Missing(path.clone())),
        Origin::Route(pair) => load_pair(making, &name, &path, pair, kept),
    };
    let changing = !matches!(origin, Origin::Route(_)) && Stamp::of(&path) != stamp;
    Scanned { name, outcome: outcome.map(Arc::new), path, stamp, changing }
}

/// As [`scan`]; what loads is kept, and what was taken from work is not loaded.
fn scan_with(
    making: &Making<'_>,
    wanted: impl Fn(&str, Stamp) -> bool,
    kept: Option<&Kept<'_>>,
) -> Result<Folder, ScanError> {
    let seen = survey(making.settings)?;
    let names = seen.iter().map(|seen| Arc::clone(&seen.name)).collect();
    let wanted = seen.into_iter().filter(|seen| wanted(&stem(&seen.path), seen.stamp)).collect();
    let mut scanned = side_by_side(wanted, |seen: Seen| load_one(making, &seen, kept));
    scanned.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Folder { names, scanned })
}

/// Does `work` on each of `items`, on as many threads as there are cores, in no order.
fn side_by_side<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(LOADERS_MAX).min(items.len());
    let items = Mutex::new(items.into_iter());
    let next = || lock(&items).next();
    let worker = || std::iter::from_fn(next).map(&work).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        // This thread works too: where the machine has no other, it does all of it.
        let others = (1..threads).map_while(|_| std::thread::Builder::new().spawn_scoped(scope, worker).ok());
        let others: Vec<_> = others.collect();
        let mut done = worker();
        done.extend(others.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic))));
        done
    })
}

fn stem(path: &Path) -> Cow<'_, str> {
    path.file_stem().unwrap_or_default().to_string_lossy()
}

fn wasm_files(dir: &Path) -> Result<BTreeMap<PathBuf, bool>, ScanError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ScanError::Missing(dir.to_owned()),
        _ => ScanError::Unreadable { dir: dir.to_owned(), source },
    };
    let mut files = BTreeMap::new();
    for file in fs::read_dir(dir).map_err(unreadable)? {
        let path = file.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            files.insert(path, true);
        }
    }
    if files.len() > PLUGINS_MAX {
        return Err(ScanError::TooMany { dir: dir.to_owned(), count: files.len() });
    }
    Ok(files)
}

/// What a plugin is made with, besides its files.
pub(super) struct Making<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) settings: &'a PluginsSettings,
    /// The configured ones.
    pub(super) endpoints: &'a [Arc<str>],
    pub(super) effort: &'a Effort,
}

/// What a host remembers of builds, and a mere look into the folder does not need.
pub(super) struct Kept<'a> {
    pub(super) builds: &'a Builds,
    /// The builds that were taken from work, by the plugin's name.
    pub(super) rolled_back: &'a BTreeMap<Arc<str>, String>,
}

fn load(making: &Making<'_>, name: &str, path: &Path, kept: Option<&Kept<'_>>) -> Result<Plugin, PluginError> {
    if !is_name(name) {
        return Err(PluginError::Name);
    }
    making.ceiling(name)?;
    let wasm = read_file(path, FILE_BYTES_MAX)?;
    if wasm.len() > FILE_BYTES_MAX {
        // No more than that was read, which would look like a file that is cut off.
        let bytes = fs::metadata(path).map_or(wasm.len(), |file| usize::try_from(file.len()).unwrap_or(usize::MAX));
        return Err(LoadError::TooLarge { bytes }.into());
    }
    if is_cut(&wasm) {
        return Err(PluginError::NotWhole);
    }
    let sidecar = path.with_extension("toml");
    load_pair(making, name, path, &Pair { wasm, sidecar: sidecar_text(&sidecar)? }, kept)
}

fn load_pair(
    making: &Making<'_>,
    name: &str,
    path: &Path,
    pair: &Pair,
    kept: Option<&Kept<'_>>,
) -> Result<Plugin, PluginError> {
    let build = pair.build();
    if kept.is_some_and(|kept| kept.rolled_back.get(name) == Some(&build)) {
        return Err(PluginError::RolledBack);
    }
    let plugin = making.make(name, path, pair)?;
    if let Some(kept) = kept {
        kept.builds.keep(name, &build, pair);
    }
    Ok(plugin)
}

impl Making<'_> {
    fn ceiling(&self, name: &str) -> Result<Option<&PluginCeiling>, PluginError> {
        if let Some(route) = self.settings.routes.iter().find(|route| *route.ceiling.name == *name) {
            return Ok(Some(&route.ceiling));
        }
        let ceiling = self.settings.listed.iter().find(|listed| *listed.name == *name);
        if ceiling.is_none() && self.settings.admit == Admit::Listed {
            return Err(PluginError::NotListed);
        }
        Ok(ceiling)
    }

    /// Makes the plugin `name` of a pair of files; `path` is where its file lies, for messages.
    pub(super) fn make(&self, name: &str, path: &Path, pair: &Pair) -> Result<Plugin, PluginError> {
        let ceiling = self.ceiling(name)?;
        if let Some(pinned) = ceiling.and_then(|ceiling| ceiling.sha256.as_deref()) {
            let found = digest(&pair.wasm);
            if !found.eq_ignore_ascii_case(pinned) {
                return Err(PluginError::Digest { found, pinned: pinned.to_owned() });
            }
        }
        let sidecar = path.with_extension("toml");
        let ask =
            pair.sidecar.as_deref().map_or_else(|| Ok(Manifest::default()), |text| Manifest::parse(&sidecar, text))?;
        let manifest = effective(ask, ceiling, &self.settings.limits, self.endpoints)?;
        let plugin = Plugin::load_with(self.engine, name, &pair.wasm, manifest, self.effort)?;
        Ok(Plugin { build: pair.build().into(), ..plugin })
    }
}

/// Whether `bytes` begin as WebAssembly and end in the middle of a section, or before the first.
fn is_cut(bytes: &[u8]) -> bool {
    const HEADER_BYTES: usize = 8;
    const MAGIC: &[u8] = b"\0asm";
    if bytes.len() < HEADER_BYTES {
        return bytes.is_empty() || MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]);
    }
    if !bytes.starts_with(MAGIC) {
        return false;
    }
    let mut rest = &bytes[HEADER_BYTES..];
    while let [_id, after_id @ ..] = rest {
        let Some((section_bytes, after_length)) = leb128(after_id) else { return after_id.len() < LEB128_BYTES_MAX };
        match after_length.get(section_bytes..) {
            Some(after) => rest = after,
            None => return true,
        }
    }
    false
}

/// The bytes of a 32-bit LEB128 at most.
const LEB128_BYTES_MAX: usize = 5;

/// The number that `bytes` begin with, and what follows it; none where it does not end.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.iter().take(LEB128_BYTES_MAX).position(|byte| byte & 0x80 == 0)?;
    let (number, rest) = bytes.split_at(end + 1);
    let number = number.iter().rev().fold(0, |number, byte| number << 7 | usize::from(byte & 0x7f));
    Some((number, rest))
}

/// What a plugin's file asks for by its sidecar, before the settings grant any of it.
///
/// # Errors
///
/// When its name can't be a plugin's, or the sidecar is wrong.
pub fn manifest_beside(path: &Path) -> Result<Manifest, PluginError> {
    if !is_name(&stem(path)) {
        return Err(PluginError::Name);
    }
    read_sidecar(&path.with_extension("toml"))
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

fn read_sidecar(path: &Path) -> Result<Manifest, PluginError> {
    let text = sidecar_text(path)?;
    Ok(text.map_or_else(|| Ok(Manifest::default()), |text| Manifest::parse(path, &text))?)
}

fn sidecar_text(path: &Path) -> Result<Option<String>, PluginError> {
    let bytes = match read_file(path, SIDECAR_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(PluginError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        ManifestError::At {
            file: path.to_owned(),
            line: 1 + valid.iter().filter(|byte| **byte == b'\n').count(),
            message: "the file is not UTF-8".to_owned(),
        }
    })?;
    Ok(Some(text))
}

/// The whole file, once; one byte over `bytes_max` is enough for the check behind it to see that it is over.
fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, PluginError> {
    let file = regular_file::open_within(path).map_err(|error| match error {
        WithinError::Outside => PluginError::Outside(path.to_owned()),
        WithinError::Io(source) => PluginError::Unreadable { path: path.to_owned(), source },
    })?;
    regular_file::read(file, bytes_max as u64)
        .map_err(|source| PluginError::Unreadable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
