//! What commands need from the rest of the program: one trait, implemented where concrete types are wired.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;

use super::failure::{Failure, Failures};
pub use crate::app::{RunOptions, RunReport};
use crate::clock::Clock;
pub use crate::dev::{
    Begun, Called, DevNews, DevOptions, Forwarded, ForwardedOutcome, Rebuilt, SourceArguments, Unrouted,
};
use crate::endpoint::TestReport;
use crate::logging::{LogFormat, LoggingError};
use crate::ops::access::OpenOffline;
pub use crate::publish::{Report as PublishReport, Routed};
use crate::receiver::{self, Verdict};
use crate::recorded::trial::Trial;
use crate::secret::Secret;
use crate::settings::{MemoryReset, Settings, SignatureScheme, SourceSettings};

/// What commands need from the rest of the program.
pub trait Parts: Send + Sync {
    /// Begins logging for the process.
    ///
    /// # Errors
    /// When the level is not one.
    fn begin_logging(&self, format: LogFormat, level: &str) -> Result<(), LoggingError> {
        crate::logging::init(format, level)
    }

    /// Whether commands keep compiled plugins for the next one.
    fn keep_code(&self, _keeps: bool) {}

    /// Where time comes from.
    fn clock(&self) -> Arc<dyn Clock>;

    /// How a host in this process would clean the memory of sandboxes between events.
    fn cleaning(&self, setting: MemoryReset) -> String {
        crate::plugin::Cleaning::under(setting).to_string()
    }

    /// Opens the store while no host runs.
    fn opener(&self) -> &dyn OpenOffline;

    /// Runs the host until it is told to stop, or is idle where that was asked for.
    fn run(&self, settings: Settings, options: RunOptions) -> BoxFuture<'_, Result<RunReport, Failures>>;

    /// Receives webhooks until it is told to stop, or has received `count`. What arrives is given to `print`.
    fn receive<'a>(
        &'a self,
        options: ReceiveOptions,
        print: &'a mut (dyn FnMut(&Received) + Send),
    ) -> BoxFuture<'a, Result<(), Failures>>;

    /// Runs plugins without settings until it is told to stop. What goes on is given to `print`.
    fn dev<'a>(
        &'a self,
        options: DevOptions,
        print: &'a mut (dyn FnMut(&DevNews) + Send),
    ) -> BoxFuture<'a, Result<RunReport, Failures>>;

    /// Runs the demonstration, printing to standard output by itself.
    fn demo(&self, options: DemoOptions) -> BoxFuture<'_, Result<DemoReport, Failures>>;

    /// Publishes events to the bus of a source, and tells `progress` how far it is.
    fn publish<'a>(
        &'a self,
        source: &'a SourceSettings,
        events: Vec<Routed>,
        progress: &'a mut (dyn FnMut(&PublishReport) + Send),
    ) -> BoxFuture<'a, Result<PublishReport, Failures>>;

    /// Sends a test webhook from this process; `None` where the settings have no such endpoint.
    fn test_endpoint<'a>(
        &'a self,
        settings: &'a Settings,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<TestReport>, Failures>>;

    /// Looks at one plugin's file: at what it asks for, or with `settings` at what it gets.
    fn inspect(&self, file: &Path, settings: Option<&Settings>) -> PluginView;

    /// A plugin's file with the real engine around it and nothing else.
    ///
    /// # Errors
    /// When it would not run.
    fn trial(&self, file: &Path) -> Result<Trial, Failure>;

    /// Looks at every file of the plugins folder.
    ///
    /// # Errors
    /// When the folder can't be read.
    fn scan(&self, settings: &Settings) -> Result<Vec<PluginView>, Failure>;
}

/// How to receive.
#[derive(Clone, Debug)]
pub struct ReceiveOptions {
    /// Where.
    pub listen: SocketAddr,
    /// How webhooks are signed.
    pub scheme: SignatureScheme,
    /// What signatures are verified with; none accepts unsigned webhooks.
    pub secret: Option<Secret>,
    /// The statuses answered to the attempts at one webhook, in order; the last one from then on. Never empty.
    pub statuses: Vec<u16>,
    /// End after this many requests.
    pub count: Option<u64>,
}

