//! A bus, a host that reads it, and an endpoint.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use wirehook::admin::Part;

use super::arrivals::Arrivals;
use super::{Bus, Order, Publisher, SOURCE};
use crate::fake_endpoint::{FakeEndpoint, Script};
use crate::test_host::{HostFolderBuilder, PluginFile, TestHost};
use crate::wait;

/// How long anything may take on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// The page's plugin sees `fraiseql.order.created` and nothing else, so that a webhook proves the subject.
const SUBJECT: &str = "fraiseql.order.created";

pub(super) struct Stage<B> {
    pub(super) bus: B,
    pub(super) endpoint: FakeEndpoint,
    pub(super) host: TestHost,
    pub(super) arrivals: Arrivals,
}

/// What `/readyz` answers.
#[derive(Deserialize)]
struct Readiness {
    parts: Vec<Part>,
}

impl<B: Bus> Stage<B> {
    /// Everything is up and ready.
    pub(super) async fn ready() -> Result<Self> {
        let mut stage = Self::with(B::start().await?, |builder| builder).await?;
        stage.host.start().await?;
        Ok(stage)
    }

    /// The host has not been started.
    pub(super) async fn with(bus: B, more: impl FnOnce(HostFolderBuilder) -> HostFolderBuilder) -> Result<Self> {
        let endpoint = FakeEndpoint::start(Script::ok()).await?;
        let builder = TestHost::builder()
            .settings(&bus.source_toml(SOURCE))
            .endpoint("orders", &endpoint, "")
            .plugin(PluginFile::example("orders")?.subscribed(SUBJECT, "orders"));
        Ok(Self { host: more(builder).build()?, bus, endpoint, arrivals: Arrivals::default() })
    }

    /// Publishes over a connection of its own.
    pub(super) async fn publish(&self, orders: &[Order]) -> Result<()> {
        self.bus.publisher().publish(orders).await
    }

    /// Waits until what has arrived satisfies `condition`.
    pub(super) async fn until(&mut self, what: &str, condition: impl Fn(&Arrivals) -> bool) -> Result<()> {
        let Self { endpoint, arrivals, .. } = self;
        let arrived = wait::until(what, DEADLINE, async || {
            arrivals.look(endpoint)?;
            Ok(condition(arrivals).then_some(()))
        })
        .await;
        arrived.with_context(|| format!("{} orders have arrived", self.arrivals.count()))
    }

    /// Waits until every order below `end` has arrived.
    pub(super) async fn until_all(&mut self, end: usize) -> Result<()> {
        let arrived = self.until("every order", |arrivals| arrivals.missing(0..end).is_empty()).await;
        arrived.with_context(|| format!("missing: {:?}", self.arrivals.missing(0..end)))
    }

    /// Waits until the bus knows of nothing that is not acknowledged, where it knows such things.
    pub(super) async fn until_settled(&self) -> Result<()> {
        let mut last = None;
        let settled = wait::until("every message to be acknowledged", DEADLINE, async || {
            last = self.bus.unaccepted().await?;
            Ok((last.unwrap_or(0) == 0).then_some(()))
        })
        .await;
        settled.with_context(|| format!("not acknowledged: {last:?}"))
    }

    /// Waits until `/readyz` says that the source, and nothing else, is not ready, and why; returns that.
    pub(super) async fn until_disconnected(&self) -> Result<String> {
        let name = format!("source {SOURCE}");
        let mut last = None;
        let found = wait::until("/readyz to name the source and why it is down", DEADLINE, async || {
            // It may not listen yet.
            let Ok((status, text)) = self.host.readiness().await else { return Ok(None) };
            let Readiness { parts } = serde_json::from_str(&text)?;
            let down: Vec<_> = parts.into_iter().filter(|part| !part.ready).collect();
            let why = match &down[..] {
                [part] if status == 503 && part.name == name && !part.detail.is_empty() => Some(part.detail.clone()),
                _ => None,
            };
            last = Some(text);
            Ok(why)
        })
        .await;
        found.with_context(|| format!("/readyz said: {last:?}"))
    }

    /// What holds at the end of every scenario in which nothing may die.
    pub(super) async fn expect_clean(&mut self) -> Result<()> {
        self.arrivals.look(&self.endpoint)?;
        self.arrivals.expect_one_id_each()?;
        let dead = self.host.dead_letters().await?;
        ensure!(dead.is_empty(), "nothing may die: {dead:?}");
        self.host.expect_all_accounted().await?;
        self.endpoint.expect_all_signed()
    }
}
