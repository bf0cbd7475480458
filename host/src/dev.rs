//! `wirehook dev`: the real host without a settings file, on a folder that goes when it ends.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use toml::{Table, Value};
use url::{Host, Url};

use crate::app::{self, News, RunOptions, RunReport};
use crate::cli::{Failure, Failures};
use crate::clock::{Clock, Timestamp};
use crate::dead_letter::Reason;
use crate::delivery::Transition;
use crate::plugin::manifest_beside;
use crate::receiver::{Received, Receiver, ReceiverSettings, Script};
use crate::secret::Secret;
use crate::settings::{Environment, Settings, parse};
use crate::store::{AttemptRecord, ClaimedDelivery};

mod source;

pub use source::SourceArguments;

/// The source's name.
const SOURCE: &str = "dev";
/// The endpoint of a plugin whose sidecar names none.
const ENDPOINT: &str = "dev";
/// The variable that the generated settings read the signing secret from.
const SECRET_VARIABLE: &str = "WIREHOOK_DEV_SECRET";
/// What is told and not yet printed at most; then the host waits.
const NEWS_MAX: usize = 256;
/// What the built-in receiver took and is not yet printed at most; then it is counted and not printed.
const UNPRINTED_MAX: usize = 1024;
/// Random bytes of a signing secret.
const SECRET_BYTES: usize = 24;
/// Random bytes of a consumer's name.
const NAME_BYTES: usize = 8;

/// Networks that webhooks may go to besides the public ones: this machine's and private ones, but nothing link-local.
const EGRESS: [&str; 6] = ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/// How to try plugins.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// Their files.
    pub plugins: Vec<PathBuf>,
    /// The bus.
    pub source: SourceArguments,
    /// Where every webhook goes; a receiver of its own where nothing says.
    pub forward_to: Option<Url>,
    /// What webhooks are signed with; a new secret where nothing says.
    pub secret: Option<Secret>,
}

/// What is printed, in order.
#[derive(Debug)]
pub enum DevNews {
    /// It is about to begin.
    Begun(Begun),
    /// Every source is connected.
    Ready,
    /// The built-in receiver took a webhook.
    Received(Box<Received>),
    /// An attempt at `--forward-to` ended.
    Attempted(Forwarded),
}

/// What a user needs to know before the first event.
#[derive(Debug)]
pub struct Begun {
    /// The source's kind.
    pub kind: &'static str,
    /// The bus, without a password.
    pub bus: String,
    /// The plugins' names.
    pub plugins: Vec<String>,
    /// Where webhooks go.
    pub forward_to: Url,
    /// What they are signed with, where it was made for this run.
    pub secret: Option<Secret>,
    /// Settings that other commands find the store by while this one runs.
    pub config: PathBuf,
}

/// An attempt that ended.
#[derive(Debug)]
pub struct Forwarded {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// The endpoint, as the plugin named it.
    pub endpoint: Arc<str>,
    /// `webhook-id`.
    pub webhook_id: String,
    /// From 1.
    pub attempt: u32,
    /// The answer, where there was one.
    pub status: Option<u16>,
    /// What went wrong, where there was none.
    pub error: Option<String>,
    /// How long it took.
    pub duration: Duration,
    /// What follows.
    pub outcome: ForwardedOutcome,
}

/// What follows an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardedOutcome {
    /// Nothing: it is delivered.
    Delivered,
    /// Another attempt.
    Retried {
        /// When.
        due_at: Timestamp,
        /// How long after this one ended.
        after: Duration,
    },
    /// Nothing: it is a dead letter.
    Dead(Reason),
}

