//! From a filter to rows: a part of a long history at a time, so that no reader is held for long, and none of it at all
//! that is too old or too young.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension};

use super::lookup::{self, Names, Wanted};
use crate::clock::Timestamp;
use crate::delivery::DeliveryId;
use crate::store::{DeadLetterFilter, DeliveryFilter, DeliveryState, EventFilter};

/// Rows looked at in one read.
pub(super) const SLICE_ROWS: usize = 50_000;

/// Events of one entity that a filter means at most, the newest.
pub(super) const ENTITY_EVENTS_MAX: usize = 10_000;

/// By how much the clock may have been set back without a row being missed by its time.
const CLOCK_STEP_MAX: Duration = Duration::from_hours(2);

/// A table whose positions rise with time.
#[derive(Clone, Copy)]
pub(super) struct Log {
    table: &'static str,
    position: &'static str,
    time: &'static str,
}

pub(super) const DELIVERIES: Log = Log { table: "delivery", position: "seq", time: "created_at" };
pub(super) const LETTERS: Log = Log { table: "dead_letter", position: "id", time: "died_at" };

pub(super) const EVENTS: Log = Log { table: "event", position: "seq", time: "accepted_at" };

/// What a filter comes to.
pub(super) struct Selection {
    log: Log,
    /// The positions that are worth a look.
    pub(super) range: RangeInclusive<i64>,
    /// Conditions on the row, which is called `x`.
    pub(super) conditions: String,
    pub(super) values: Vec<Value>,
    /// The positions are named one by one: there are no others to be looked at.
    named: bool,
}

impl Selection {
    fn new(
        connection: &Connection,
        log: Log,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> rusqlite::Result<Self> {
        let from = match since {
            Some(since) => log.first_from(connection, since.minus(CLOCK_STEP_MAX))?,
            None => 0,
        };
        let to = match until {
            Some(until) => log.first_from(connection, until.plus(CLOCK_STEP_MAX))?.saturating_sub(1),
            None => i64::MAX,
        };
        let mut selection =
            Self { log, range: from..=to, conditions: String::from("1"), values: Vec::new(), named: false };
        if let Some(since) = since {
            selection.add(&format!("x.{} >= ?", log.time), [since.0.into()]);
        }
        if let Some(until) = until {
            selection.add(&format!("x.{} < ?", log.time), [until.0.into()]);
        }
        Ok(selection)
    }

    fn add(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.conditions.push_str(" AND ");
        self.conditions.push_str(condition);
        self.values.extend(values);
    }

    fn equal<'v>(&mut self, pairs: impl IntoIterator<Item = (&'static str, Option<&'v str>)>) {
        for (column, value) in pairs {
            if let Some(value) = value {
                self.add(&format!("x.{column} = ?"), [value.to_owned().into()]);
            }
        }
    }

    fn name(&mut self, positions: &[i64]) {
        self.named = true;
        self.add(&format!("x.{} IN (SELECT value FROM json_each(?))", self.log.position), [as_json(positions)]);
        let least = positions.iter().min().copied().unwrap_or(1);
        let most = positions.iter().max().copied().unwrap_or(0);
        self.narrow(least, most);
    }

    /// Leaves only what lies within.
    pub(super) fn narrow(&mut self, from: i64, to: i64) {
        self.range = (*self.range.start()).max(from)..=(*self.range.end()).min(to);
    }

    /// The end of the next part of the range, counted from its low or its high end, and whether it is the last part.
    pub(super) fn part(&self, connection: &Connection, newest_first: bool) -> rusqlite::Result<(i64, bool)> {
        let last = if newest_first { *self.range.start() } else { *self.range.end() };
        if self.named {
            return Ok((last, true));
        }
        let Log { table, position, .. } = self.log;
        let order = if newest_first { "DESC" } else { "ASC" };
        let end: Option<i64> = connection
            .prepare_cached(&format!(
                "SELECT {position} FROM {table} WHERE {position} BETWEEN ?1 AND ?2 ORDER BY {position} {order}
                 LIMIT 1 OFFSET ?3"
            ))?
            .query_row((self.range.start(), self.range.end(), SLICE_ROWS as i64 - 1), |row| row.get(0))
            .optional()?;
        Ok(end.map_or((last, true), |end| (end, false)))
    }
}

