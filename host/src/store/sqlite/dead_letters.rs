//! Dead letters: written when something dies, redriven, discarded.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::claims::Release;
use super::evict::LETTER_BYTES;
use super::group::Group;
use super::select;
use super::state::{RunState, parse_kind, unknown};
use super::writer::Outcome;
use crate::clock::Timestamp;
use crate::clock::passed::Passed;
use crate::dead_letter::Reason;
use crate::store::{DeadLetterFilter, DeadLetterKind, DeliverySeq, DeliveryState, Discarded, EventSeq, Pace, Redriven};

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
    pub(super) discarded: Discarded,
}

impl Outcome for Chunk {
    fn unwanted(self) -> Release {
        Release::default()
    }
}

/// Which dead letters a chunk is about.
pub(super) struct Choice {
    pub(super) ids: Vec<i64>,
    /// Where the next chunk goes on; none when nothing is left.
    pub(super) next: Option<i64>,
}

/// Chooses the oldest dead letters that `filter` means, up to `up_to`: what dies meanwhile is not meant. Looks at a bounded
/// part of them.
pub(super) fn choose(
    connection: &Connection,
    filter: &DeadLetterFilter,
    up_to: i64,
    limit: usize,
) -> rusqlite::Result<Choice> {
    let mut selection = select::letters(connection, filter)?;
    selection.narrow(0, up_to);
    if selection.range.is_empty() {
        return Ok(Choice { ids: Vec::new(), next: None });
    }
    let (end, is_last) = selection.part(connection, false)?;
    let mut values = selection.values;
    let limit = limit.min(CHUNK);
    let bounds = [*selection.range.start(), end, i64::try_from(limit).unwrap_or(i64::MAX)];
    values.extend(bounds.map(Value::from));
    let sql = format!(
        "SELECT x.id FROM dead_letter x WHERE {} AND x.id BETWEEN ? AND ? ORDER BY x.id LIMIT ?",
        selection.conditions
    );
    let ids: Vec<i64> = connection
        .prepare_cached(&sql)?
        .query_map(rusqlite::params_from_iter(values), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let next = if ids.len() == limit { ids.last().copied() } else { Some(end).filter(|_| !is_last) };
    Ok(Choice { ids, next })
}

/// A dead letter as far as mending it needs.
pub(super) struct Letter {
    id: i64,
    pub(super) kind: DeadLetterKind,
    reason: Reason,
    pub(super) event: Option<i64>,
    plugin: Option<Arc<str>>,
    delivery: Option<i64>,
    endpoint: Option<Arc<str>>,
    source: Arc<str>,
    bytes: i64,
}

impl Letter {
    pub(super) const COLUMNS: &'static str =
        "id, kind, reason, event_seq, plugin, delivery_seq, endpoint, source, bytes";

    pub(super) fn at(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            kind: parse_kind(row.get_ref(1)?.as_str()?)?,
            reason: reason_at(row, 2)?,
            event: row.get(3)?,
            plugin: row.get(4)?,
            delivery: row.get(5)?,
            endpoint: row.get(6)?,
            source: row.get(7)?,
            bytes: row.get(8)?,
        })
    }
}

pub(super) fn reason_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Reason> {
    let name = row.get_ref(column)?.as_str()?;
    name.parse().map_err(|_| unknown("reason", name))
}

