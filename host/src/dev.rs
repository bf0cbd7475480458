//! `wirehook dev`: the real host without a settings file, on a folder that goes when it ends.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use url::Url;

use crate::app::{self, News, RunOptions, RunReport};
use crate::cli::{Failure, Failures};
use crate::clock::{Clock, Timestamp};
use crate::dead_letter::Reason;
use crate::delivery::Transition;
use crate::project::Project;
use crate::receiver::{Received, Receiver, ReceiverSettings, Script};
use crate::secret::Secret;
use crate::settings::{Settings, SignatureScheme};
use crate::store::{AttemptRecord, ClaimedDelivery};

mod folder;
mod rebuild;
mod source;

pub use crate::app::Called;
pub(crate) use rebuild::ProjectWatch;
pub use rebuild::Rebuilt;
pub use source::{SourceArguments, SourceArgumentsError};

use folder::Bench;

/// The source's name.
const SOURCE: &str = "dev";
/// What is told and not yet printed at most; then the host waits.
const NEWS_MAX: usize = 256;
/// What the built-in receiver took and is not yet printed at most; then it is counted and not printed.
const UNPRINTED_MAX: usize = 1024;
/// Subjects of events that no plugin wants which are told, at most.
const SUBJECTS_TOLD_MAX: usize = 100;
/// Random bytes of a signing secret.
const SECRET_BYTES: usize = 24;
/// Random bytes of a consumer's name.
const NAME_BYTES: usize = 8;

/// How to try plugins.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// Their files.
    pub plugins: Vec<PathBuf>,
    /// A project whose output is among them, to be built again when its sources change.
    pub watch: Option<Project>,
    /// The bus.
    pub source: SourceArguments,
    /// Where every webhook goes; a receiver of its own where nothing says.
    pub forward_to: Option<Url>,
    /// What plugins that ask for `http` may call, by any method.
    pub allow_http: Vec<Url>,
    /// How webhooks are signed.
    pub scheme: SignatureScheme,
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
    /// A plugin was called.
    Called(Box<Called>),
    /// No plugin is subscribed to an event.
    Unrouted(Unrouted),
    /// The project was built again.
    Rebuilt(Rebuilt),
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
    /// How they are signed.
    pub scheme: SignatureScheme,
    /// What they are signed with, where it was made for this run and the scheme signs at all.
    pub secret: Option<Secret>,
    /// Settings that other commands find the store by while this one runs.
    pub config: PathBuf,
}