impl Log {
    /// The first position whose row is of `moment` or later; one after the last where there is none.
    ///
    /// Where the clock went back, rows before it may be later and rows after it earlier, by as much as the clock went.
    fn first_from(self, connection: &Connection, moment: Timestamp) -> rusqlite::Result<i64> {
        let Self { table, position, time } = self;
        let bounds = format!("SELECT coalesce(min({position}), 0), coalesce(max({position}), 0) + 1 FROM {table}");
        let (mut low, mut high): (i64, i64) =
            connection.prepare_cached(&bounds)?.query_row((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut next = connection.prepare_cached(&format!(
            "SELECT {position}, {time} FROM {table} WHERE {position} >= ?1 ORDER BY {position} LIMIT 1"
        ))?;
        while low < high {
            let middle = low + (high - low) / 2;
            let found: Option<(i64, i64)> =
                next.query_row([middle], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            match found {
                Some((at, time)) if time < moment.0 => low = at + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}

fn as_json(numbers: &[i64]) -> Value {
    serde_json::to_string(numbers).unwrap_or_else(|_| "[]".to_owned()).into()
}

/// What a filter of deliveries comes to.
pub(super) fn deliveries(connection: &Connection, filter: &DeliveryFilter) -> rusqlite::Result<Selection> {
    let mut selection = Selection::new(connection, DELIVERIES, filter.since, filter.until)?;
    if let Some(before) = filter.before {
        selection.narrow(0, before.0.saturating_sub(1));
    }
    selection.equal([
        ("endpoint", filter.endpoint.as_deref()),
        ("plugin", filter.plugin.as_deref()),
        ("state", filter.state.map(DeliveryState::as_str)),
    ]);
    if filter.waiting {
        selection.add("x.state IN ('pending', 'retrying')", []);
    }
    if let Some(configured) = &filter.parked_beside {
        let configured = serde_json::to_string(configured).unwrap_or_else(|_| "[]".to_owned());
        let parked = "x.state IN ('pending', 'retrying') AND x.endpoint NOT IN (SELECT value FROM json_each(?))";
        selection.add(parked, [configured.into()]);
    }
    if let Some(reason) = filter.reason {
        let died = "x.state = 'dead' AND EXISTS (SELECT 1 FROM dead_letter l WHERE l.event_seq = x.event_seq
                      AND l.plugin = x.plugin AND l.delivery_seq = x.seq AND l.reason = ?)";
        selection.add(died, [reason.as_str().to_owned().into()]);
    }
    if !filter.ids.is_empty() {
        let ids: Vec<&str> = filter.ids.iter().map(DeliveryId::as_str).collect();
        selection.name(&deliveries_named(connection, &ids)?);
    }
    if let Some(events) = events_meant(connection, filter.event_key.as_deref(), filter.entity_id.as_deref())? {
        let positions = deliveries_of(connection, &events)?;
        selection.name(&positions);
    }
    Ok(selection)
}

/// What a filter of dead letters comes to.
pub(super) fn letters(connection: &Connection, filter: &DeadLetterFilter) -> rusqlite::Result<Selection> {
    let mut selection = Selection::new(connection, LETTERS, filter.since, filter.until)?;
    let from = filter.after.map_or(0, |after| after.saturating_add(1));
    selection.narrow(from, filter.before.map_or(i64::MAX, |before| before.saturating_sub(1)));
    selection.equal([
        ("endpoint", filter.endpoint.as_deref()),
        ("plugin", filter.plugin.as_deref()),
        ("reason", filter.reason.map(|reason| reason.as_str())),
    ]);
    if let Some(digest) = &filter.plugin_digest {
        selection.add(
            "x.kind = 'run' AND EXISTS (SELECT 1 FROM run WHERE run.event_seq = x.event_seq AND run.plugin = x.plugin
               AND run.plugin_digest = ?)",
            [digest.clone().into()],
        );
    }
    if !filter.ids.is_empty() {
        selection.name(&filter.ids);
    }
    if let Some(key) = &filter.event_key {
        // Messages that never became events have their key here alone.
        selection.add("x.event_key = ?", [key.clone().into()]);
    }
    if let Some(entity) = &filter.entity_id {
        let events = events_of_entity(connection, entity, None)?;
        selection.add("x.event_seq IN (SELECT value FROM json_each(?))", [as_json(&events)]);
    }
    Ok(selection)
}

/// What a filter of events comes to, but for its subject: that is for the reader to see.
pub(super) fn events(connection: &Connection, filter: &EventFilter) -> rusqlite::Result<Selection> {
    let mut selection = Selection::new(connection, EVENTS, filter.since, filter.until)?;
    let from = filter.after.map_or(0, |after| after.0.saturating_add(1));
    selection.narrow(from, filter.before.map_or(i64::MAX, |before| before.0.saturating_sub(1)));
    selection.equal([("source", filter.source.as_deref())]);
    if filter.unrouted {
        selection.add("x.run_count = 0", []);
    }
    Ok(selection)
}

/// The newest delivery with this id.
pub(super) fn delivery_named(connection: &Connection, id: &str) -> rusqlite::Result<Option<i64>> {
    let is = |seq: i64| is_named(connection, "SELECT id = ?2 FROM delivery WHERE seq = ?1", seq, id);
    Ok(lookup::find(connection, Names::Deliveries, &Wanted::exactly(id), 1, is)?.pop())
}

/// For each of these ids the newest delivery, looked for all at once.
fn deliveries_named(connection: &Connection, ids: &[&str]) -> rusqlite::Result<Vec<i64>> {
    let mut missing: HashSet<&str> = ids.iter().copied().collect();
    let (wanted, count) = (Wanted::one_of(ids.iter().copied()), missing.len());
    lookup::find(connection, Names::Deliveries, &wanted, count, |seq| {
        let id: Option<String> = connection
            .prepare_cached("SELECT id FROM delivery WHERE seq = ?1")?
            .query_row([seq], |row| row.get(0))
            .optional()?;
        Ok(id.is_some_and(|id| missing.remove(id.as_str())))
    })
}

/// The newest events of the entity with exactly this id, and of this type where one is named, newest first.
pub(super) fn events_of_entity(
    connection: &Connection,
    entity: &str,
    entity_type: Option<&str>,
) -> rusqlite::Result<Vec<i64>> {
    let mut select = connection
        .prepare_cached("SELECT entity_id = ?2 AND (?3 IS NULL OR entity_type = ?3) FROM event WHERE seq = ?1")?;
    let is = |seq: i64| {
        let same = select.query_row((seq, entity, entity_type), |row| row.get::<_, Option<bool>>(0)).optional()?;
        Ok(same.flatten().unwrap_or(false))
    };
    lookup::find(connection, Names::Entities, &Wanted::exactly(entity), ENTITY_EVENTS_MAX, is)
}

fn is_named(connection: &Connection, sql: &str, seq: i64, name: &str) -> rusqlite::Result<bool> {
    let same =
        connection.prepare_cached(sql)?.query_row((seq, name), |row| row.get::<_, Option<bool>>(0)).optional()?;
    Ok(same.flatten().unwrap_or(false))
}

/// The event with this key. Keys are forgotten earlier than some events: those are looked for one by one.
pub(super) fn event_with_key(connection: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    let known: Option<i64> = connection
        .prepare_cached("SELECT e.seq FROM dedup d JOIN event e ON e.seq = d.seq WHERE d.key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    if known.is_some() {
        return Ok(known);
    }
    connection
        .prepare_cached(
            "SELECT seq FROM event WHERE key = ?1 AND seq < (SELECT coalesce(min(seq), 9e18) FROM dedup)
             ORDER BY seq DESC LIMIT 1",
        )?
        .query_row([key], |row| row.get(0))
        .optional()
}

fn events_meant(
    connection: &Connection,
    key: Option<&str>,
    entity: Option<&str>,
) -> rusqlite::Result<Option<Vec<i64>>> {
    let by_key = key.map(|key| event_with_key(connection, key)).transpose()?;
    let by_key = by_key.map(|seq| seq.into_iter().collect::<Vec<_>>());
    let by_entity = entity.map(|entity| events_of_entity(connection, entity, None)).transpose()?;
    Ok(match (by_key, by_entity) {
        (Some(mut by_key), Some(by_entity)) => {
            by_key.retain(|seq| by_entity.contains(seq));
            Some(by_key)
        }
        (by_key, by_entity) => by_key.or(by_entity),
    })
}

/// The positions of all deliveries of these events.
pub(super) fn deliveries_of(connection: &Connection, events: &[i64]) -> rusqlite::Result<Vec<i64>> {
    let mut runs = connection.prepare_cached(
        "SELECT delivery_from, delivery_count FROM run WHERE event_seq = ?1 AND delivery_from IS NOT NULL",
    )?;
    let mut positions = Vec::new();
    for event in events {
        let mut rows = runs.query([event])?;
        while let Some(row) = rows.next()? {
            let (from, count): (i64, i64) = (row.get(0)?, row.get(1)?);
            positions.extend(from..from.saturating_add(count));
        }
    }
    Ok(positions)
}
