//! One event through the example plugin, in a sandbox made and destroyed for it, without the rest of the host.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::Value;
use wirehook::clock::SystemClock;
use wirehook::event::{Event, EventKey};
use wirehook::plugin::compiler::Compiler;
use wirehook::plugin::{CallReport, Engine, Manifest, Plugin};

use crate::{artifacts, events};

/// Calls before the first that counts.
const WARM_UP: usize = 500;

/// Calls the `orders` plugin `count` times on one thread. Returns how long each call took.
pub fn measure(folder: &Path, count: usize) -> Result<Vec<Duration>> {
    times(&orders(folder)?, count)
}

/// What one call of the `orders` plugin came to.
pub fn once(folder: &Path) -> Result<CallReport> {
    Ok(orders(folder)?.call(&order()?, 1))
}

fn orders(folder: &Path) -> Result<Plugin> {
    let cache = tempfile::tempdir_in(folder)?;
    let engine = Engine::new(1, cache.path(), Compiler::InProcess, SystemClock::shared())?;
    let wasm = std::fs::read(artifacts::example_plugin("orders")?)?;
    Ok(Plugin::load(&engine, "orders", &wasm, Manifest::default())?)
}

/// How long each of `count` calls of `plugin` with an order took, on this thread.
///
/// # Errors
/// It makes no webhook of the order.
pub fn times(plugin: &Plugin, count: usize) -> Result<Vec<Duration>> {
    let event = order()?;
    let mut durations = Vec::with_capacity(count);
    for number in 0..WARM_UP + count {
        let started = Instant::now();
        let report = plugin.call(&event, 1);
        let elapsed = started.elapsed();
        let result = report.result;
        ensure!(result.as_ref().is_ok_and(|webhooks| webhooks.len() == 1), "the plugin made no webhook: {result:?}");
        if number >= WARM_UP {
            durations.push(elapsed);
        }
    }
    Ok(durations)
}

/// Order 1 as the inbox would hand it over.
fn order() -> Result<Event> {
    let published = events::order_created(1);
    let message: Value = serde_json::from_slice(&published.body)?;
    let entity = message.get("entity").context("the event has an entity")?;
    Ok(Event {
        key: EventKey::new("bench", "position", 1),
        source: "bench".into(),
        subject: published.subject,
        entity_type: "order".to_owned(),
        operation: "created".to_owned(),
        entity_id: Some(published.entity_id),
        tenant_id: None,
        timestamp: Some("2026-03-02T14:00:00Z".to_owned()),
        entity: Some(Bytes::from(entity.to_string())),
        previous: None,
        attributes: vec![("source".to_owned(), "bench".to_owned()), ("format".to_owned(), "page".to_owned())],
        body_digest: [0; 16],
    })
}