/// An event that no plugin is subscribed to. Each subject is told once, up to [`SUBJECTS_TOLD_MAX`].
#[derive(Debug)]
pub struct Unrouted {
    /// The event's key.
    pub event_key: String,
    /// Its subject.
    pub subject: String,
    /// What the plugins are subscribed to.
    pub subscribed: Vec<(String, Vec<String>)>,
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
    let scheme = options.scheme.clone();
    let generated = options.secret.is_none() && scheme != SignatureScheme::None;
    let secret = options.secret.clone().map_or_else(|| new_secret(&scheme), Ok)?;
    let (taken, mut received) = mpsc::channel(UNPRINTED_MAX);
    let mut receiver = None;
    let forward_to = match &options.forward_to {
        Some(url) => url.clone(),
        None => {
            let started = receive(&scheme, &secret, &clock, taken).await?;
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
        scheme,
        secret: generated.then_some(secret),
        config: bench.config(),
    }));
    let (watcher, mut news) = mpsc::channel(NEWS_MAX);
    let (built, mut rebuilt) = mpsc::channel(1);
    let mut builder = JoinSet::new();
    if let Some(project) = options.watch {
        let rebuilding = rebuild::rebuild(project, bench.plugins_folder(), Arc::clone(&clock), built);
        builder.spawn(async move {
            if let Err(error) = rebuilding.await {
                tracing::error!(%error, "the project's folders can't be watched; it is not built again");
            }
        });
    }
    // Standard input has an end, after which there is nothing to wait for but what was begun.
    let how = RunOptions { exit_when_idle: options.source.source == "-" };
    let running = app::run_watched(bench.settings.clone(), how, clock, Some(watcher), signal);
    let mut running = Box::pin(running);
    let mut teller =
        Teller { forwards: receiver.is_none(), subscribed: bench.subscribed.clone(), told: BTreeSet::new() };
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended,
            Some(one) = rebuilt.recv() => print(&DevNews::Rebuilt(one)),
            Some(told) = news.recv() => teller.tell(told, print),
            Some(one) = received.recv() => print(&DevNews::Received(Box::new(one))),
        }
    };
    drop(builder);
    while let Ok(told) = news.try_recv() {
        teller.tell(told, print);
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

/// What is told of the host's news.
struct Teller {
    /// Whether webhooks go elsewhere than to the built-in receiver.
    forwards: bool,
    /// What the plugins are subscribed to.
    subscribed: Vec<(String, Vec<String>)>,
    /// Subjects that no plugin wants, and that were told.
    told: BTreeSet<String>,
}

impl Teller {
    fn tell(&mut self, news: News, print: &mut (dyn FnMut(&DevNews) + Send)) {
        match news {
            News::Ready => print(&DevNews::Ready),
            // What the built-in receiver took is printed by what it took.
            News::Attempted(attempted) if self.forwards => {
                print(&DevNews::Attempted(forwarded(&attempted.delivery, &attempted.record)));
            }
            News::Called(called) => print(&DevNews::Called(called)),
            News::Unrouted { event_key, subject } => {
                if self.told.len() < SUBJECTS_TOLD_MAX && self.told.insert(subject.clone()) {
                    let subscribed = self.subscribed.clone();
                    print(&DevNews::Unrouted(Unrouted { event_key, subject, subscribed }));
                }
            }
            News::Attempted(_) => {}
        }
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
            Transition::Retry { due_at } | Transition::Deferred { due_at } => {
                let after = due_at.since(record.started_at.plus(record.duration));
                ForwardedOutcome::Retried { due_at, after }
            }
            Transition::Dead { reason } => ForwardedOutcome::Dead(reason),
        },
    }
}

async fn receive(
    scheme: &SignatureScheme,
    secret: &Secret,
    clock: &Arc<dyn Clock>,
    taken: mpsc::Sender<Received>,
) -> Result<Receiver, Failure> {
    let script: Script = "200".parse().map_err(|error| Failure::new(format!("{error}")))?;
    // Without a secret it verifies nothing.
    let secrets = if *scheme == SignatureScheme::None { Vec::new() } else { vec![secret.clone()] };
    let settings = ReceiverSettings { listen: ([127, 0, 0, 1], 0).into(), scheme: scheme.clone(), secrets, script };
    let receiver = Receiver::start(settings, Arc::clone(clock), move |one| {
        // Full only when nothing reads standard output; the host is answered all the same.
        let _full = taken.try_send(one);
    });
    receiver.await.map_err(|error| Failure::new(error.to_string()))
}

/// As the scheme's receivers take it.
pub(crate) fn new_secret(scheme: &SignatureScheme) -> Result<Secret, Failure> {
    let bytes = random::<SECRET_BYTES>()?;
    Ok(Secret::new(match scheme {
        SignatureScheme::StandardWebhooks => format!("whsec_{}", STANDARD.encode(bytes)),
        _ => format!("dev_{}", hex::encode(bytes)),
    }))
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
    use crate::endpoint::signature::check_secret;

    #[test]
    fn secrets_and_names_differ() {
        for scheme in [SignatureScheme::Fraiseql, SignatureScheme::StandardWebhooks] {
            let (one, other) = (new_secret(&scheme).unwrap(), new_secret(&scheme).unwrap());
            assert_ne!(one.expose(), other.expose());
            assert_eq!(check_secret(&scheme, &one), Ok(()));
        }
        assert_ne!(random::<NAME_BYTES>().unwrap(), random::<NAME_BYTES>().unwrap());
    }
}
