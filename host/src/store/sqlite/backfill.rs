//! Recorded events: listed, and given the run of a plugin that they never had.

use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::accept::Arrived;
use super::backlog::Full;
use super::group::Group;
use super::queries::Part;
use super::runs::event_at;
use super::select;
use super::state::unsigned;

use crate::clock::Timestamp;
use crate::event::OrderKey;
use crate::event::subject::SubjectPattern;
use crate::store::{Backfill, Backfilled, Claim, EventFilter, EventSeq, EventSummary, NewRun, RunStart, RunTerms};

/// Runs written in one commit.
const RUNS_CHUNK: usize = 1_000;

/// Bytes of events read for one commit; one event at least.
const READ_BYTES_MAX: usize = 32 << 20;

/// Events that never had the run of a plugin, and where a step ends.
pub(super) struct Missing {
    events: Vec<Recorded>,
    last: Option<i64>,
}

/// An event as far as a run of it needs.
struct Recorded {
    seq: i64,
    bytes: usize,
    order: Option<OrderKey>,
}

impl Missing {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// What a step comes to that writes nothing.
    pub(super) fn counted(&self) -> Backfilled {
        Backfilled { runs: self.events.len() as u64, last: self.last.map(EventSeq), full: None }
    }
}

/// The newest events that `filter` means, of a bounded part of all.
pub(super) fn list_events(
    connection: &Connection,
    filter: &EventFilter,
    limit: usize,
) -> rusqlite::Result<Part<EventSummary>> {
    let selection = select::events(connection, filter)?;
    if selection.range.is_empty() {
        return Ok(Part { rows: Vec::new(), next: None });
    }
    let (end, is_last) = selection.part(connection, true)?;
    let subject = pattern(filter.subject.as_deref());
    let mut values = selection.values;
    values.extend([end, *selection.range.end()].map(Value::from));
    let mut select = connection.prepare_cached(&format!(
        "SELECT x.seq, x.accepted_at, x.key, x.source, x.subject, x.entity_id, x.tenant_id, x.run_count FROM event x
         WHERE {} AND x.seq BETWEEN ? AND ? ORDER BY x.seq DESC",
        selection.conditions
    ))?;
    let mut rows = select.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if found.len() == limit {
            break;
        }
        let matched = row.get_ref(4)?.as_str()?;
        if subject.as_ref().is_none_or(|pattern| pattern.matches(matched)) {
            found.push(EventSummary {
                seq: EventSeq(row.get(0)?),
                accepted_at: Timestamp(row.get(1)?),
                key: row.get(2)?,
                source: row.get(3)?,
                subject: row.get(4)?,
                entity_id: row.get(5)?,
                tenant_id: row.get(6)?,
                runs: unsigned(row.get(7)?),
            });
        }
    }
    Ok(Part { rows: found, next: Some(end).filter(|_| !is_last) })
}

fn pattern(subject: Option<&str>) -> Option<SubjectPattern> {
    subject.and_then(|subject| subject.parse().ok())
}

/// Chooses the events of one step, from the oldest on.
pub(super) fn missing(connection: &Connection, backfill: &Backfill) -> rusqlite::Result<Missing> {
    let selection = select::events(connection, &backfill.filter)?;
    if selection.range.is_empty() {
        return Ok(Missing { events: Vec::new(), last: None });
    }
    let (end, is_last) = selection.part(connection, false)?;
    let limit = backfill.filter.limit.map_or(RUNS_CHUNK, |limit| RUNS_CHUNK.min(limit as usize));
    let mut values = selection.values;
    values.extend([*selection.range.start(), end].map(Value::from));
    values.push(backfill.plugin.to_string().into());
    let mut select = connection.prepare_cached(&format!(
        "SELECT x.seq, 0, x.key, x.source, x.subject, x.entity_type, x.operation, x.entity_id, x.tenant_id, x.timestamp,
           x.body_digest, x.attributes, x.entity, x.previous FROM event x
         WHERE {} AND x.seq BETWEEN ? AND ?
           AND NOT EXISTS (SELECT 1 FROM run r WHERE r.event_seq = x.seq AND r.plugin = ?)
         ORDER BY x.seq",
        selection.conditions
    ))?;
    let mut rows = select.query(params_from_iter(values))?;
    let subscribed: Vec<SubjectPattern> = backfill.subjects.iter().filter_map(|it| it.parse().ok()).collect();
    let only = pattern(backfill.filter.subject.as_deref());
    let (mut events, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let subject = row.get_ref(4)?.as_str()?;
        let is_meant = subscribed.iter().any(|pattern| pattern.matches(subject))
            && only.as_ref().is_none_or(|pattern| pattern.matches(subject));
        if !is_meant {
            continue;
        }
        let (seq, event) = (row.get(0)?, event_at(row)?);
        let order = if backfill.ordered { OrderKey::of(&event, &backfill.plugin) } else { None };
        bytes += event.content_bytes();
        events.push(Recorded { seq, bytes: event.content_bytes(), order });
        if events.len() == limit || bytes >= READ_BYTES_MAX {
            return Ok(Missing { events, last: Some(seq) });
        }
    }
    Ok(Missing { events, last: Some(end).filter(|_| !is_last) })
}

impl Group<'_> {
    /// Writes the runs of one step, pending and nobody's, until the plugin's backlog has no more room.
    pub(super) fn backfill(
        &mut self,
        backfill: &Backfill,
        missing: &Missing,
        now: Timestamp,
    ) -> rusqlite::Result<Backfilled> {
        let mut done = Backfilled { runs: 0, ..missing.counted() };
        for event in &missing.events {
            if let Some(full) = self.run_beyond(&backfill.plugin, event.bytes, backfill.backlog)? {
                done.full = Some(full.to_string());
                done.last = None;
                break;
            }
            done.runs += u64::from(self.backfill_one(backfill, event, now)?);
        }
        Ok(done)
    }

    /// Returns whether there is a run now that was not: the event may be gone, or have had its run since it was chosen.
    fn backfill_one(&mut self, backfill: &Backfill, event: &Recorded, now: Timestamp) -> rusqlite::Result<bool> {
        let run_count: Option<i64> = self
            .cached("SELECT run_count FROM event WHERE seq = ?1")?
            .query_row([event.seq], |row| row.get(0))
            .optional()?;
        let Some(run_count) = run_count else { return Ok(false) };
        let run = NewRun {
            plugin: Arc::clone(&backfill.plugin),
            start: RunStart::Pending(Claim::Open),
            terms: RunTerms { order: event.order, backlog: backfill.backlog },
        };
        let (seq, mut full): (_, Vec<(Arc<str>, Full)>) = (EventSeq(event.seq), Vec::new());
        if self.insert_run(seq, &run, event.bytes, now, &mut Arrived::default(), &mut full)? == 0 {
            return Ok(false);
        }
        self.cached("UPDATE event SET run_count = run_count + 1 WHERE seq = ?1")?.execute([event.seq])?;
        if run_count == 0 {
            self.tally.event(false, -1);
            self.tally.event(true, 1);
        }
        Ok(true)
    }
}
