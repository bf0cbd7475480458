//! What commands need, made of the real parts.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::app::{self, AppError};
use crate::cli::parts::{
    DemoOptions, DemoReport, DevNews, DevOptions, Parts, PluginView, PublishReport, ReceiveOptions, Received, Routed,
    RunOptions, RunReport,
};
use crate::cli::{Exit, Failure, Failures};
use crate::clock::{Clock, SystemClock};
use crate::demo;
use crate::dev;
use crate::endpoint::{Endpoints, TestReport};
use crate::open_files;
use crate::ops::access::{OfflineError, OpenOffline};
use crate::plugin::compiler::Compiler;
use crate::plugin::limits::{Limit, hold};
use crate::plugin::{Engine, EngineError, Kind, Manifest, Plugin, admitted, inspect, manifest_beside, scan};
use crate::publish::{self, PublishError};
use crate::receiver::{Receiver, ReceiverSettings, Script};
use crate::recorded::trial::{self, Trial};
use crate::settings::host::COMPILE_CPU;
use crate::settings::{Settings, SourceSettings, StoreSettings};
use crate::store::Store;
use crate::store::sqlite::{SqliteOptions, SqliteStore};

/// Webhooks received and not printed yet at most; then they are counted and not printed.
const UNPRINTED_MAX: usize = 1024;

/// The real parts.
pub struct Program {
    clock: Arc<dyn Clock>,
    /// Whether commands keep machine code from one to the next.
    keeps_code: AtomicBool,
    opener: Opener,
}

struct Opener {
    clock: Arc<dyn Clock>,
}

impl Program {
    /// On the machine's clock.
    pub fn new() -> Self {
        let clock = SystemClock::shared();
        Self { opener: Opener { clock: Arc::clone(&clock) }, clock, keeps_code: AtomicBool::new(true) }
    }
}

impl Default for Program {
    fn default() -> Self {
        Self::new()
    }
}

impl Parts for Program {
    fn keep_code(&self, keeps: bool) {
        self.keeps_code.store(keeps, Ordering::Relaxed);
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    fn opener(&self) -> &dyn OpenOffline {
        &self.opener
    }

    fn run(&self, settings: Settings, options: RunOptions) -> BoxFuture<'_, Result<RunReport, Failures>> {
        Box::pin(async move {
            if let Err(error) = open_files::allow_most() {
                tracing::warn!(%error, "the limit on open files stays as it was");
            }
            let stop = Signals::new()?.first_then_exit();
            let stop = async { stop.await.unwrap_or_default() };
            Ok(app::run(settings, options, self.clock(), stop).await?)
        })
    }

