//! Where something is: from whatever name of it to the event, and from there to everything that came of it.

use rusqlite::{Connection, OptionalExtension};

use super::dead_letters::reason_at;
use super::lookup::{self, Names, Wanted};
use super::queries::{DELIVERY_COLUMNS, delivery_at, last_attempts, list_dead_letters};
use super::select;
use super::state::pairs_at;
use crate::clock::Timestamp;
use crate::store::{
    Candidate, DeadLetterFilter, DeadLetterSummary, DeliveryTrace, EventSeq, EventTrace, Found, LetterMark, RunTrace,
    Sought,
};

/// Events of one entity that a trace shows, the newest.
const EVENTS_SHOWN_MAX: usize = 20;

/// Things that may be meant, of which a trace tells.
const CANDIDATES_MAX: usize = 20;

/// Events looked at for what a beginning may mean.
const BEGINNING_EVENTS_MAX: usize = 1_000;

/// Attempts shown with a delivery, the last.
const ATTEMPTS_SHOWN_MAX: u32 = 5;

/// Deliveries shown with a run: more than any plugin may produce.
const DELIVERIES_SHOWN_MAX: u32 = 100;

/// Conflicts shown with an event.
const CONFLICTS_SHOWN_MAX: u32 = 20;

pub(super) fn trace(connection: &Connection, sought: &Sought) -> rusqlite::Result<Vec<Found>> {
    match sought {
        Sought::Event(seq) => Ok(event(connection, seq.0)?.into_iter().collect()),
        Sought::DeadLetter(id) => dead_letter(connection, *id),
        Sought::Entity(id) => events(connection, select::events_of_entity(connection, id, None)?),
        Sought::Any(text) => any(connection, text),
    }
}

/// What a name is of, tried from what says most about itself to what says least.
fn any(connection: &Connection, text: &str) -> rusqlite::Result<Vec<Found>> {
    if let Some(delivery) = select::delivery_named(connection, text)? {
        let seq = "SELECT event_seq FROM delivery WHERE seq = ?1";
        let seq: i64 = connection.query_row(seq, [delivery], |row| row.get(0))?;
        return Ok(event(connection, seq)?.into_iter().collect());
    }
    if text.contains('/') {
        let found = by_key(connection, text)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let of_entity = select::events_of_entity(connection, text, None)?;
    let numbered = text.parse().map_or(Ok(Vec::new()), |number| by_number(connection, number))?;
    match (of_entity.is_empty(), numbered.len()) {
        (false, 0) => return events(connection, of_entity),
        (true, 1) => return Ok(numbered.into_iter().flat_map(|(_, found)| found).collect()),
        (is_no_entity, 1..) => {
            let entity = (!is_no_entity).then(|| Candidate {
                id: format!("entity:{text}"),
                what: format!("the entity of {} events", of_entity.len()),
            });
            let numbered = numbered.into_iter().map(|(candidate, _)| candidate);
            return Ok(entity.into_iter().chain(numbered).map(Found::Candidate).collect());
        }
        (true, 0) => {}
    }
    by_beginning(connection, text)
}

fn by_key(connection: &Connection, key: &str) -> rusqlite::Result<Vec<Found>> {
    if let Some(seq) = select::event_with_key(connection, key)? {
        return Ok(event(connection, seq)?.into_iter().collect());
    }
    let filter = DeadLetterFilter { event_key: Some(key.to_owned()), ..DeadLetterFilter::default() };
    let mut part = list_dead_letters(connection, &filter, CANDIDATES_MAX)?;
    while let (true, Some(next)) = (part.rows.is_empty(), part.next) {
        part =
            list_dead_letters(connection, &DeadLetterFilter { before: Some(next), ..filter.clone() }, CANDIDATES_MAX)?;
    }
    Ok(part.rows.into_iter().map(|letter| Found::Message(Box::new(letter))).collect())
}

/// What a number may be the position or the id of.
fn by_number(connection: &Connection, number: i64) -> rusqlite::Result<Vec<(Candidate, Vec<Found>)>> {
    let mut found = Vec::new();
    if let Some(Found::Event(trace)) = event(connection, number)? {
        let what = format!("the event {} of {}", trace.key, trace.subject);
        found.push((Candidate { id: format!("event:{number}"), what }, vec![Found::Event(trace)]));
    }
    if let Some(letter) = letter(connection, number)? {
        let what = format!("the dead letter {} of {}", letter.reason, letter.subject);
        let candidate = Candidate { id: format!("dead-letter:{number}"), what };
        found.push((candidate, dead_letter(connection, number)?));
    }
    Ok(found)
}

/// The entity whose id begins so, where there is only one, or those that there are.
fn by_beginning(connection: &Connection, text: &str) -> rusqlite::Result<Vec<Found>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut entities: Vec<(String, String)> = Vec::new();
    let mut seen = 0;
    let sql = "SELECT entity_id, entity_type FROM event WHERE seq = ?1";
    lookup::find(connection, Names::Entities, &Wanted::beginning(text), BEGINNING_EVENTS_MAX, |seq| {
        let entity: Option<(Option<String>, String)> =
            connection.prepare_cached(sql)?.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((Some(id), kind)) = entity.filter(|(id, _)| id.as_ref().is_some_and(|id| id.starts_with(text))) else {
            return Ok(false);
        };
        seen += 1;
        if !entities.iter().any(|(known, _)| *known == id) && entities.len() < CANDIDATES_MAX {
            entities.push((id, kind));
        }
        Ok(true)
    })?;
    match &entities[..] {
        [] => Ok(Vec::new()),
        [(id, _)] => events(connection, select::events_of_entity(connection, id, None)?),
        _ => {
            let candidate = |(id, kind): (String, String)| Candidate { id, what: format!("the {kind}") };
            Ok(entities.into_iter().map(candidate).map(Found::Candidate).collect())
        }
    }
}

