//! Where an event goes on the bus of a source: pure, so that all of it is known before anything is sent.

use std::sync::Arc;

use super::input::Mistake;
use super::{Outgoing, Routed};
use crate::event::subject::SubjectPattern;
use crate::settings::{SourceKind, SourceSettings};
use crate::source::redis::publishing::{is_pattern, takes as takes_channel};

/// The most bytes of a notification of PostgreSQL.
pub const NOTIFY_BYTES_MAX: usize = 7999;

/// Every event with its place, or what is wrong with those that have none.
///
/// # Errors
/// With one mistake at least: the event would not reach the source, or the bus could not carry it.
pub fn route(source: &SourceSettings, events: Vec<Outgoing>) -> Result<Vec<Routed>, Vec<Mistake>> {
    let (mut routed, mut mistakes) = (Vec::with_capacity(events.len()), Vec::new());
    let mut last: Option<Arc<str>> = None;
    for event in events {
        match destination(&source.kind, event.subject.as_deref()).and_then(|to| carried(&source.kind, &event, to)) {
            Ok(destination) => {
                // Most events go where the one before went.
                let shared = last.take().filter(|last| **last == *destination);
                let destination = shared.unwrap_or_else(|| destination.into());
                last = Some(Arc::clone(&destination));
                routed.push(Routed { event, destination });
            }
            Err(problem) => mistakes.push(Mistake { line: event.line, problem }),
        }
    }
    if mistakes.is_empty() { Ok(routed) } else { Err(mistakes) }
}

/// Whether the subject says where an event goes on this kind of bus.
pub fn has_subjects(kind: &SourceKind) -> bool {
    matches!(kind, SourceKind::Nats { .. } | SourceKind::Jetstream { .. } | SourceKind::Redis { .. })
}

const NO_SUBJECT: &str =
    "the event is in none of FraiseQL's formats, so nothing says its subject; name one with --subject";

fn destination(kind: &SourceKind, subject: Option<&str>) -> Result<String, String> {
    match kind {
        SourceKind::Nats { subjects, .. } | SourceKind::Jetstream { subjects, .. } => {
            let subject = subject.ok_or(NO_SUBJECT)?;
            nats_subject(subject)?;
            // A consumer without filters takes the whole stream, which only the server knows.
            if subjects.is_empty() || subjects.iter().any(|pattern| takes(pattern, subject)) {
                return Ok(subject.to_owned());
            }
            Err(format!("the source takes {}, not `{subject}`; name another subject with --subject", quoted(subjects)))
        }
        SourceKind::Redis { channels, .. } => channel(channels, subject),
        SourceKind::RedisStream { streams, .. } => Ok(streams.first().cloned().unwrap_or_default()),
        SourceKind::Postgres { channels, .. } => Ok(channels.first().cloned().unwrap_or_default()),
        SourceKind::PostgresOutbox { table, .. } => Ok(table.to_string()),
        SourceKind::Http { listen, .. } => Ok(format!("http://{listen}/events")),
        SourceKind::Stdin => Ok("standard input".to_owned()),
    }
}

/// Whether the bus can carry an event as it is.
fn carried(kind: &SourceKind, event: &Outgoing, destination: String) -> Result<String, String> {
    match kind {
        SourceKind::Postgres { .. } if event.payload.len() > NOTIFY_BYTES_MAX => Err(format!(
            "the event has {} bytes, and a notification of PostgreSQL carries {NOTIFY_BYTES_MAX}; an event of any size goes \
             through the outbox, a source of kind postgres-outbox",
            event.payload.len()
        )),
        SourceKind::Postgres { .. } if event.payload.contains(&0) || std::str::from_utf8(&event.payload).is_err() => {
            Err("a notification of PostgreSQL is UTF-8 text without zero bytes".to_owned())
        }
        SourceKind::PostgresOutbox { .. } => super::postgres::row(&event.payload).map(|_| destination),
        _ => Ok(destination),
    }
}

fn nats_subject(subject: &str) -> Result<(), String> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
    if subject.contains(odd) || subject.split('.').any(str::is_empty) {
        return Err(format!("`{}` is not a subject that can be published to", subject.escape_debug()));
    }
    Ok(())
}

fn takes(pattern: &str, subject: &str) -> bool {
    pattern.parse::<SubjectPattern>().is_ok_and(|pattern| pattern.matches(subject))
}