    fn receive<'a>(
        &'a self,
        options: ReceiveOptions,
        print: &'a mut (dyn FnMut(&Received) + Send),
    ) -> BoxFuture<'a, Result<(), Failures>> {
        Box::pin(async move {
            let mut signals = Signals::new()?;
            let (received, mut unprinted) = mpsc::channel(UNPRINTED_MAX);
            let settings = receiver_settings(&options)?;
            let receiver = Receiver::start(settings, self.clock(), move |one| {
                // Full only when nothing reads standard output; the sender is answered all the same.
                let _full = received.try_send(one);
            });
            let receiver = receiver.await.map_err(|error| Failure::new(error.to_string()))?;
            tracing::info!(address = %receiver.address(), "receiving");
            let mut number = 0;
            while options.count.is_none_or(|count| number < count) {
                let next = tokio::select! {
                    () = signals.next() => break,
                    next = unprinted.recv() => next,
                };
                let Some(one) = next else { break };
                number += 1;
                print(&Received::view(number, &one));
            }
            receiver.stop().await;
            Ok(())
        })
    }

    fn dev<'a>(
        &'a self,
        options: DevOptions,
        print: &'a mut (dyn FnMut(&DevNews) + Send),
    ) -> BoxFuture<'a, Result<RunReport, Failures>> {
        Box::pin(async move {
            let stop = Signals::new()?.first_then_exit();
            let stop = async { stop.await.unwrap_or_default() };
            let check = |settings: &Settings| {
                let refused: Vec<_> = self.scan(settings)?.iter().filter_map(PluginView::refusal).collect();
                if refused.is_empty() { Ok(()) } else { Err(Failures { failures: refused, exit: Exit::Failure }) }
            };
            dev::run(options, self.clock(), check, stop, print).await
        })
    }

    fn demo(&self, options: DemoOptions) -> BoxFuture<'_, Result<DemoReport, Failures>> {
        Box::pin(demo::run(options, self.clock()))
    }

    fn publish<'a>(
        &'a self,
        source: &'a SourceSettings,
        events: Vec<Routed>,
        progress: &'a mut (dyn FnMut(&PublishReport) + Send),
    ) -> BoxFuture<'a, Result<PublishReport, Failures>> {
        Box::pin(async move { Ok(publish::publish_all(source, &events, &self.clock, progress).await?) })
    }

    fn test_endpoint<'a>(
        &'a self,
        settings: &'a Settings,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<TestReport>, Failures>> {
        Box::pin(async move {
            let meant: Vec<_> = settings.endpoints.iter().filter(|endpoint| *endpoint.name == *name).cloned().collect();
            let endpoints = Endpoints::new(&meant, &settings.egress).map_err(AppError::Endpoint)?;
            let Some(endpoint) = endpoints.get(name) else { return Ok(None) };
            Ok(Some(endpoint.test(&*self.clock).await))
        })
    }

    fn inspect(&self, file: &Path, settings: Option<&Settings>) -> PluginView {
        let view = PluginView {
            name: file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            file: file.to_owned(),
            ..PluginView::default()
        };
        match self.inspected(file) {
            Ok(inspection) => {
                let view = PluginView {
                    format: inspection.kind.map(kind),
                    digest: Some(inspection.digest),
                    bytes: Some(inspection.bytes as u64),
                    imports: inspection.imports,
                    exports: inspection.exports,
                    ..view
                };
                if let Some(settings) = settings {
                    return match self.admitted(file, settings) {
                        Ok(plugin) => loaded(&plugin, view),
                        Err(error) => PluginView { error: Some(error), ..view },
                    };
                }
                match (inspection.load_error, manifest_beside(file)) {
                    (Some(error), _) => PluginView { error: Some(error), ..view },
                    (None, Err(error)) => PluginView { error: Some(error.to_string()), ..view },
                    (None, Ok(manifest)) => PluginView { ok: true, ..described(&manifest, view) },
                }
            }
            Err(error) => PluginView { error: Some(error), ..view },
        }
    }

    fn trial(&self, file: &Path) -> Result<Trial, Failure> {
        let view = PluginView {
            name: file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            file: file.to_owned(),
            ..PluginView::default()
        };
        self.tried(file).map_err(|error| {
            let refused = PluginView { error: Some(error.clone()), ..view }.refusal();
            refused.unwrap_or_else(|| Failure::new(error))
        })
    }

    fn scan(&self, settings: &Settings) -> Result<Vec<PluginView>, Failure> {
        let (engine, _cache) =
            self.engine(settings.plugins.compile_cpu, folder_of(&settings.store.path)).map_err(Failure::new)?;
        let scanned = scan(&engine, &settings.plugins, &endpoint_names(settings), |_, _| true);
        let scanned = scanned.map_err(|error| Failure::new(error.to_string()))?;
        Ok(scanned
            .scanned
            .into_iter()
            .map(|one| {
                let view = PluginView { name: one.name.to_string(), file: one.path, ..PluginView::default() };
                match one.outcome {
                    Ok(plugin) => loaded(&plugin, view),
                    Err(error) => PluginView { error: Some(error.to_string()), ..view },
                }
            })
            .collect())
    }
}

impl Program {
    /// An engine to look at plugins with. It keeps machine code in the user's own cache; where that can't be used, in a
    /// folder that goes when the command ends: the system's temporary one or, where that can't be written to, one in `beside`.
    fn engine(&self, compile_cpu: Duration, beside: &Path) -> Result<(Arc<Engine>, Option<tempfile::TempDir>), String> {
        let kept = cache_folder().filter(|_| self.keeps_code.load(Ordering::Relaxed));
        let made = kept.map(|dir| Engine::new(1, &dir, Compiler::child(compile_cpu), self.clock()));
        match made {
            Some(Ok(engine)) => return Ok((engine, None)),
            Some(Err(EngineError::Cache(error))) => {
                tracing::debug!(%error, "compiled plugins are not kept for the next command");
            }
            Some(Err(error)) => return Err(error.to_string()),
            None => {}
        }
        let cache = private_folder(beside)?;
        let compiler = Compiler::child(compile_cpu);
        let engine = Engine::new(1, cache.path(), compiler, self.clock()).map_err(|error| error.to_string())?;
        Ok((engine, Some(cache)))
    }

    fn tried(&self, file: &Path) -> Result<Trial, String> {
        let manifest = manifest_beside(file).map_err(|error| error.to_string())?;
        let manifest = Manifest { endpoints: trial::endpoints(manifest.endpoints), ..manifest };
        let wasm = std::fs::read(file).map_err(|error| format!("{} can't be read: {error}", file.display()))?;
        let (engine, cache) = self.engine(COMPILE_CPU, folder_of(file))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let plugin = Plugin::load(&engine, &name, &wasm, manifest).map_err(|error| error.to_string())?;
        Trial::new(plugin, cache).map_err(|error| error.to_string())
    }