/// The newest of these, oldest first; they come newest first.
fn events(connection: &Connection, seqs: Vec<i64>) -> rusqlite::Result<Vec<Found>> {
    let mut found = Vec::new();
    for seq in seqs.into_iter().take(EVENTS_SHOWN_MAX).rev() {
        found.extend(event(connection, seq)?);
    }
    Ok(found)
}

fn dead_letter(connection: &Connection, id: i64) -> rusqlite::Result<Vec<Found>> {
    let sql = "SELECT event_seq FROM dead_letter WHERE id = ?1";
    let of_event: Option<Option<i64>> = connection.query_row(sql, [id], |row| row.get(0)).optional()?;
    Ok(match of_event {
        None => Vec::new(),
        Some(Some(seq)) => event(connection, seq)?.into_iter().collect(),
        Some(None) => letter(connection, id)?.map(|letter| Found::Message(Box::new(letter))).into_iter().collect(),
    })
}

fn letter(connection: &Connection, id: i64) -> rusqlite::Result<Option<DeadLetterSummary>> {
    let filter = DeadLetterFilter { ids: vec![id], ..DeadLetterFilter::default() };
    Ok(list_dead_letters(connection, &filter, 1)?.rows.pop())
}

fn event(connection: &Connection, seq: i64) -> rusqlite::Result<Option<Found>> {
    let mut select = connection.prepare_cached(
        "SELECT key, source, subject, entity_type, operation, entity_id, tenant_id, timestamp, accepted_at, attributes
         FROM event WHERE seq = ?1",
    )?;
    let trace = select
        .query_row([seq], |row| {
            Ok(EventTrace {
                seq: EventSeq(seq),
                key: row.get(0)?,
                source: row.get(1)?,
                subject: row.get(2)?,
                entity_type: row.get(3)?,
                operation: row.get(4)?,
                entity_id: row.get(5)?,
                tenant_id: row.get(6)?,
                timestamp: row.get(7)?,
                accepted_at: Timestamp(row.get(8)?),
                attributes: pairs_at(row, 9)?,
                runs: Vec::new(),
                conflicts: Vec::new(),
            })
        })
        .optional()?;
    let Some(mut trace) = trace else { return Ok(None) };
    let letters = letters_of(connection, seq)?;
    trace.runs = runs(connection, seq, &letters)?;
    trace.conflicts = conflicts(connection, &trace.key)?;
    Ok(Some(Found::Event(Box::new(trace))))
}

