//! From a file to [`Settings`]: found, read, validated once. Everything wrong in it is reported together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use super::error::{Problem, SettingsError};
use super::observers::{self, Observed};
use super::section::Context;
use super::show::Shown;
use super::{LimitsSettings, PluginsSettings, Settings, SourceSettings, StoreSettings, egress, endpoint, host, source};

/// The largest settings file read, in bytes.
pub const SETTINGS_BYTES_MAX: u64 = 1024 * 1024;
/// The variable that names the settings file.
pub const CONFIG_VARIABLE: &str = "WIREHOOK_CONFIG";
/// The file looked for in the working folder.
pub const FILE_NAME: &str = "wirehook.toml";
/// The file looked for last.
pub const SYSTEM_FILE: &str = "/etc/wirehook/wirehook.toml";

use crate::encoding;
use crate::regular_file;

type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// What settings may refer to besides files: variables and the working folder. An argument, so that tests have theirs.
pub struct Environment {
    lookup: Box<Lookup>,
    directory: PathBuf,
}

impl Environment {
    /// This process's own.
    pub fn of_process() -> Self {
        Self { lookup: Box::new(|name| std::env::var_os(name)), directory: PathBuf::from(".") }
    }

    /// Exactly these variables, with `directory` as the working folder.
    pub fn of(variables: &[(&str, &str)], directory: impl Into<PathBuf>) -> Self {
        let variables: std::collections::HashMap<String, OsString> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        Self { lookup: Box::new(move |name| variables.get(name).cloned()), directory: directory.into() }
    }

    /// A variable's value; `None` when it is not set.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name)
    }
}

impl std::fmt::Debug for Environment {
    /// Without the variables: some are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Settings and what is to be said about them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The file they come from, as it was named or found.
    pub file: PathBuf,
    /// The settings.
    pub settings: Settings,
    /// Every effective value with its origin, secrets redacted.
    pub shown: Vec<Shown>,
    /// What is allowed but hardly meant.
    pub warnings: Vec<Problem>,
}

/// What [`load_sources`] reads.
#[derive(Clone, Debug)]
pub struct LoadedSources {
    /// The file they come from, as it was named or found.
    pub file: PathBuf,
    /// `[[source]]`
    pub sources: Vec<SourceSettings>,
    /// `[limits]`
    pub limits: LimitsSettings,
}

impl Loaded {
    fn with_what_is_missing(mut self) -> Self {
        if self.settings.sources.is_empty() {
            self.warnings.push(no_source(&self.file));
        }
        if self.settings.endpoints.is_empty() {
            self.warnings.push(no_endpoint(&self.file));
        }
        self
    }

    /// The settings, where there is anything to run.
    ///
    /// # Errors
    /// When no source is configured.
    pub fn for_run(self) -> Result<Settings, SettingsError> {
        if self.settings.sources.is_empty() {
            return Err(SettingsError::Refused(vec![no_source(&self.file)]));
        }
        Ok(self.settings)
    }
}

