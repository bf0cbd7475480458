//! Dead letters: written when something dies, redriven, discarded.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Row, params};

use super::claims::Release;
use super::group::Group;
use super::state::{RunState, parse_kind, unknown};
use super::writer::Outcome;
use crate::clock::Timestamp;
use crate::dead_letter::Reason;
use crate::store::{DeadLetterFilter, DeadLetterKind, DeliverySeq, DeliveryState, EventSeq, Redriven};

/// Dead letters redriven, discarded or swept in one commit.
pub(super) const CHUNK: usize = 1_000;

/// A run or delivery that just died.
pub(super) struct Death<'a> {
    pub(super) kind: DeadLetterKind,
    pub(super) reason: Reason,
    pub(super) detail: &'a str,
    pub(super) died_at: Timestamp,
    pub(super) event: EventSeq,
    pub(super) plugin: &'a str,
    pub(super) delivery: Option<DeliverySeq>,
}

/// One chunk of a redrive or a discard.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) redriven: Redriven,
    pub(super) discarded: u64,
    /// The last dead letter looked at; `None` when the chunk found none.
    pub(super) last: Option<i64>,
}

impl Outcome for Chunk {
    fn unwanted(self) -> Release {
        Release::default()
    }
}

/// Which part of the dead letters a chunk is about.
pub(super) struct Range<'f> {
    pub(super) filter: &'f DeadLetterFilter,
    /// Only those after this one.
    pub(super) after: i64,
    /// Only those up to this one: what dies meanwhile is not meant.
    pub(super) up_to: i64,
    pub(super) limit: usize,
}

/// A dead letter as far as mending it needs.
struct Letter {
    id: i64,
    kind: DeadLetterKind,
    reason: Reason,
    event: Option<i64>,
    plugin: Option<Arc<str>>,
    delivery: Option<i64>,
    endpoint: Option<Arc<str>>,
}

impl Letter {
    const COLUMNS: &'static str = "id, kind, reason, event_seq, plugin, delivery_seq, endpoint";

    fn at(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            kind: parse_kind(row.get_ref(1)?.as_str()?)?,
            reason: reason_at(row, 2)?,
            event: row.get(3)?,
            plugin: row.get(4)?,
            delivery: row.get(5)?,
            endpoint: row.get(6)?,
        })
    }
}

pub(super) fn reason_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Reason> {
    let name = row.get_ref(column)?.as_str()?;
    name.parse().map_err(|_| unknown("reason", name))
}

/// The conditions of a filter over `dead_letter`, with their values.
pub(super) fn conditions(filter: &DeadLetterFilter) -> (String, Vec<Value>) {
    let mut sql = String::from("1");
    let mut values: Vec<Value> = Vec::new();
    if !filter.ids.is_empty() {
        // As one JSON value: there may be more ids than a statement may have parameters.
        sql.push_str(" AND id IN (SELECT value FROM json_each(?))");
        values.push(serde_json::to_string(&filter.ids).unwrap_or_else(|_| "[]".to_owned()).into());
    }
    let equal = [
        ("endpoint", filter.endpoint.clone()),
        ("plugin", filter.plugin.clone()),
        ("reason", filter.reason.map(|reason| reason.as_str().to_owned())),
    ];
    for (column, value) in equal {
        if let Some(value) = value {
            sql.push_str(&format!(" AND {column} = ?"));
            values.push(value.into());
        }
    }
    if let Some(digest) = &filter.plugin_digest {
        sql.push_str(
            " AND kind = 'run' AND EXISTS (SELECT 1 FROM run WHERE run.event_seq = dead_letter.event_seq
               AND run.plugin = dead_letter.plugin AND run.plugin_digest = ?)",
        );
        values.push(digest.clone().into());
    }
    (sql, values)
}

