//! What four bad endpoints cost the others: one hangs, one drips a byte a second, one answers 500, one answers 100 MB.
//!
//! Two hosts take turns: one has the fine endpoints alone, one has the bad four beside them. Every event goes to every
//! endpoint; what counts is the time from an event's publication to its arrival at each of the fine ones.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::quantile;
use crate::events::page_event;
use crate::fake_endpoint::{Answer, FakeEndpoint, Script};
use crate::publisher::HttpPublisher;
use crate::test_host::{PluginFile, TestHost};

/// For the last webhook of a round to arrive.
const DEADLINE: Duration = Duration::from_secs(120);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Endpoints that answer as they should.
    pub fine: usize,
    /// Rounds of each host, taking turns.
    pub rounds: usize,
    /// Events of a round.
    pub events: usize,
    /// From one event to the next.
    pub interval: Duration,
}

impl Plan {
    /// What figures are reported from: 1,000 webhooks a second.
    pub const FULL: Self = Self { fine: 96, rounds: 6, events: 150, interval: Duration::from_millis(100) };
    /// Whether it works.
    pub const QUICK: Self = Self { fine: 16, rounds: 1, events: 30, interval: Duration::from_millis(50) };
}

/// The time to a fine endpoint, of every event at each of them.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Beside nobody else.
    pub alone: Vec<Duration>,
    /// Beside the bad four.
    pub beside: Vec<Duration>,
}

impl Measured {
    /// How many times as long it took beside the bad four, of that share of the webhooks.
    pub fn factor(&self, share: f64) -> f64 {
        let at = |values: &[Duration]| quantile(values, share).as_secs_f64();
        at(&self.beside) / at(&self.alone).max(f64::EPSILON)
    }

    /// The figures, for people.
    pub fn report(&self) -> String {
        let mut report = String::new();
        for (name, values) in [("96 alone", &self.alone), ("beside the bad four", &self.beside)] {
            let at = |share| quantile(values, share);
            let _ = writeln!(
                report,
                "{name:<22} p50 {:.1?}, p90 {:.1?}, p99 {:.1?}, most {:.1?}",
                at(0.5),
                at(0.9),
                at(0.99),
                at(1.0)
            );
        }
        let _ = writeln!(report, "factor: p50 {:.2}, p99 {:.2}", self.factor(0.5), self.factor(0.99));
        report
    }
}

/// A host and its endpoints.
struct Side {
    host: TestHost,
    source: HttpPublisher,
    fine: Vec<FakeEndpoint>,
    bad: Vec<FakeEndpoint>,
}

impl Side {
    async fn start(fine: usize, bad: &[Answer]) -> Result<Self> {
        let source = HttpPublisher::new()?;
        let mut builder = TestHost::builder().http(source.port, "").plugin_settings("[plugins.limits]\nwebhooks = 256");
        let (mut names, mut fine_ones, mut bad_ones) = (Vec::new(), Vec::new(), Vec::new());
        for answer in bad {
            let name = format!("bad-{}", bad_ones.len());
            bad_ones.push(FakeEndpoint::start(Script::always(answer.clone())).await?);
            builder = builder.endpoint(&name, bad_ones.last().context("just pushed")?, "");
            names.push(name);
        }
        for number in 0..fine {
            let name = format!("fine-{number}");
            fine_ones.push(FakeEndpoint::start(Script::ok()).await?);
            builder = builder.endpoint(&name, fine_ones.last().context("just pushed")?, "");
            names.push(name);
        }
        let sidecar = format!(
            "subjects = [\"fraiseql.order.*\"]\nendpoints = {names:?}\n[config]\nendpoints = {:?}\n[limits]\nwebhooks = 256\n",
            names.join(",")
        );
        let mut host = builder.plugin(PluginFile::hostile("fan_out")?.with_sidecar(&sidecar)).build()?;
        host.start().await?;
        Ok(Self { host, source, fine: fine_ones, bad: bad_ones })
    }

    /// Publishes `plan.events` events from number `first` on and waits until each has arrived everywhere it should.
    async fn round(&self, plan: &Plan, first: usize) -> Result<Vec<Duration>> {
        let mut published = Vec::with_capacity(plan.events);
        let mut ticks = tokio::time::interval(plan.interval);
        for number in first..first + plan.events {
            ticks.tick().await;
            published.push(Instant::now());
            let event = page_event("order", "created", number, &json!({"number": number}));
            let (status, text) = self.source.post(event.body).await?;
            ensure!(status == 202, "the event was answered {status}: {text}");
        }
        let mut took = Vec::with_capacity(plan.events * self.fine.len());
        for endpoint in &self.fine {
            endpoint.wait_for("a round's webhooks", DEADLINE, |log| log.ids() >= first + plan.events).await?;
            endpoint.look(|log| {
                for request in &log.all()[first..] {
                    let number = serde_json::from_slice::<Value>(&request.body)?["number"].as_u64();
                    let number = usize::try_from(number.context("a webhook without its number")?)?;
                    let at = published.get(number.wrapping_sub(first)).context("a webhook of an earlier round")?;
                    took.push(request.arrived_at.duration_since(*at));
                }
                anyhow::Ok(())
            })?;
        }
        Ok(took)
    }
}

/// Measures both hosts in turns.
pub async fn measure(plan: &Plan) -> Result<Measured> {
    let bad = [Answer::Hang, Answer::Drip(Duration::from_secs(1)), Answer::status(500), Answer::Huge(100 << 20)];
    let alone = Side::start(plan.fine, &[]).await?;
    let beside = Side::start(plan.fine, &bad).await?;
    let mut measured = Measured::default();
    for round in 0..plan.rounds {
        let first = round * plan.events;
        measured.alone.extend(alone.round(plan, first).await?);
        measured.beside.extend(beside.round(plan, first).await?);
    }
    for endpoint in &beside.bad {
        ensure!(endpoint.look(|log| !log.all().is_empty()), "a bad endpoint was never asked");
    }
    for mut side in [alone, beside] {
        side.host.expect_all_accounted().await?;
        side.host.forget_logs();
    }
    Ok(measured)
}
