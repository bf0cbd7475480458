//! Recorded events, for operators: listed, and given the run that they never had.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{OpsHooks, Reply};
use crate::clock::Clock;
use crate::store::{Backfill, BacklogBounds, EventFilter, Redriven, Store, StoreError};

/// Which events get the run of which plugin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackfillStep {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// Which events; its limit is the step's.
    pub filter: EventFilter,
    /// Only count.
    pub dry_run: bool,
    /// What may wait for the plugin by the command's settings; a running host goes by its own.
    pub backlog: BacklogBounds,
}

pub(super) async fn backfill(
    store: &dyn Store,
    hooks: &dyn OpsHooks,
    clock: &dyn Clock,
    step: BackfillStep,
) -> Result<Vec<Reply>, StoreError> {
    let known = store.known_plugins().await?;
    let Some(plugin) = known.iter().find(|known| known.name == step.plugin) else {
        let names: Vec<_> = known.iter().map(|known| &*known.name).collect();
        let message = format!(
            "no plugin `{}` was ever loaded, so that nobody knows what it is subscribed to; loaded were: {}",
            step.plugin,
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        );
        return Ok(vec![Reply::Failed { message }]);
    };
    // Without a host nobody knows what the plugin will send; an order that nobody asks for keeps nothing waiting.
    let (ordered, backlog) = hooks.run_terms(&step.plugin).unwrap_or((true, step.backlog));
    let dry_run = step.dry_run;
    let backfill = Backfill {
        plugin: Arc::clone(&step.plugin),
        subjects: plugin.subjects.clone(),
        filter: step.filter,
        ordered,
        backlog,
        dry_run,
    };
    let done = store.backfill(backfill, clock.now()).await?;
    if !dry_run && done.runs > 0 {
        hooks.redriven(&Redriven { plugins: vec![step.plugin], ..Redriven::default() });
    }
    Ok(vec![Reply::Backfilled(done)])
}
