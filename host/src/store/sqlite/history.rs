//! What operators do, made of reads beside the writer and of bounded commands for it.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::dead_letters::{self, Chunk};
use super::group::Group;
use super::lookup::Names;
use super::queries::{self, EXPORT_BYTES_MAX, EXPORT_LETTERS_MAX};
use super::select::ENTITY_EVENTS_MAX;
use super::{SMALL, SqliteStore, backfill, bulk, forget, lookup, purge, sweep, trace};
use crate::clock::Timestamp;
use crate::store::{
    Backfill, Backfilled, Changed, DeadLetterDetail, DeadLetterFilter, DeadLetterSummary, DeliveryChange,
    DeliveryFilter, DeliverySeq, DeliverySummary, Discarded, EventFilter, EventSeq, EventSummary, Forgotten, Found,
    History, Pace, ParkedFate, Purge, Purged, Redriven, Sought, StoreError,
};

impl SqliteStore {
    /// Reads a list part by part, so that none of the reads takes long.
    pub(super) async fn list_deliveries_in_parts(
        &self,
        filter: DeliveryFilter,
    ) -> Result<Vec<DeliverySummary>, StoreError> {
        let limit = queries::list_limit(filter.limit);
        let mut found = Vec::new();
        let mut before = filter.before;
        while found.len() < limit {
            let part = DeliveryFilter { before, ..filter.clone() };
            let left = limit - found.len();
            let part = self.readers.read(move |connection| queries::list_deliveries(connection, &part, left)).await?;
            found.extend(part.rows);
            let Some(next) = part.next else { break };
            before = Some(DeliverySeq(next));
        }
        Ok(found)
    }

    /// As [`Self::list_deliveries_in_parts`].
    async fn list_events_in_parts(&self, filter: EventFilter) -> Result<Vec<EventSummary>, StoreError> {
        let limit = queries::list_limit(filter.limit);
        let mut found = Vec::new();
        let mut before = filter.before;
        while found.len() < limit {
            let part = EventFilter { before, ..filter.clone() };
            let left = limit - found.len();
            let part = self.readers.read(move |connection| backfill::list_events(connection, &part, left)).await?;
            found.extend(part.rows);
            let Some(next) = part.next else { break };
            before = Some(EventSeq(next));
        }
        Ok(found)
    }

    /// As [`Self::list_deliveries_in_parts`].
    pub(super) async fn list_dead_letters_in_parts(
        &self,
        filter: DeadLetterFilter,
    ) -> Result<Vec<DeadLetterSummary>, StoreError> {
        let limit = queries::list_limit(filter.limit);
        let mut found = Vec::new();
        let mut before = filter.before;
        while found.len() < limit {
            let part = DeadLetterFilter { before, ..filter.clone() };
            let left = limit - found.len();
            let part = self.readers.read(move |connection| queries::list_dead_letters(connection, &part, left)).await?;
            found.extend(part.rows);
            let Some(next) = part.next else { break };
            before = Some(next);
        }
        Ok(found)
    }

    /// The newest dead letter there is: what dies later is not meant by what was asked now.
    async fn newest_letter(&self) -> Result<i64, StoreError> {
        let newest = "SELECT coalesce(max(id), 0) FROM dead_letter";
        self.readers.read(move |connection| connection.query_row(newest, (), |row| row.get(0))).await
    }