/// A request that the receiver took.
#[derive(Clone, Debug, Serialize)]
pub struct Received {
    /// From 1.
    pub number: u64,
    /// `webhook-id`.
    pub webhook_id: Option<String>,
    /// Which attempt at this webhook it was, from 1, as the receiver counts them; 0 where the signature is not right.
    pub attempt: u32,
    /// Whether the signature is right; `None` without a secret to verify it with.
    pub verified: Option<bool>,
    /// Why the signature is not right.
    pub problem: Option<String>,
    /// The status answered.
    pub status: u16,
    /// The body, as text where it is UTF-8, else hex after `hex:`.
    pub body: String,
}

impl Received {
    /// What the receiver took as its `number`th request, for people.
    pub fn view(number: u64, received: &receiver::Received) -> Self {
        Self {
            number,
            webhook_id: received.webhook_id.clone(),
            verified: match received.verdict {
                Verdict::Verified => Some(true),
                Verdict::Failed(_) => Some(false),
                Verdict::Unchecked => None,
            },
            problem: match &received.verdict {
                Verdict::Failed(error) => Some(error.to_string()),
                _ => None,
            },
            status: received.status.as_u16(),
            attempt: received.attempt,
            body: match std::str::from_utf8(&received.body) {
                Ok(text) => text.to_owned(),
                Err(_) => format!("hex:{}", hex::encode(&received.body)),
            },
        }
    }
}

/// How to demonstrate.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// How many events.
    pub events: u64,
    /// The plugin's file; the host's own example where there is none.
    pub plugin: Option<PathBuf>,
    /// Whether data is printed as JSON.
    pub json: bool,
}

/// How the demonstration ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DemoReport {
    /// Whether every event is accounted for.
    pub accounted: bool,
}

/// A plugin's file as commands show it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct PluginView {
    /// The file's stem.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// Whether it would run.
    pub ok: bool,
    /// Whether an operator has its runs wait; told by `plugin list` only.
    pub paused: bool,
    /// Why it would not.
    pub error: Option<String>,
    /// What its author is to do.
    pub help: Option<String>,
    /// `component` or `core module`.
    pub format: Option<String>,
    /// The hex SHA-256 of the file.
    pub digest: Option<String>,
    /// The file's size.
    pub bytes: Option<u64>,
    /// The subjects it is subscribed to.
    pub subjects: Vec<String>,
    /// The endpoints it may name, its default first.
    pub endpoints: Vec<String>,
    /// What it may reach besides, or asks for.
    pub grants: Vec<String>,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// The limits in force, each with its unit.
    pub limits: BTreeMap<String, String>,
    /// Those that its sidecar asks for.
    pub limits_asked: BTreeMap<String, String>,
    /// Those of which it asks for more than it is granted.
    pub limits_lessened: Vec<String>,
}

impl PluginView {
    /// That it asks for more of some limits than it is granted.
    pub fn lessened(&self) -> Option<Failure> {
        let of = |name: &String| {
            let (asked, held) = (self.limits_asked.get(name)?, self.limits.get(name)?);
            Some(format!("{name} {asked}, and has {held}"))
        };
        let all: Vec<String> = self.limits_lessened.iter().filter_map(of).collect();
        (!all.is_empty()).then(|| {
            Failure::new(format!("plugin `{}` asks for {}", self.name, all.join("; "))).help(format!(
                "if it should have more, grant it in its [plugin.limits]; `wirehook plugin approve {}` prints the lines",
                self.file.display()
            ))
        })
    }

    /// Why it would not run.
    pub fn refusal(&self) -> Option<Failure> {
        let error = self.error.as_deref().filter(|_| !self.ok)?;
        let message = format!("plugin `{}` would not run: {error}", self.name);
        Some(Failure { message, at: Some(self.file.display().to_string()), help: self.help.clone() })
    }
}
