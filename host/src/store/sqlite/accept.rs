//! Arrivals: deduplication, the event with its runs, messages that never became events.

use std::sync::Arc;

use rusqlite::params;

use super::backlog::{Full, size};
use super::claims::Release;
use super::evict::LETTER_BYTES;
use super::group::Group;
use super::state::{RunState, pairs_to_json, readable};
use super::writer::Outcome;
use crate::clock::Timestamp;
use crate::dead_letter::Reason;
use crate::event::{Event, EventKey};
use crate::store::{
    Acceptance, Accepted, Arrival, Claim, DeadLetterKind, DeadMessage, EventSeq, NewRun, RunStart, SourceCursor,
};

/// What became of arrivals, and which of their runs this host holds now.
#[derive(Default)]
pub(super) struct Arrived {
    pub(super) accepted: Accepted,
    pub(super) held: Vec<(EventSeq, Arc<str>)>,
}

impl Outcome for Arrived {
    fn unwanted(self) -> Release {
        Release { runs: self.held, deliveries: Vec::new() }
    }
}

/// Roughly what arrivals hold in memory, in bytes.
pub(super) fn bytes(arrivals: &[Arrival]) -> usize {
    const FIXED: usize = 512;
    let of = |arrival: &Arrival| match arrival {
        Arrival::Event { event, .. } => event.content_bytes(),
        Arrival::Dead(message) => message.payload.len() + message.detail.len(),
    };
    arrivals.iter().map(|arrival| FIXED + of(arrival)).sum()
}

enum Known {
    Fresh(EventSeq),
    Duplicate,
    Conflict,
}