    fn admitted(&self, file: &Path, settings: &Settings) -> Result<Plugin, String> {
        let (engine, _cache) = self.engine(settings.plugins.compile_cpu, folder_of(file))?;
        admitted(&engine, &settings.plugins, &endpoint_names(settings), file).map_err(|error| error.to_string())
    }

    fn inspected(&self, file: &Path) -> Result<crate::plugin::Inspection, String> {
        let wasm = std::fs::read(file).map_err(|error| format!("{} can't be read: {error}", file.display()))?;
        let (engine, _cache) = self.engine(COMPILE_CPU, folder_of(file))?;
        Ok(inspect(&engine, &wasm))
    }
}

/// Where commands keep machine code: a folder of the user's own, as the XDG base directories have it. Whoever else could write
/// there is found out when it is opened.
fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("wirehook").join("compiled"))
}

fn endpoint_names(settings: &Settings) -> Vec<Arc<str>> {
    settings.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.name)).collect()
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Component => "component",
        Kind::CoreModule => "core module",
    }
    .to_owned()
}

fn loaded(plugin: &Plugin, view: PluginView) -> PluginView {
    let digest = Some(plugin.digest.to_string());
    PluginView { ok: true, digest, ..described(&plugin.manifest, view) }
}

fn described(manifest: &Manifest, view: PluginView) -> PluginView {
    let Manifest { subjects, endpoints, grants, asked, granted, .. } = manifest;
    let held = hold(asked, granted);
    let written = |limit: Limit, value: u64| (limit.row().name.to_owned(), limit.row().plain(value));
    PluginView {
        subjects: subjects.clone(),
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
        grants: grants.iter().map(ToString::to_string).collect(),
        limits: held.iter().map(|held| written(held.limit, held.in_force)).collect(),
        limits_asked: held.iter().filter_map(|held| Some(written(held.limit, held.asked?))).collect(),
        limits_lessened: held
            .iter()
            .filter(|held| held.is_lessened())
            .map(|held| held.limit.row().name.to_owned())
            .collect(),
        ..view
    }
}

fn receiver_settings(options: &ReceiveOptions) -> Result<ReceiverSettings, Failures> {
    let statuses = options.statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let script = Script::from_str(&statuses).map_err(|error| Failure::new(error.to_string()).into_usage())?;
    let secrets = options.secret.iter().cloned().collect();
    Ok(ReceiverSettings { listen: options.listen, scheme: options.scheme.clone(), secrets, script })
}

impl OpenOffline for Opener {
    fn open<'a>(&'a self, settings: &'a StoreSettings) -> BoxFuture<'a, Result<Arc<dyn Store>, OfflineError>> {
        Box::pin(async move {
            let options = SqliteOptions {
                synchronous: settings.synchronous,
                migrate: false,
                create: false,
                takes_over: false,
                ..SqliteOptions::new(&settings.path)
            };
            let store = SqliteStore::open(options, self.clock.now());
            Ok(Arc::new(store.map_err(|error| OfflineError { message: error.to_string(), help: None })?)
                as Arc<dyn Store>)
        })
    }
}

impl From<PublishError> for Failures {
    fn from(error: PublishError) -> Self {
        let failure = Failure { help: error.help(), ..Failure::new(error.to_string()) };
        match error {
            PublishError::Stdin(_) => failure.into_usage(),
            _ => failure.into(),
        }
    }
}

impl From<AppError> for Failures {
    fn from(error: AppError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            AppError::Endpoint(_) => failure.into_usage(),
            _ => failure.into(),
        }
    }
}

fn private_folder(beside: &Path) -> Result<tempfile::TempDir, String> {
    let (temporary, mut builder) = (std::env::temp_dir(), tempfile::Builder::new());
    builder.prefix(".wirehook-").permissions(Permissions::from_mode(0o700));
    let beside = if beside.as_os_str().is_empty() { Path::new(".") } else { beside };
    builder.tempdir_in(&temporary).or_else(|first| {
        builder.tempdir_in(beside).map_err(|second| {
            let (temporary, beside) = (temporary.display(), beside.display());
            format!("a temporary folder can be made neither in {temporary} ({first}) nor in {beside} ({second}); set TMPDIR to a folder that can be written to")
        })
    })
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("."))
}

/// The signals that ask the process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let failed = |error| Failure::new(format!("signals can't be received: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Tells of the first signal; the next one ends the process at once, wherever it is. So does the first one while
    /// the host drains by itself and nobody waits for it.
    fn first_then_exit(mut self) -> oneshot::Receiver<()> {
        let (first, told) = oneshot::channel();
        tokio::spawn(async move {
            self.next().await;
            if first.send(()).is_ok() {
                self.next().await;
            }
            tracing::warn!("stopped by a second signal; what was in flight is done again after the next start");
            process::exit(1);
        });
        told
    }
}