    /// Walks the dead letters that `filter` means, oldest first and chunk by chunk. `done` says how many of a chunk count
    /// towards the filter's limit.
    async fn mend(
        &self,
        mut filter: DeadLetterFilter,
        some: impl Fn(&mut Group<'_>, &[i64], u64) -> rusqlite::Result<Chunk> + Clone + Send + 'static,
        mut done: impl FnMut(Chunk) -> u64 + Send,
    ) -> Result<(), StoreError> {
        let up_to = self.newest_letter().await?;
        let limit = filter.limit.map_or(u64::MAX, u64::from);
        let mut total = 0;
        while total < limit {
            let left = usize::try_from(limit - total).unwrap_or(usize::MAX);
            let part = filter.clone();
            let chosen =
                self.readers.read(move |connection| dead_letters::choose(connection, &part, up_to, left)).await?;
            if !chosen.ids.is_empty() {
                let some = some.clone();
                let before = total;
                total += done(self.write(SMALL, move |group| some(group, &chosen.ids, before)).await?);
            }
            let Some(next) = chosen.next else { break };
            filter.after = Some(next);
        }
        Ok(())
    }

    /// The events of an entity that are still there.
    async fn doomed(&self, purge: &Purge) -> Result<Vec<i64>, StoreError> {
        let purge = purge.clone();
        self.readers.read(move |connection| purge::events(connection, &purge)).await
    }

    async fn purge_all(&self, mut purge: Purge, now: Timestamp) -> Result<Purged, StoreError> {
        let mut events = self.doomed(&purge).await?;
        let (all, counted) = (events.clone(), purge.clone());
        let counted = self.readers.read(move |connection| purge::count(connection, &all, &counted)).await?;
        let given_back = std::mem::take(&mut purge.given_back);
        let refused = counted.in_flight > 0 || (counted.waiting > 0 && !purge.discard_waiting);
        if purge.dry_run || refused || counted.events == 0 {
            if !given_back.is_empty() {
                self.release_all(given_back).await?;
            }
            if purge.dry_run {
                return Ok(counted);
            }
            // Nothing was deleted, for there is nothing or it is not to be yet.
            let Purged { waiting, in_flight, mentioned_in, .. } = counted;
            return Ok(Purged { waiting, in_flight, mentioned_in, done: !refused, ..Purged::default() });
        }
        let mut purged = Purged { mentioned_in: counted.mentioned_in, done: true, ..Purged::default() };
        self.release_all(given_back).await?;
        loop {
            for chunk in events.chunks(purge::EVENTS_CHUNK) {
                let (chunk, part) = (chunk.to_vec(), purge.clone());
                let part = self.write(SMALL, move |group| group.purge_some(&chunk, &part, now)).await?;
                purged.events += part.events;
                purged.deliveries += part.deliveries;
                purged.attempts += part.attempts;
                purged.dead_letters += part.dead_letters;
                purged.waiting += part.waiting;
                purged.in_flight += part.in_flight;
            }
            // Of an entity with very many events, only so many are found at a time.
            let is_left = purged.in_flight > 0 || (purged.waiting > 0 && !purge.discard_waiting);
            if is_left || events.len() < ENTITY_EVENTS_MAX {
                purged.done = !is_left;
                return Ok(purged);
            }
            events = self.doomed(&purge).await?;
        }
    }

    async fn release_all(&self, deliveries: Vec<DeliverySeq>) -> Result<(), StoreError> {
        let release = super::Release { runs: Vec::new(), deliveries };
        self.write(SMALL, move |group| group.release(&release)).await
    }
}

impl History for SqliteStore {
    fn change_deliveries(&self, change: DeliveryChange, now: Timestamp) -> BoxFuture<'_, Result<Changed, StoreError>> {
        async move {
            let change = Arc::new(change);
            let sought = Arc::clone(&change);
            let chosen = self.readers.read(move |connection| bulk::choose(connection, &sought)).await?;
            if chosen.is_empty() && change.given_back.is_empty() {
                return Ok(chosen.unchanged());
            }
            self.write(SMALL, move |group| group.change_deliveries(&change, &chosen, now)).await
        }
        .boxed()
    }