/// The event's subject, where the source is subscribed to it: by its name or by a pattern. Else the first channel with a
/// name of its own.
fn channel(channels: &[String], subject: Option<&str>) -> Result<String, String> {
    if let Some(subject) = subject.filter(|subject| channels.iter().any(|channel| takes_channel(channel, subject))) {
        return Ok(subject.to_owned());
    }
    match (channels.iter().find(|channel| !is_pattern(channel)), subject) {
        (Some(named), _) => Ok(named.clone()),
        (None, Some(subject)) => Err(format!(
            "the source is subscribed to {}, which `{subject}` does not match; name another channel with --subject",
            quoted(channels)
        )),
        (None, None) => Err(NO_SUBJECT.to_owned()),
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Environment, parse};

    fn source(section: &str) -> SourceSettings {
        let text = format!("[[source]]\nname = \"bus\"\n{section}");
        let loaded = parse("w.toml".as_ref(), &text, &Environment::of(&[], "/")).unwrap();
        loaded.settings.sources.into_iter().next().unwrap()
    }

    fn check(section: &str, subject: Option<&str>, expected: Result<&str, &str>) {
        let payload = r#"{"event":"fraiseql.order.created","entity_type":"order","operation":"created"}"#.into();
        let event = Outgoing { line: 3, payload, subject: subject.map(str::to_owned) };
        match (route(&source(section), vec![event]), expected) {
            (Ok(routed), Ok(expected)) => assert_eq!(&*routed[0].destination, expected, "{section}"),
            (Err(mistakes), Err(expected)) => {
                assert!(mistakes[0].line == 3 && mistakes[0].problem.contains(expected), "{section}: {mistakes:?}");
            }
            (found, expected) => panic!("{section}: {found:?} instead of {expected:?}"),
        }
    }

    const ORDER: Option<&str> = Some("fraiseql.order.created");

    #[test]
    fn an_event_goes_where_its_source_takes_it_from() {
        let nats = |subjects| format!("kind = \"nats\"\nurl = \"nats://h:1\"\nsubjects = {subjects}");
        check(&nats("['fraiseql.>']"), ORDER, Ok("fraiseql.order.created"));
        check(&nats("['audit.>', 'fraiseql.order.*']"), ORDER, Ok("fraiseql.order.created"));
        check(&nats("['audit.>']"), ORDER, Err("takes `audit.>`, not `fraiseql.order.created`"));
        check(&nats("['>']"), None, Err("--subject"));
        check(&nats("['>']"), Some("a.*"), Err("not a subject"));
        let jetstream = "kind = \"jetstream\"\nurl = \"nats://h:1\"\nstream = \"S\"";
        check(jetstream, ORDER, Ok("fraiseql.order.created"));
        let redis = |channels| format!("kind = \"redis\"\nurl = \"redis://h\"\nchannels = {channels}");
        check(&redis("['fraiseql.*']"), ORDER, Ok("fraiseql.order.created"));
        check(&redis("['events', 'fraiseql.*']"), ORDER, Ok("fraiseql.order.created"));
        check(&redis("['events', 'audit.*']"), ORDER, Ok("events"));
        check(&redis("['events', 'audit.*']"), None, Ok("events"));
        check(&redis("['audit.*']"), ORDER, Err("subscribed to `audit.*`"));
        check(&redis("['audit.*']"), None, Err("--subject"));
        check("kind = \"redis-stream\"\nurl = \"redis://h\"\nstreams = ['a', 'b']", None, Ok("a"));
        check("kind = \"postgres\"\nurl = \"postgres://h\"", None, Ok("fraiseql_events"));
        check("kind = \"postgres-outbox\"\nurl = \"postgres://h\"", ORDER, Ok("core.tb_entity_change_log"));
        check("kind = \"http\"", None, Ok("http://127.0.0.1:7466/events"));
    }

    #[test]
    fn the_outbox_holds_changes_of_entities_only() {
        let event = Outgoing { line: 1, payload: "{}".into(), subject: None };
        let told = route(&source("kind = \"postgres-outbox\"\nurl = \"postgres://h\""), vec![event]).unwrap_err();
        assert!(told[0].problem.contains("none of FraiseQL's formats"), "{told:?}");
    }

    #[test]
    fn what_a_notification_can_not_carry_is_told_before() {
        let source = source("kind = \"postgres\"\nurl = \"postgres://h\"");
        let event = |payload: Vec<u8>| Outgoing { line: 1, payload: payload.into(), subject: None };
        assert!(route(&source, vec![event(vec![b'1'; NOTIFY_BYTES_MAX])]).is_ok());
        let told = route(&source, vec![event(vec![b'1'; NOTIFY_BYTES_MAX + 1])]).unwrap_err();
        assert!(told[0].problem.contains("8000 bytes") && told[0].problem.contains("postgres-outbox"), "{told:?}");
        assert!(route(&source, vec![event(vec![0])]).is_err());
    }
}