/// A dead letter, and of which run and delivery.
type Letter = (String, Option<i64>, LetterMark);

fn letters_of(connection: &Connection, event: i64) -> rusqlite::Result<Vec<Letter>> {
    connection
        .prepare_cached(
            "SELECT plugin, delivery_seq, id, reason, detail, died_at FROM dead_letter WHERE event_seq = ?1",
        )?
        .query_map([event], |row| Ok((row.get(0)?, row.get(1)?, mark_at(row, 2)?)))?
        .collect()
}

fn mark_at(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<LetterMark> {
    Ok(LetterMark {
        id: row.get(first)?,
        reason: reason_at(row, first + 1)?,
        detail: row.get(first + 2)?,
        died_at: Timestamp(row.get(first + 3)?),
    })
}

fn conflicts(connection: &Connection, key: &str) -> rusqlite::Result<Vec<LetterMark>> {
    connection
        .prepare_cached(
            "SELECT id, reason, detail, died_at FROM dead_letter WHERE event_key = ?1 AND reason = 'id_conflict'
             ORDER BY id LIMIT ?2",
        )?
        .query_map((key, CONFLICTS_SHOWN_MAX), |row| mark_at(row, 0))?
        .collect()
}

fn mark_of(letters: &[Letter], plugin: &str, delivery: Option<i64>) -> Option<LetterMark> {
    let of = |letter: &&Letter| letter.0 == plugin && letter.1 == delivery;
    letters.iter().find(of).map(|(_, _, mark)| mark.clone())
}

fn runs(connection: &Connection, event: i64, letters: &[Letter]) -> rusqlite::Result<Vec<RunTrace>> {
    let mut select = connection.prepare_cached(
        "SELECT plugin, state, claimed_by IS (SELECT max(id) FROM host), attempts, due_at, ended_at, plugin_digest, detail,
           coalesce(delivery_from, 0), delivery_count
         FROM run WHERE event_seq = ?1 ORDER BY plugin",
    )?;
    let mut rows = select.query([event])?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()? {
        let plugin: String = row.get(0)?;
        let state: String = row.get(1)?;
        let waits = matches!(state.as_str(), "pending" | "retrying");
        runs.push(RunTrace {
            in_flight: waits && row.get(2)?,
            attempts: row.get(3)?,
            due_at: if waits { Some(Timestamp(row.get(4)?)) } else { None },
            ended_at: row.get::<_, Option<i64>>(5)?.map(Timestamp),
            plugin_digest: row.get(6)?,
            detail: row.get(7)?,
            dead_letter: mark_of(letters, &plugin, None),
            deliveries: deliveries(connection, &plugin, (row.get(8)?, row.get(9)?), letters)?,
            plugin,
            state,
        });
    }
    Ok(runs)
}

fn deliveries(
    connection: &Connection,
    plugin: &str,
    (first, count): (i64, i64),
    letters: &[Letter],
) -> rusqlite::Result<Vec<DeliveryTrace>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT {DELIVERY_COLUMNS}, x.claimed_by IS NOT NULL
         FROM delivery x LEFT JOIN event e ON e.seq = x.event_seq
         WHERE x.seq >= ?1 AND x.seq < ?1 + ?2 ORDER BY x.seq LIMIT ?3"
    ))?;
    let mut rows = select.query((first, count, DELIVERIES_SHOWN_MAX))?;
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next()? {
        let summary = delivery_at(row)?;
        deliveries.push(DeliveryTrace {
            in_flight: summary.due_at.is_some() && row.get(12)?,
            dead_letter: mark_of(letters, plugin, Some(summary.seq.0)),
            last_attempts: last_attempts(connection, summary.seq.0, ATTEMPTS_SHOWN_MAX)?,
            summary,
        });
    }
    Ok(deliveries)
}