    fn redrive_paced(&self, filter: DeadLetterFilter, pace: Pace) -> BoxFuture<'_, Result<Redriven, StoreError>> {
        async move {
            let mut total = Redriven::default();
            let some = move |group: &mut Group<'_>, ids: &[i64], before| group.redrive_some(ids, pace, before);
            let done = |chunk: Chunk| {
                let count = chunk.redriven.total();
                total.add(chunk.redriven);
                count
            };
            self.mend(filter, some, done).await?;
            Ok(total)
        }
        .boxed()
    }

    fn discard_from(&self, filter: DeadLetterFilter) -> BoxFuture<'_, Result<Discarded, StoreError>> {
        async move {
            let mut total = Discarded::default();
            let some = |group: &mut Group<'_>, ids: &[i64], _: u64| group.discard_some(ids);
            let done = |chunk: Chunk| {
                total.count += chunk.discarded.count;
                total.last = chunk.discarded.last.or(total.last);
                chunk.discarded.count
            };
            self.mend(filter, some, done).await?;
            Ok(total)
        }
        .boxed()
    }

    fn export_dead_letters(
        &self,
        filter: DeadLetterFilter,
    ) -> BoxFuture<'_, Result<Vec<DeadLetterDetail>, StoreError>> {
        async move {
            let mut filter = filter;
            let limit = filter.limit.map_or(EXPORT_LETTERS_MAX, |limit| EXPORT_LETTERS_MAX.min(limit as usize));
            loop {
                let part = filter.clone();
                let read = move |connection: &rusqlite::Connection| {
                    let chosen = dead_letters::choose(connection, &part, i64::MAX, limit)?;
                    Ok((queries::show_dead_letters(connection, &chosen.ids, EXPORT_BYTES_MAX)?, chosen.next))
                };
                match self.readers.read(read).await? {
                    (letters, Some(next)) if letters.is_empty() => filter.after = Some(next),
                    (letters, _) => return Ok(letters),
                }
            }
        }
        .boxed()
    }

    fn trace(&self, sought: Sought) -> BoxFuture<'_, Result<Vec<Found>, StoreError>> {
        self.readers.read(move |connection| trace::trace(connection, &sought)).boxed()
    }

    fn purge(&self, purge: Purge, now: Timestamp) -> BoxFuture<'_, Result<Purged, StoreError>> {
        self.purge_all(purge, now).boxed()
    }

    fn rewrite(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let (done, answer) = oneshot::channel();
            self.queue.rewrite(done)?;
            answer.await.map_err(|_| StoreError::Closed)?
        }
        .boxed()
    }

    fn would_forget(&self, plugin: Arc<str>) -> BoxFuture<'_, Result<Forgotten, StoreError>> {
        self.readers.read(move |connection| forget::would_forget(connection, &plugin)).boxed()
    }

    fn forget_plugin(
        &self,
        plugin: Arc<str>,
        fate: ParkedFate,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Forgotten, StoreError>> {
        async move {
            let name = Arc::clone(&plugin);
            self.move_all(move |group| group.park_some(&name)).await?;
            let name = Arc::clone(&plugin);
            let runs = self.move_all(move |group| group.end_parked(&name, fate, now)).await?;
            self.write(SMALL, move |group| group.forget_plugin(&plugin, runs)).await
        }
        .boxed()
    }

    fn list_events(&self, filter: EventFilter) -> BoxFuture<'_, Result<Vec<EventSummary>, StoreError>> {
        self.list_events_in_parts(filter).boxed()
    }

    fn backfill(&self, backfill: Backfill, now: Timestamp) -> BoxFuture<'_, Result<Backfilled, StoreError>> {
        async move {
            let backfill = Arc::new(backfill);
            let sought = Arc::clone(&backfill);
            let missing = self.readers.read(move |connection| backfill::missing(connection, &sought)).await?;
            if backfill.dry_run || missing.is_empty() {
                return Ok(missing.counted());
            }
            self.write(SMALL, move |group| group.backfill(&backfill, &missing, now)).await
        }
        .boxed()
    }

    fn index_some(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        async move {
            let mut more = false;
            for names in Names::ALL {
                let next = self.readers.read(move |connection| lookup::next_segment(connection, names)).await?;
                let Some(segment) = next else { continue };
                more = true;
                self.write(segment.bytes(), move |group| group.write_segment(&segment)).await?;
            }
            Ok(more)
        }
        .boxed()
    }

    fn shrink(&self, bytes_max: u64) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.write(SMALL, move |group| group.shrink(bytes_max)).boxed()
    }

    fn bytes(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.readers.read(sweep::kept_bytes).boxed()
    }
}