/// Runs until `signal`, and tells `print` what goes on. What it made is gone when this returns.
///
/// # Errors
/// When a plugin would not run, by `check`; when an argument is wrong; when the host can't start.
pub async fn run(
    options: DevOptions,
    clock: Arc<dyn Clock>,
    check: impl FnOnce(&Settings) -> Result<(), Failures>,
    signal: impl Future<Output = ()> + Send,
    print: &mut (dyn FnMut(&DevNews) + Send),
) -> Result<RunReport, Failures> {
    let generated = options.secret.is_none();
    let secret = options.secret.clone().map_or_else(new_secret, Ok)?;
    let (taken, mut received) = mpsc::channel(UNPRINTED_MAX);
    let mut receiver = None;
    let forward_to = match &options.forward_to {
        Some(url) => url.clone(),
        None => {
            let started = receive(&secret, &clock, taken).await?;
            let url = format!("http://{}/hooks", started.address());
            receiver = Some(started);
            Url::parse(&url).map_err(|error| Failure::new(error.to_string()))?
        }
    };
    let bench = Bench::prepare(&options, &forward_to, &secret)?;
    check(&bench.settings)?;
    print(&DevNews::Begun(Begun {
        kind: bench.settings.sources[0].kind.name(),
        bus: crate::publish::bus(&bench.settings.sources[0]),
        plugins: bench.plugins.clone(),
        forward_to,
        secret: generated.then_some(secret),
        config: bench.config(),
    }));
    let (watcher, mut news) = mpsc::channel(NEWS_MAX);
    // Standard input has an end, after which there is nothing to wait for but what was begun.
    let how = RunOptions { exit_when_idle: options.source.source == "-" };
    let running = app::run_watched(bench.settings.clone(), how, clock, Some(watcher), signal);
    let mut running = Box::pin(running);
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended,
            Some(told) = news.recv() => tell(told, receiver.is_none(), print),
            Some(one) = received.recv() => print(&DevNews::Received(Box::new(one))),
        }
    };
    while let Ok(told) = news.try_recv() {
        tell(told, receiver.is_none(), print);
    }
    while let Ok(one) = received.try_recv() {
        print(&DevNews::Received(Box::new(one)));
    }
    if let Some(receiver) = receiver {
        receiver.stop().await;
    }
    bench.remove()?;
    Ok(ended?)
}

fn tell(told: News, forwards: bool, print: &mut (dyn FnMut(&DevNews) + Send)) {
    match told {
        News::Ready => print(&DevNews::Ready),
        // What the built-in receiver took is printed by what it took.
        News::Attempted(attempted) if forwards => {
            print(&DevNews::Attempted(forwarded(&attempted.delivery, &attempted.record)));
        }
        News::Attempted(_) => {}
    }
}

fn forwarded(delivery: &ClaimedDelivery, record: &AttemptRecord) -> Forwarded {
    Forwarded {
        plugin: Arc::clone(&delivery.plugin),
        endpoint: Arc::clone(&delivery.endpoint),
        webhook_id: delivery.id.as_str().to_owned(),
        attempt: record.number,
        status: record.status,
        error: record.error.clone(),
        duration: record.duration,
        outcome: match record.transition {
            Transition::Delivered => ForwardedOutcome::Delivered,
            Transition::Retry { due_at } => {
                let after = due_at.since(record.started_at.plus(record.duration));
                ForwardedOutcome::Retried { due_at, after }
            }
            Transition::Dead { reason } => ForwardedOutcome::Dead(reason),
        },
    }
}

async fn receive(secret: &Secret, clock: &Arc<dyn Clock>, taken: mpsc::Sender<Received>) -> Result<Receiver, Failure> {
    let script: Script = "200".parse().map_err(|error| Failure::new(format!("{error}")))?;
    let settings = ReceiverSettings { listen: ([127, 0, 0, 1], 0).into(), secrets: vec![secret.clone()], script };
    let receiver = Receiver::start(settings, Arc::clone(clock), move |one| {
        // Full only when nothing reads standard output; the host is answered all the same.
        let _full = taken.try_send(one);
    });
    receiver.await.map_err(|error| Failure::new(error.to_string()))
}

/// The folder with everything in it.
struct Bench {
    folder: TempDir,
    plugins: Vec<String>,
    settings: Settings,
}