impl Group<'_> {
    /// Writes the dead letter of a run or delivery. Its state is the caller's to change.
    pub(super) fn bury(&mut self, death: &Death<'_>) -> rusqlite::Result<()> {
        let mut insert = self.cached(
            "INSERT INTO dead_letter (kind, reason, detail, died_at, event_key, subject, source, event_seq, plugin,
               delivery_seq, endpoint, aged_from, bytes)
             SELECT ?1, ?2, ?3, ?4, key, subject, source, seq, ?6, ?7, (SELECT endpoint FROM delivery WHERE seq = ?7), ?8,
               ?9 + octet_length(?3) + coalesce((SELECT bytes FROM run WHERE event_seq = ?5 AND plugin = ?6), 0)
               + coalesce((SELECT bytes FROM delivery WHERE seq = ?7), 0)
               + coalesce((SELECT sum(coalesce(octet_length(response), 0) + coalesce(octet_length(error), 0))
                           FROM attempt WHERE delivery_seq = ?7), 0)
             FROM event WHERE seq = ?5 RETURNING coalesce(endpoint, plugin), bytes",
        )?;
        let written: Option<(Arc<str>, i64)> = insert
            .query_row(
                params![
                    death.kind.as_str(),
                    death.reason.as_str(),
                    death.detail,
                    death.died_at.0,
                    death.event.0,
                    death.plugin,
                    death.delivery.map(|seq| seq.0),
                    self.passed.0,
                    LETTER_BYTES,
                ],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        self.tally.dead_letter(death.reason, death.kind, 1);
        if let Some((name, bytes)) = written {
            self.letter_bytes(death.kind, name, bytes);
        }
        Ok(())
    }

    /// What dead letters of a source, plugin or endpoint keep has changed.
    pub(super) fn letter_bytes(&mut self, kind: DeadLetterKind, name: Arc<str>, change: i64) {
        let holder = (kind, name);
        self.letters.change(&holder, change);
        self.tally.letter_bytes(holder, change);
    }

    /// Redrives these; the first of them is the piece number `before` of the pace.
    pub(super) fn redrive_some(&mut self, ids: &[i64], pace: Pace, before: u64) -> rusqlite::Result<Chunk> {
        let mut chunk = Chunk::default();
        let mut plugins = BTreeSet::new();
        let mut endpoints = BTreeSet::new();
        for letter in self.letters(ids)? {
            chunk.redriven.last = Some(letter.id);
            let due_at = pace.due(before + chunk.redriven.runs + chunk.redriven.deliveries);
            match letter.kind {
                DeadLetterKind::Message => {
                    chunk.redriven.refused += 1;
                    continue;
                }
                DeadLetterKind::Run => {
                    self.revive_run(&letter, due_at)?;
                    chunk.redriven.runs += 1;
                    plugins.extend(letter.plugin.clone());
                }
                DeadLetterKind::Delivery => {
                    self.revive_delivery(&letter, due_at)?;
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

    pub(super) fn discard_some(&mut self, ids: &[i64]) -> rusqlite::Result<Chunk> {
        let mut chunk = Chunk::default();
        for letter in self.letters(ids)? {
            chunk.discarded.last = Some(letter.id);
            self.discard(&letter)?;
            chunk.discarded.count += 1;
        }
        Ok(chunk)
    }

    /// Discards the oldest dead letters of before `before`. Returns whether more remain.
    pub(super) fn discard_expired(&mut self, before: Passed) -> rusqlite::Result<bool> {
        let oldest: Vec<(Letter, bool)> = {
            let mut select = self.cached(&format!(
                "SELECT {}, coalesce(aged_from, min(died_at, ?2)) < ?1 FROM dead_letter ORDER BY id LIMIT {CHUNK}",
                Letter::COLUMNS
            ))?;
            let began = self.age.began();
            select
                .query_map((before.0, began.0), |row| Ok((Letter::at(row)?, row.get(9)?)))?
                .collect::<Result<_, _>>()?
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

    /// Those of them that are still there.
    fn letters(&self, ids: &[i64]) -> rusqlite::Result<Vec<Letter>> {
        let mut select = self.cached(&format!("SELECT {} FROM dead_letter WHERE id = ?1", Letter::COLUMNS))?;
        let mut letters = Vec::with_capacity(ids.len());
        for id in ids {
            letters.extend(select.query_row([id], Letter::at).optional()?);
        }
        Ok(letters)
    }

    /// Deletes the dead letters of an event, messages with its key among them; what became of its runs and deliveries is
    /// the caller's to say. Returns how many.
    pub(super) fn delete_letters_of(&mut self, event: i64, key: &str) -> rusqlite::Result<u64> {
        let letters: Vec<Letter> = self
            .cached(&format!(
                "SELECT {0} FROM dead_letter WHERE event_seq = ?1 UNION ALL
                 SELECT {0} FROM dead_letter WHERE event_key = ?2 AND reason = 'id_conflict'",
                Letter::COLUMNS
            ))?
            .query_map((event, key), Letter::at)?
            .collect::<Result<_, _>>()?;
        letters.iter().try_for_each(|letter| self.remove_letter(letter))?;
        Ok(letters.len() as u64)
    }

    pub(super) fn discard(&mut self, letter: &Letter) -> rusqlite::Result<()> {
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
    fn revive_run(&mut self, letter: &Letter, due_at: Timestamp) -> rusqlite::Result<()> {
        let bytes = self
            .cached(
                "UPDATE run SET state = 'pending', due_at = ?3, claimed_by = NULL, attempts_before_budget = attempts,
                   deadlines = 0, order_key = NULL WHERE event_seq = ?1 AND plugin = ?2 RETURNING bytes",
            )?
            .query_row((letter.event, &letter.plugin, due_at.0), |row| row.get(0))?;
        self.tally.run_bytes(letter.plugin.as_deref().unwrap_or_default(), bytes);
        self.tally_run(letter, RunState::Pending);
        Ok(())
    }

    fn revive_delivery(&mut self, letter: &Letter, due_at: Timestamp) -> rusqlite::Result<()> {
        let bytes = self
            .cached(
                "UPDATE delivery SET state = 'pending', due_at = ?2, claimed_by = NULL, attempts_before_budget = attempts,
                   order_key = NULL WHERE seq = ?1 RETURNING bytes",
            )?
            .query_row((letter.delivery, due_at.0), |row| row.get(0))?;
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
        let name = letter.endpoint.as_ref().or(letter.plugin.as_ref()).unwrap_or(&letter.source);
        self.letter_bytes(letter.kind, Arc::clone(name), -letter.bytes);
        Ok(())
    }
}
