//! What a host says about itself through commands and metrics.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::TestHost;
use crate::wait;

/// A line of `dead-letters list --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct DeadLetter {
    /// For `show`, `redrive` and `discard`.
    pub id: i64,
    /// `message`, `run` or `delivery`.
    pub kind: String,
    /// From the closed list.
    pub reason: String,
    /// What exactly.
    pub detail: String,
    /// The event's subject.
    pub subject: String,
    /// For runs and deliveries.
    pub plugin: Option<String>,
    /// For deliveries.
    pub endpoint: Option<String>,
    /// `webhook-id`, for deliveries.
    pub delivery_id: Option<String>,
    /// Attempts of a delivery, tries of a run.
    pub attempts: u32,
    /// For deliveries that were answered.
    pub last_status: Option<u16>,
    /// The first bytes of the last answer.
    pub last_response: Option<String>,
}

/// What `status --json` counts in the store.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Must be 0.
    pub events_unaccounted: u64,
    /// By plugin and state.
    pub runs: Vec<RunCount>,
}

/// Runs of one plugin in one state.
#[derive(Clone, Debug, Deserialize)]
pub struct RunCount {
    /// The plugin's name.
    pub plugin: String,
    /// `pending`, `parked`, …
    pub state: String,
    /// How many.
    pub count: u64,
}

impl TestHost {
    /// Every dead letter, newest first.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        self.json(&["dead-letters", "list", "--limit", "1000"]).await?.objects()
    }

    /// Waits until there are `count` dead letters, and returns them, newest first.
    pub async fn wait_dead_letters(&self, count: usize, deadline: Duration) -> Result<Vec<DeadLetter>> {
        let what = format!("{count} dead letters");
        let mut last = Vec::new();
        let found = wait::until(&what, deadline, async || {
            last = self.dead_letters().await?;
            Ok((last.len() >= count).then(|| last.clone()))
        })
        .await;
        let found = found.with_context(|| format!("there were {last:?}"))?;
        ensure!(found.len() == count, "{} dead letters instead of {count}: {found:?}", found.len());
        Ok(found)
    }

    /// One delivery with its attempts.
    pub async fn delivery(&self, webhook_id: &str) -> Result<Value> {
        self.json(&["deliveries", "show", webhook_id]).await?.object()
    }

    /// Waits until a delivery is in `state`, and returns it.
    pub async fn wait_delivery(&self, webhook_id: &str, state: &str, deadline: Duration) -> Result<Value> {
        wait::until(&format!("delivery {webhook_id} to be {state}"), deadline, async || {
            let delivery = self.delivery(webhook_id).await?;
            Ok((delivery["state"] == state).then_some(delivery))
        })
        .await
    }

    /// What `status` counts.
    pub async fn status(&self) -> Result<Status> {
        let status = self.json(&["status"]).await?.object()?;
        let store = status.get("store").with_context(|| format!("the status has no store: {status}"))?;
        Ok(Status::deserialize(store)?)
    }

    /// Waits until `plugin` has `count` runs in `state`.
    pub async fn wait_runs(&self, plugin: &str, state: &str, count: u64, deadline: Duration) -> Result<()> {
        let mut last = None;
        let waited = wait::until(&format!("{count} {state} runs of {plugin}"), deadline, async || {
            let status = last.insert(self.status().await?);
            let found = status.runs.iter().any(|run| run.plugin == plugin && run.state == state && run.count == count);
            Ok(found.then_some(()))
        })
        .await;
        waited.with_context(|| format!("the status is {last:?}"))
    }

    /// Fails unless every accepted event is accounted for.
    pub async fn expect_all_accounted(&self) -> Result<()> {
        let status = self.status().await?;
        ensure!(status.events_unaccounted == 0, "events are unaccounted for: {status:?}");
        Ok(())
    }

    /// `/readyz`: its status and text.
    pub async fn readiness(&self) -> Result<(u16, String)> {
        let response = self.client.get(self.folder.admin_url("/readyz")).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// The sum of a metric's samples over those whose labels contain `labels`; 0 where there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let text = self.client.get(self.folder.admin_url("/metrics")).send().await?.text().await?;
        let mut sum = 0.0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
            if series_name == name && series_labels.contains(labels) {
                sum += value.parse::<f64>().with_context(|| format!("the metric `{line}`"))?;
            }
        }
        Ok(sum)
    }

    /// Waits until a metric's sum is at least `least`.
    pub async fn wait_metric(&self, name: &str, labels: &str, least: f64, deadline: Duration) -> Result<f64> {
        wait::until(&format!("{name}{{{labels}}} to reach {least}"), deadline, async || {
            let sum = self.metric(name, labels).await?;
            Ok((sum >= least).then_some(sum))
        })
        .await
    }
}