impl Bench {
    fn prepare(options: &DevOptions, forward_to: &Url, secret: &Secret) -> Result<Self, Failures> {
        let private = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("wirehook-dev-").permissions(private).tempdir();
        let folder = folder.map_err(|error| Failure::new(format!("a temporary folder can't be made: {error}")))?;
        let plugins = put_plugins(&folder.path().join("plugins"), &options.plugins)?;
        let own = format!("wirehook-dev-{}", hex::encode(random::<NAME_BYTES>()?));
        let source = options.source.settings(&own);
        let source = source.map_err(|error| Failure::new(error.to_string()).help(error.help()).into_usage())?;
        let text = settings_text(&source.table, &plugins, forward_to)?;
        let shown = folder.path().join("wirehook.toml");
        let written = fs::write(&shown, &text);
        written.map_err(|error| Failure::new(format!("{} can't be written: {error}", shown.display())))?;
        let mut variables = vec![(SECRET_VARIABLE, secret_text(secret)?)];
        for (name, secret) in [(source::PASSWORD_VARIABLE, source.password), (source::TOKEN_VARIABLE, source.token)] {
            if let Some(secret) = secret {
                variables.push((name, secret_text(&secret)?));
            }
        }
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let loaded = parse(&shown, &text, &Environment::of(&variables, folder.path())).map_err(|error| {
            let mut failures = Failures::from(error);
            // The file is ours: a place in it says nothing.
            failures.failures.iter_mut().for_each(|failure| failure.at = None);
            failures
        })?;
        let mut settings = loaded.settings;
        settings.sources.iter_mut().for_each(|source| source::make_ephemeral(&mut source.kind));
        Ok(Self { folder, plugins: plugins.into_iter().map(|plugin| plugin.name).collect(), settings })
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("wirehook.toml")
    }

    fn remove(self) -> Result<(), Failure> {
        let path = self.folder.path().to_owned();
        self.folder
            .close()
            .map_err(|error| Failure::new(format!("the temporary folder {} can't be removed: {error}", path.display())))
    }
}

/// A plugin that was put into the folder.
struct Put {
    name: String,
    /// The endpoints that its sidecar names.
    endpoints: Vec<Arc<str>>,
}

/// Copies plugins and their sidecars: what is built over them meanwhile changes nothing here.
fn put_plugins(folder: &Path, files: &[PathBuf]) -> Result<Vec<Put>, Failures> {
    let copied = |file: &Path, to: PathBuf| {
        let copied = fs::copy(file, &to).map(drop);
        copied.map_err(|error| Failure::new(format!("{} can't be copied to {}: {error}", file.display(), to.display())))
    };
    fs::create_dir(folder).map_err(|error| Failure::new(format!("{} can't be made: {error}", folder.display())))?;
    let mut plugins: Vec<Put> = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !file.is_file() {
            let failure = Failure::new(format!("there is no plugin at {}", file.display()));
            return Err(failure.help("build it, and name its .wasm file with --plugin").into_usage());
        }
        if plugins.iter().any(|put| put.name == name) {
            let failure = Failure::new(format!("two plugins are called `{name}`"));
            return Err(failure.help("a plugin is called as its file: copy one of them to another name").into_usage());
        }
        let manifest = manifest_beside(file).map_err(|error| Failure::new(error.to_string()).into_usage())?;
        copied(file, folder.join(format!("{name}.wasm")))?;
        let sidecar = file.with_extension("toml");
        if sidecar.is_file() {
            copied(&sidecar, folder.join(format!("{name}.toml")))?;
        }
        plugins.push(Put { name, endpoints: manifest.endpoints });
    }
    Ok(plugins)
}