impl Group<'_> {
    pub(super) fn accept(
        &mut self,
        arrivals: &[Arrival],
        cursor: Option<&SourceCursor>,
        now: Timestamp,
    ) -> rusqlite::Result<Arrived> {
        if let Some(SourceCursor { source, value }) = cursor {
            self.cached("INSERT OR REPLACE INTO source_cursor (source, value, kept_at) VALUES (?1, ?2, ?3)")?
                .execute((source, &value[..], now.0))?;
        }
        let mut arrived = Arrived::default();
        for arrival in arrivals {
            let acceptance = match arrival {
                Arrival::Event { event, runs } => self.accept_event(event, runs, now, &mut arrived)?,
                Arrival::Dead(message) => self.accept_dead(message, now)?,
            };
            arrived.accepted.acceptances.push(acceptance);
        }
        Ok(arrived)
    }

    fn accept_event(
        &mut self,
        event: &Event,
        runs: &[NewRun],
        now: Timestamp,
        arrived: &mut Arrived,
    ) -> rusqlite::Result<Acceptance> {
        match self.know(&event.key, &event.body_digest)? {
            Known::Duplicate => Ok(Acceptance::Duplicate),
            Known::Conflict => {
                self.keep_conflict(event, now)?;
                Ok(Acceptance::Conflict)
            }
            Known::Fresh(seq) => {
                let (mut run_count, mut full) = (0, Vec::new());
                for run in runs {
                    run_count += self.insert_run(seq, run, event.content_bytes(), now, arrived, &mut full)?;
                }
                self.insert_event(seq, event, run_count, now)?;
                self.tally.event(run_count > 0, 1);
                // A dead letter says what its event was, which is written by now.
                for (plugin, full) in full {
                    self.bury_run(seq, &plugin, &full, now)?;
                    arrived.accepted.refused.push((seq, plugin));
                }
                Ok(Acceptance::Fresh(seq))
            }
        }
    }

    fn accept_dead(&mut self, message: &DeadMessage, now: Timestamp) -> rusqlite::Result<Acceptance> {
        match self.know(&message.key, &message.body_digest)? {
            Known::Duplicate => Ok(Acceptance::Duplicate),
            Known::Conflict => {
                let detail = format!("{CONFLICT_DETAIL}; by itself it is {}: {}", message.reason, message.detail);
                self.keep_message(&DeadMessage { reason: Reason::IdConflict, detail, ..message.clone() }, now)?;
                Ok(Acceptance::Conflict)
            }
            Known::Fresh(_) => {
                self.keep_message(message, now)?;
                Ok(Acceptance::Dead)
            }
        }
    }

    /// Whether the key was met before. A fresh one is written down, with a position of its own.
    fn know(&mut self, key: &EventKey, body_digest: &[u8; 16]) -> rusqlite::Result<Known> {
        let seq = self.event_candidate();
        if self.hot.dedup_insert.execute((seq.0, key.as_str(), body_digest, self.passed.0))? == 1 {
            self.take_event();
            return Ok(Known::Fresh(seq));
        }
        let same =
            self.hot.dedup_digest.query_row([key.as_str()], |row| Ok(row.get_ref(0)?.as_bytes()? == body_digest))?;
        Ok(if same { Known::Duplicate } else { Known::Conflict })
    }

    fn insert_event(&mut self, seq: EventSeq, event: &Event, run_count: i64, now: Timestamp) -> rusqlite::Result<()> {
        let insert = &mut self.hot.event_insert;
        insert.execute(params![
            seq.0,
            now.0,
            run_count,
            event.key.as_str(),
            event.source,
            event.subject,
            event.entity_type,
            event.operation,
            event.entity_id,
            event.tenant_id,
            event.timestamp,
            event.body_digest,
            pairs_to_json(&event.attributes),
            event.entity.as_deref().map(readable),
            event.previous.as_deref().map(readable),
            self.passed.0,
        ])?;
        Ok(())
    }

    /// Returns how many rows that was: none for a plugin named twice. One that its backlog has no room for is written dead,
    /// and added to `full`.
    pub(super) fn insert_run(
        &mut self,
        seq: EventSeq,
        run: &NewRun,
        bytes: usize,
        now: Timestamp,
        arrived: &mut Arrived,
        full: &mut Vec<(Arc<str>, Full)>,
    ) -> rusqlite::Result<i64> {
        let beyond = self.run_beyond(&run.plugin, bytes, run.terms.backlog)?;
        let (state, claimed_by) = match run.start {
            _ if beyond.is_some() => (RunState::Dead, None),
            RunStart::Pending(Claim::Here) => (RunState::Pending, Some(self.host)),
            RunStart::Pending(Claim::Open) => (RunState::Pending, None),
            RunStart::Parked => (RunState::Parked, None),
        };
        let inserted = self.hot.run_insert.execute(params![
            seq.0,
            run.plugin,
            state.as_str(),
            now.0,
            claimed_by,
            run.terms.order.map(|key| key.0),
            size(bytes),
            beyond.as_ref().map(|_| now.0),
            beyond.as_ref().map(ToString::to_string),
            beyond.as_ref().map(|_| self.passed.0),
        ])?;
        if inserted == 0 {
            return Ok(0);
        }
        if claimed_by.is_some() {
            arrived.held.push((seq, Arc::clone(&run.plugin)));
        }
        self.tally.run(&run.plugin, state, 1);
        match beyond {
            Some(beyond) => full.push((Arc::clone(&run.plugin), beyond)),
            None => self.tally.run_bytes(&run.plugin, size(bytes)),
        }
        Ok(1)
    }

    fn keep_conflict(&mut self, event: &Event, now: Timestamp) -> rusqlite::Result<()> {
        let message = DeadMessage {
            key: event.key.clone(),
            source: Arc::clone(&event.source),
            subject: event.subject.as_str().into(),
            payload: event.entity.clone().unwrap_or_default(),
            body_digest: event.body_digest,
            reason: Reason::IdConflict,
            detail: CONFLICT_DETAIL.to_owned(),
        };
        self.keep_message(&message, now)
    }

    /// Keeps a message as a dead letter. A conflict that is kept already, and redelivered, is not kept twice.
    fn keep_message(&mut self, message: &DeadMessage, now: Timestamp) -> rusqlite::Result<()> {
        let texts = message.detail.len() + message.subject.len();
        let bytes = LETTER_BYTES.saturating_add(size(message.payload.len() + texts));
        let inserted = self
            .cached(
                "INSERT INTO dead_letter (kind, reason, detail, died_at, event_key, subject, source, body_digest, payload,
                   aged_from, bytes)
                 VALUES ('message', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                message.reason.as_str(),
                message.detail,
                now.0,
                message.key.as_str(),
                message.subject,
                message.source,
                message.body_digest,
                readable(&message.payload),
                self.passed.0,
                bytes,
            ])?;
        if inserted == 1 {
            self.letter_bytes(DeadLetterKind::Message, Arc::clone(&message.source), bytes);
            self.tally.dead_letter(message.reason, DeadLetterKind::Message, 1);
        }
        Ok(())
    }
}

/// What an operator reads beside `id_conflict`.
const CONFLICT_DETAIL: &str = "an earlier message carried this key with another body";