impl Group<'_> {
    /// Writes the dead letter of a run or delivery. Its state is the caller's to change.
    pub(super) fn bury(&mut self, death: &Death<'_>) -> rusqlite::Result<()> {
        self.cached(
            "INSERT INTO dead_letter (kind, reason, detail, died_at, event_key, subject, source, event_seq, plugin,
               delivery_seq, endpoint)
             SELECT ?1, ?2, ?3, ?4, key, subject, source, seq, ?6, ?7, (SELECT endpoint FROM delivery WHERE seq = ?7)
             FROM event WHERE seq = ?5",
        )?
        .execute(params![
            death.kind.as_str(),
            death.reason.as_str(),
            death.detail,
            death.died_at.0,
            death.event.0,
            death.plugin,
            death.delivery.map(|seq| seq.0),
        ])?;
        self.tally.dead_letter(death.reason, death.kind, 1);
        Ok(())
    }

    pub(super) fn redrive_some(&mut self, range: &Range<'_>, now: Timestamp) -> rusqlite::Result<Chunk> {
        let mut chunk = Chunk::default();
        let mut plugins = BTreeSet::new();
        let mut endpoints = BTreeSet::new();
        for letter in self.letters(range)? {
            chunk.last = Some(letter.id);
            match letter.kind {
                DeadLetterKind::Message => {
                    chunk.redriven.refused += 1;
                    continue;
                }
                DeadLetterKind::Run => {
                    self.revive_run(&letter, now)?;
                    chunk.redriven.runs += 1;
                    plugins.extend(letter.plugin.clone());
                }
                DeadLetterKind::Delivery => {
                    self.revive_delivery(&letter, now)?;
                    chunk.redriven.deliveries += 1;
                    endpoints.extend(letter.endpoint.clone());
                }
            }
            self.remove_letter(&letter)?;
        }
        chunk.redriven.plugins = plugins.into_iter().collect();
        chunk.redriven.endpoints = endpoints.into_iter().collect();
        Ok(chunk)
    }

    pub(super) fn discard_some(&mut self, range: &Range<'_>) -> rusqlite::Result<Chunk> {
        let mut chunk = Chunk::default();
        for letter in self.letters(range)? {
            chunk.last = Some(letter.id);
            self.discard(&letter)?;
            chunk.discarded += 1;
        }
        Ok(chunk)
    }

    /// Discards the oldest dead letters of before `before`. Returns whether more remain.
    pub(super) fn discard_expired(&mut self, before: Timestamp) -> rusqlite::Result<bool> {
        let oldest: Vec<(Letter, bool)> = {
            let mut select = self.cached(&format!(
                "SELECT {}, died_at < ?1 FROM dead_letter ORDER BY id LIMIT {CHUNK}",
                Letter::COLUMNS
            ))?;
            select.query_map([before.0], |row| Ok((Letter::at(row)?, row.get(7)?)))?.collect::<Result<_, _>>()?
        };
        let full = oldest.len() == CHUNK;
        let mut all_expired = true;
        for (letter, expired) in oldest {
            if expired {
                self.discard(&letter)?;
            } else {
                all_expired = false;
            }
        }
        Ok(full && all_expired)
    }

    fn letters(&self, range: &Range<'_>) -> rusqlite::Result<Vec<Letter>> {
        let (conditions, mut values) = conditions(range.filter);
        values.extend([
            Value::from(range.after),
            Value::from(range.up_to),
            Value::from(i64::try_from(range.limit.min(CHUNK)).unwrap_or(i64::MAX)),
        ]);
        let columns = Letter::COLUMNS;
        self.cached(&format!(
            "SELECT {columns} FROM dead_letter WHERE {conditions} AND id > ? AND id <= ? ORDER BY id LIMIT ?"
        ))?
        .query_map(rusqlite::params_from_iter(values), Letter::at)?
        .collect()
    }

    fn discard(&mut self, letter: &Letter) -> rusqlite::Result<()> {
        match letter.kind {
            DeadLetterKind::Message => {}
            DeadLetterKind::Run => {
                self.cached("UPDATE run SET state = 'discarded' WHERE event_seq = ?1 AND plugin = ?2")?
                    .execute((letter.event, &letter.plugin))?;
                self.tally_run(letter, RunState::Discarded);
            }
            DeadLetterKind::Delivery => {
                self.cached("UPDATE delivery SET state = 'discarded' WHERE seq = ?1")?.execute([letter.delivery])?;
                self.tally_delivery(letter, DeliveryState::Discarded);
            }
        }
        self.remove_letter(letter)
    }

    /// Out of order from now on: it neither waits for its entity's other deliveries nor keeps them waiting.
    fn revive_run(&mut self, letter: &Letter, now: Timestamp) -> rusqlite::Result<()> {
        let bytes = self
            .cached(
                "UPDATE run SET state = 'pending', due_at = ?3, claimed_by = NULL, attempts_before_budget = attempts,
                   order_key = NULL WHERE event_seq = ?1 AND plugin = ?2 RETURNING bytes",
            )?
            .query_row((letter.event, &letter.plugin, now.0), |row| row.get(0))?;
        self.tally.run_bytes(letter.plugin.as_deref().unwrap_or_default(), bytes);
        self.tally_run(letter, RunState::Pending);
        Ok(())
    }

    fn revive_delivery(&mut self, letter: &Letter, now: Timestamp) -> rusqlite::Result<()> {
        let bytes = self
            .cached(
                "UPDATE delivery SET state = 'pending', due_at = ?2, claimed_by = NULL, attempts_before_budget = attempts,
                   order_key = NULL WHERE seq = ?1 RETURNING bytes",
            )?
            .query_row((letter.delivery, now.0), |row| row.get(0))?;
        self.tally.delivery_bytes(letter.endpoint.as_deref().unwrap_or_default(), bytes);
        self.tally_delivery(letter, DeliveryState::Pending);
        Ok(())
    }

    fn tally_run(&mut self, letter: &Letter, to: RunState) {
        let plugin = letter.plugin.as_deref().unwrap_or_default();
        self.tally.run(plugin, RunState::Dead, -1);
        self.tally.run(plugin, to, 1);
    }

    fn tally_delivery(&mut self, letter: &Letter, to: DeliveryState) {
        let endpoint = letter.endpoint.as_deref().unwrap_or_default();
        self.tally.delivery(endpoint, DeliveryState::Dead, -1);
        self.tally.delivery(endpoint, to, 1);
    }

    fn remove_letter(&mut self, letter: &Letter) -> rusqlite::Result<()> {
        self.cached("DELETE FROM dead_letter WHERE id = ?1")?.execute([letter.id])?;
        self.tally.dead_letter(letter.reason, letter.kind, -1);
        Ok(())
    }
}