/// The settings of the run. Secrets are in variables that only this process has, so that nothing secret is written.
fn settings_text(source: &Table, plugins: &[Put], forward_to: &Url) -> Result<String, Failures> {
    let table = |entries: &[(&str, Value)]| -> Value {
        Value::Table(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    };
    let names: BTreeSet<&str> = plugins
        .iter()
        .flat_map(|plugin| plugin.endpoints.iter().map(AsRef::as_ref))
        .chain(plugins.iter().any(|plugin| plugin.endpoints.is_empty()).then_some(ENDPOINT))
        .collect();
    let endpoint = |name: &str| {
        let secret = table(&[("env", SECRET_VARIABLE.into())]);
        table(&[("name", name.into()), ("url", forward_to.as_str().into()), ("secret", secret)])
    };
    // Where endpoints are several, a plugin that names none has to be told which is its own.
    let listed = plugins.iter().filter(|plugin| plugin.endpoints.is_empty()).map(|plugin| {
        let own = Value::Array(vec![ENDPOINT.into()]);
        table(&[("name", plugin.name.as_str().into()), ("endpoints", own)])
    });
    // Addresses that the user wrote are meant.
    let named = match forward_to.host() {
        Some(Host::Ipv4(ip)) => Some(ip.to_string()),
        Some(Host::Ipv6(ip)) => Some(ip.to_string()),
        _ => None,
    };
    let allow = EGRESS.iter().map(ToString::to_string).chain(named).map(Value::from).collect();
    let settings = table(&[
        ("store", table(&[("path", "wirehook.db".into())])),
        ("plugins", table(&[("dir", "plugins".into())])),
        ("admin", table(&[("listen", "127.0.0.1:0".into())])),
        ("limits", table(&[("drain_deadline", "5s".into())])),
        ("egress", table(&[("allow", Value::Array(allow))])),
        ("source", Value::Array(vec![Value::Table(source.clone())])),
        ("endpoint", Value::Array(names.into_iter().map(endpoint).collect())),
        ("plugin", Value::Array(listed.collect())),
    ]);
    Ok(toml::to_string(&settings).map_err(|error| Failure::new(error.to_string()))?)
}

fn new_secret() -> Result<Secret, Failure> {
    Ok(Secret::new(format!("dev_{}", hex::encode(random::<SECRET_BYTES>()?))))
}

fn secret_text(secret: &Secret) -> Result<String, Failure> {
    let text = std::str::from_utf8(secret.expose());
    text.map(str::to_owned).map_err(|_| Failure::new("the secret is not UTF-8 text"))
}

/// From the system: secrets are not to be guessed, and names are to differ between machines.
fn random<const BYTES: usize>() -> Result<[u8; BYTES], Failure> {
    let mut bytes = [0; BYTES];
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| Failure::new("the system gives no random bytes"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(name: &str, endpoints: &[&str]) -> Put {
        Put { name: name.to_owned(), endpoints: endpoints.iter().map(|name| (*name).into()).collect() }
    }

    #[test]
    fn every_endpoint_that_a_sidecar_names_goes_to_one_url() {
        let source = toml::from_str("name = 'dev'\nkind = 'stdin'").unwrap();
        let plugins = [put("a", &["orders", "audit"]), put("b", &[])];
        let url = Url::parse("http://203.0.113.7:3000/hooks").unwrap();
        let text = settings_text(&source, &plugins, &url).unwrap();
        let environment = Environment::of(&[(SECRET_VARIABLE, "s3cret")], "/");
        let settings = parse("/tmp/x/wirehook.toml".as_ref(), &text, &environment).unwrap().settings;
        let names: Vec<_> = settings.endpoints.iter().map(|endpoint| &*endpoint.name).collect();
        assert_eq!(names, ["audit", "dev", "orders"]);
        assert!(settings.endpoints.iter().all(|endpoint| endpoint.url == url));
        assert_eq!(settings.plugins.listed.len(), 1, "only the one that names none");
        assert!(settings.egress.allow.contains(&"203.0.113.7/32".parse().unwrap()));
        assert!(!text.contains("s3cret"));
        let text = settings_text(&source, &plugins[..1], &url).unwrap();
        let settings = parse("/tmp/x/wirehook.toml".as_ref(), &text, &environment).unwrap().settings;
        assert_eq!((settings.endpoints.len(), settings.plugins.listed.len()), (2, 0));
    }

    #[test]
    fn secrets_and_names_differ() {
        assert_ne!(new_secret().unwrap().expose(), new_secret().unwrap().expose());
        assert_ne!(random::<NAME_BYTES>().unwrap(), random::<NAME_BYTES>().unwrap());
    }
}
