//! The end of a source: what it leaves to others, and what it takes away.

use std::time::Duration;

use super::Consumer;
use super::group::Commands;
use crate::source::redis::failure::Failure;

/// How long handing back, and removing a group that is to go, may take.
const END_DEADLINE: Duration = Duration::from_secs(2);

impl Consumer {
    /// Leaves to other consumers, or to this one later, what nobody has begun.
    pub(super) async fn hand_back(&mut self) {
        let Some(commands) = self.held.commands() else { return };
        self.ready.drain(..).for_each(|entry| self.held.forget(&entry));
        let held = self.held.places();
        match tokio::time::timeout(END_DEADLINE, commands.hand_back(&held)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(entries)) => {
                tracing::info!(source = %self.source.name, entries, "handed back entries that were not begun");
            }
            Ok(Err(failure)) => tracing::debug!(source = %self.source.name, error = %failure, "could not hand back"),
            Err(_) => tracing::debug!(source = %self.source.name, "could not hand back in time"),
        }
    }

    /// Removes the groups that this source has made, over a new connection where the last one is gone.
    pub(super) async fn remove_groups(&self) {
        if tokio::time::timeout(END_DEADLINE, self.destroy()).await.is_err() {
            tracing::warn!(source = %self.source.name, group = self.source.group, "the group could not be removed in time");
        }
    }

    async fn destroy(&self) {
        let Some(mut commands) = self.held.commands() else { return };
        let consumer = self.standing.as_ref().map_or("", |standing| &standing.consumer);
        for stream in &self.made {
            let mut destroyed = commands.destroy(*stream).await;
            if let Err(Failure::Connection(_)) = destroyed
                && let Ok(anew) = Commands::connect(&self.source, &self.keys, consumer).await
            {
                commands = anew;
                destroyed = commands.destroy(*stream).await;
            }
            if let Err(failure) = destroyed {
                tracing::warn!(
                    source = %self.source.name, stream = %self.keys[*stream], group = self.source.group, error = %failure,
                    "the group could not be removed; remove it: XGROUP DESTROY {{stream}} {{group}}"
                );
            }
        }
    }
}