/// The settings file: the one named by `--config`, by `$WIREHOOK_CONFIG`, `./wirehook.toml`, or the system's.
///
/// # Errors
/// [`SettingsError::NotFound`] when none is named and there is none in either place.
pub fn find(config: Option<&Path>, environment: &Environment) -> Result<PathBuf, SettingsError> {
    if let Some(path) = config {
        return Ok(path.to_owned());
    }
    if let Some(path) = environment.variable(CONFIG_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let beside = if environment.directory == Path::new(".") {
        PathBuf::from(FILE_NAME)
    } else {
        environment.directory.join(FILE_NAME)
    };
    let places = vec![beside, PathBuf::from(SYSTEM_FILE)];
    match places.iter().find(|path| path.exists()) {
        Some(path) => Ok(path.clone()),
        None => Err(SettingsError::NotFound(places)),
    }
}

/// Finds, reads and validates the settings.
///
/// # Errors
/// When there is no file, it can't be read, or something in it is wrong.
pub fn load(config: Option<&Path>, environment: &Environment) -> Result<Loaded, SettingsError> {
    load_observed(config, None, environment)
}

/// As [`load`], with one source more: the one of FraiseQL's file `observers`, where there is one.
///
/// # Errors
/// As [`load`], and when `observers` can't be read or its `[observers]` is wrong.
pub fn load_observed(
    config: Option<&Path>,
    observers: Option<&Path>,
    environment: &Environment,
) -> Result<Loaded, SettingsError> {
    let (path, text) = read(config, environment)?;
    let observed = observers.map(|file| observers::read(file, environment)).transpose();
    let (mut loaded, observed) = both(validate(&path, &text, environment), observed)?;
    if let Some(Observed { source, shown, warnings }) = observed {
        refuse_taken(&path, &loaded.settings.sources)?;
        loaded.settings.sources.push(source);
        loaded.shown.extend(shown);
        loaded.warnings.extend(warnings);
    }
    Ok(loaded.with_what_is_missing())
}

/// Only where the store is: for commands that look at it, which need no secrets and no endpoint that is right.
///
/// # Errors
/// When there is no file, it can't be read, it is not TOML, or `[store]` is wrong.
pub fn load_store(config: Option<&Path>, environment: &Environment) -> Result<StoreSettings, SettingsError> {
    let (path, text) = read(config, environment)?;
    let context = Context::new(&path, &text, environment);
    let document = document(&context, &text)?;
    let store = host::store(&context.root(document.get_ref()).table("store"));
    match (store, context.take().0) {
        (Ok(store), problems) if problems.is_empty() => Ok(store),
        (_, problems) => Err(SettingsError::Refused(problems)),
    }
}

/// Only the endpoints' names, in order: for commands that must know which there are and need no secret.
///
/// # Errors
/// When there is no file, it can't be read, it is not TOML, or a name is wrong.
pub fn load_endpoint_names(config: Option<&Path>, environment: &Environment) -> Result<Vec<Arc<str>>, SettingsError> {
    let (path, text) = read(config, environment)?;
    let context = Context::new(&path, &text, environment);
    let document = document(&context, &text)?;
    let mut names = host::Names::default();
    let sections = context.root(document.get_ref()).tables("endpoint");
    let read = sections.and_then(|sections| sections.iter().map(|section| names.read(section)).collect());
    match (read, context.take().0) {
        (Ok(names), problems) if problems.is_empty() => Ok(names),
        (_, problems) => Err(SettingsError::Refused(problems)),
    }
}

/// Only what is said of plugins, and where the store is: for commands that look at files, which need no secrets.
///
/// # Errors
/// When there is no file, it can't be read, it is not TOML, or `[plugins]`, a `[[plugin]]` or `[store]` is wrong.
pub fn load_plugins(
    config: Option<&Path>,
    environment: &Environment,
) -> Result<(PluginsSettings, StoreSettings), SettingsError> {
    let (path, text) = read(config, environment)?;
    let context = Context::new(&path, &text, environment);
    let document = document(&context, &text)?;
    let root = context.root(document.get_ref());
    let (plugins, store) = (host::plugins(&root, None), host::store(&root.table("store")));
    match (plugins, store, context.take().0) {
        (Ok(plugins), Ok(store), problems) if problems.is_empty() => Ok((plugins, store)),
        (_, _, problems) => Err(SettingsError::Refused(problems)),
    }
}

/// Only the sources: for commands that publish to them, which need no endpoint's secret.
///
/// # Errors
/// As [`load_observed`], where a `[[source]]`, `[limits]` or the observers are wrong.
pub fn load_sources(
    config: Option<&Path>,
    observers: Option<&Path>,
    environment: &Environment,
) -> Result<LoadedSources, SettingsError> {
    let (path, text) = read(config, environment)?;
    let observed = observers.map(|file| observers::read(file, environment)).transpose();
    let (mut loaded, observed) = both(sources(path, &text, environment), observed)?;
    if let Some(observed) = observed {
        refuse_taken(&loaded.file, &loaded.sources)?;
        loaded.sources.push(observed.source);
    }
    Ok(loaded)
}

/// What is wrong with either file, together.
fn both<A, B>(one: Result<A, SettingsError>, other: Result<B, SettingsError>) -> Result<(A, B), SettingsError> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(SettingsError::Refused(mut problems)), Err(SettingsError::Refused(others))) => {
            problems.extend(others);
            Err(SettingsError::Refused(problems))
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

fn refuse_taken(file: &Path, sources: &[SourceSettings]) -> Result<(), SettingsError> {
    if sources.iter().all(|source| *source.name != *observers::SOURCE) {
        return Ok(());
    }
    Err(SettingsError::Refused(vec![Problem {
        message: format!("--observers adds a source named `{}`, and there is one in the settings", observers::SOURCE),
        at: file.display().to_string(),
        help: Some("rename that [[source]], or leave --observers out".to_owned()),
    }]))
}

fn sources(path: PathBuf, text: &str, environment: &Environment) -> Result<LoadedSources, SettingsError> {
    let context = Context::new(&path, text, environment);
    let document = document(&context, text)?;
    let root = context.root(document.get_ref());
    let limits = host::limits(&root.table("limits"), host::workers_written(&root));
    let sources = source::all(&root);
    match (limits, sources, context.take().0) {
        (Ok((limits, _)), Ok(sources), problems) if problems.is_empty() => {
            let sources = sources.into_iter().map(|source| source.settings).collect();
            Ok(LoadedSources { file: path, sources, limits })
        }
        (_, _, problems) => Err(SettingsError::Refused(problems)),
    }
}

fn read(config: Option<&Path>, environment: &Environment) -> Result<(PathBuf, String), SettingsError> {
    let path = find(config, environment)?;
    let named_by = match config {
        Some(_) => " named by --config",
        None if environment.variable(CONFIG_VARIABLE).is_some_and(|path| !path.is_empty()) => {
            " named by $WIREHOOK_CONFIG"
        }
        None => "",
    };
    match read_settings(&path) {
        Ok(text) => Ok((path, text)),
        Err(source) => Err(SettingsError::Unreadable { path, named_by, source }),
    }
}

/// Validates the text of the settings file `path`; relative paths in it start at its folder.
///
/// # Errors
/// [`SettingsError::Refused`] with everything that is wrong.
pub fn parse(path: &Path, text: &str, environment: &Environment) -> Result<Loaded, SettingsError> {
    Ok(validate(path, text, environment)?.with_what_is_missing())
}

/// As [`parse`], without a word about what is not there.
fn validate(path: &Path, text: &str, environment: &Environment) -> Result<Loaded, SettingsError> {
    let context = Context::new(path, text, environment);
    let document = document(&context, text)?;
    let root = context.root(document.get_ref());
    let store = host::store(&root.table("store"));
    let retention = host::retention(&root.table("retention"));
    let limits = host::limits(&root.table("limits"), host::workers_written(&root));
    let egress = egress::read(&root.table("egress"));
    let admin = host::admin(&root.table("admin"));
    let endpoints = endpoint::all(&root);
    let sources = source::all(&root);
    let plugins = host::plugins(&root, endpoints.as_deref().ok());
    if let (Ok(admin), Ok(sources)) = (&admin, &sources) {
        source::refuse_shared_addresses(&context, admin, sources);
    }
    root.finish();
    let parts = (|| {
        let (limits, memory_bytes_max) = limits?;
        Ok::<_, super::section::Reported>(Settings {
            store: store?,
            retention: retention?,
            plugins: plugins?,
            admin: admin?.0,
            limits,
            memory_bytes_max,
            egress: egress?,
            sources: sources?.into_iter().map(|source| source.settings).collect(),
            endpoints: endpoints?.into_iter().map(|endpoint| endpoint.settings).collect(),
        })
    })();
    let file = path.to_owned();
    match (parts, context.take()) {
        (Ok(settings), (problems, warnings, shown)) if problems.is_empty() => {
            Ok(Loaded { file, settings, shown, warnings })
        }
        (_, (problems, _, _)) => Err(SettingsError::Refused(problems)),
    }
}

pub(super) fn document<'a>(context: &Context<'_>, text: &'a str) -> Result<Spanned<DeTable<'a>>, SettingsError> {
    DeTable::parse(text).map_err(|error| {
        // Only the message: the error's own rendering quotes the line, and with it perhaps a secret.
        let span = error.span().unwrap_or_default();
        let message = match (error.message(), text.get(span.clone())) {
            ("duplicate key", Some(key)) => format!("the key `{key}` is there twice"),
            (message, _) => message.to_owned(),
        };
        context.problem(span.start, message, None);
        SettingsError::Refused(context.take().0)
    })
}

fn no_source(file: &Path) -> Problem {
    Problem {
        message: "no [[source]] is configured: there is nothing to receive events from".to_owned(),
        at: file.display().to_string(),
        help: Some("add one, for example: [[source]] name = \"bus\", kind = \"stdin\"".to_owned()),
    }
}

fn no_endpoint(file: &Path) -> Problem {
    Problem {
        message: "no [[endpoint]] is configured: every webhook will be refused as endpoint_unknown".to_owned(),
        at: file.display().to_string(),
        help: Some("add one with a name, a url and a secret".to_owned()),
    }
}

/// The text of the settings. What this process was started with open is taken as it is: a shell's `<(…)`, standard input.
fn read_settings(path: &Path) -> std::io::Result<String> {
    if !path.starts_with("/dev/fd") && !path.starts_with("/proc/self/fd") && path != Path::new("/dev/stdin") {
        return read_text(path, SETTINGS_BYTES_MAX);
    }
    let bytes = regular_file::read(std::fs::File::open(path)?, SETTINGS_BYTES_MAX)?;
    text(&bytes, SETTINGS_BYTES_MAX)
}

/// The text of a file of at most `bytes_max`.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    text(&regular_file::read(regular_file::open(path)?, bytes_max)?, bytes_max)
}

/// The text that bytes are, without a byte order mark.
fn text(bytes: &[u8], bytes_max: u64) -> std::io::Result<String> {
    if bytes.len() as u64 > bytes_max {
        return Err(std::io::Error::other(format!("it is larger than {bytes_max} bytes")));
    }
    match encoding::text(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(std::io::Error::other(format!("it {error}"))),
    }
}

/// The bytes of a file of at most `bytes_max`.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let bytes = regular_file::read(regular_file::open(path)?, bytes_max)?;
    if bytes.len() as u64 > bytes_max {
        return Err(std::io::Error::other(format!("it is larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}
