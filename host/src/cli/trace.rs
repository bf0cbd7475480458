//! `wirehook trace`

use clap::Args;

use super::Session;
use super::console::Look;
use super::deliveries::state_look;
use super::failure::{Exit, Failure, Failures};
use super::table::{counted, printable};
use crate::ops::{Reply, Request};
use crate::store::{
    Candidate, DeadLetterSummary, DeliveryTrace, EventSeq, EventTrace, Found, LetterMark, RunTrace, Sought,
};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook trace 550e8400-e29b-41d4-a716-446655440000
  wirehook trace 550e
  wirehook trace msg_0123456789abcdef0123456789abcdef
  wirehook trace bus/position/ORDERS:1763900000:42
  wirehook trace event:42
  wirehook trace dead-letter:17 --json

Takes an entity's id or the beginning of one, a delivery's id, an event's key or position, or a \
dead letter's id. Where it may be several, it lists them.";

/// Digits of a digest that a trace shows.
const DIGEST_LEN_SHOWN: usize = 12;

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// What to look for; event:N, dead-letter:N and entity:ID say which it is
    id: String,
}

impl TraceArgs {
    /// Looks for what is named so.
    pub(super) fn of(id: String) -> Self {
        Self { id }
    }
}

fn sought(text: &str) -> Sought {
    let number = |rest: &str| rest.parse::<i64>().ok();
    let kind = text.split_once(':');
    match kind {
        Some(("event", rest)) if number(rest).is_some() => Sought::Event(EventSeq(number(rest).unwrap_or_default())),
        Some(("dead-letter", rest)) if number(rest).is_some() => Sought::DeadLetter(number(rest).unwrap_or_default()),
        Some(("entity", rest)) => Sought::Entity(rest.to_owned()),
        _ => Sought::Any(text.to_owned()),
    }
}

pub(super) async fn trace(session: &mut Session<'_>, args: TraceArgs) -> Result<Exit, Failures> {
    let replies = session.ask(Request::Trace(sought(&args.id))).await?;
    let found: Vec<Found> = replies
        .into_iter()
        .filter_map(|reply| match reply {
            Reply::Found(found) => Some(*found),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        let failure = Failure::new(format!("nothing is kept of `{}`", printable(&args.id)));
        let help = "it never came, or is past its retention; `wirehook deliveries list` shows the newest there is";
        return Err(failure.help(help).into());
    }
    let several = found.iter().filter(|found| matches!(found, Found::Candidate(_))).count();
    for found in &found {
        if session.console.json { session.console.object(found)? } else { print(session, found)? }
    }
    if several > 0 {
        let failure = Failure::new(format!("`{}` may be any of {several}", printable(&args.id)));
        return Err(failure.help("name one of them").into_usage());
    }
    Ok(Exit::Success)
}

fn print(session: &mut Session<'_>, found: &Found) -> std::io::Result<()> {
    match found {
        Found::Event(trace) => print_event(session, trace),
        Found::Message(letter) => print_message(session, letter),
        Found::Candidate(Candidate { id, what }) => {
            session.console.line(format_args!("{}  {}", printable(id), printable(what)))
        }
    }
}

fn print_message(session: &mut Session<'_>, letter: &DeadLetterSummary) -> std::io::Result<()> {
    let reason = Look::Bad.paint(letter.reason.as_str(), session.console.coloured());
    session.console.line(format_args!("a message that never became an event, on {}", printable(&letter.subject)))?;
    session.console.line(format_args!("  key     {}", printable(&letter.event_key)))?;
    session.console.line(format_args!(
        "  {reason} at {} (dead letter {}): {}",
        letter.died_at,
        letter.id,
        printable(&letter.detail)
    ))
}

fn print_event(session: &mut Session<'_>, trace: &EventTrace) -> std::io::Result<()> {
    let title = format!("event {} {}", trace.seq.0, printable(&trace.subject));
    let title = Look::Heading.paint(&title, session.console.coloured());
    session.console.line(title)?;
    let mut fields = vec![("key", trace.key.clone())];
    let entity = [Some(trace.entity_type.as_str()), trace.entity_id.as_deref()];
    fields.push(("entity", entity.into_iter().flatten().collect::<Vec<_>>().join(" ")));
    fields.extend(trace.tenant_id.clone().map(|tenant| ("tenant", tenant)));
    let said = trace.attributes.iter().filter(|(name, _)| name != "source");
    let said: Vec<String> = said.map(|(name, value)| format!("{name} {value}")).collect();
    fields.push(("from", [vec![trace.source.clone()], said].concat().join(", ")));
    fields.extend(trace.timestamp.clone().map(|timestamp| ("happened", timestamp)));
    fields.push(("accepted", trace.accepted_at.to_string()));
    for (key, value) in fields {
        session.console.line(format_args!("  {key:<10}{}", printable(&value)))?;
    }
    for conflict in &trace.conflicts {
        let mark = mark(session, conflict);
        session.console.line(format_args!("  another message came with this key: {mark}"))?;
    }
    if trace.runs.is_empty() {
        session.console.line("  no plugin was subscribed to it")?;
    }
    for (index, run) in trace.runs.iter().enumerate() {
        print_run(session, run, index + 1 == trace.runs.len())?;
    }
    Ok(())
}

fn mark(session: &Session<'_>, letter: &LetterMark) -> String {
    let reason = Look::Bad.paint(letter.reason.as_str(), session.console.coloured());
    format!("{reason} at {} (dead letter {}): {}", letter.died_at, letter.id, printable(&letter.detail))
}

/// The lines of a tree: before a branch, and before what hangs on it.
fn branch(is_last: bool) -> (&'static str, &'static str) {
    if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") }
}

fn print_run(session: &mut Session<'_>, run: &RunTrace, is_last: bool) -> std::io::Result<()> {
    let (at, below) = branch(is_last);
    let look = match run.state.as_str() {
        "dead" => Look::Bad,
        "parked" | "retrying" => Look::Uneasy,
        "produced" => Look::Good,
        _ => Look::Plain,
    };
    let mut line = format!("{} {}", run.plugin, look.paint(&run.state, session.console.coloured()));
    if run.in_flight {
        line.push_str(", at work");
    }
    if run.attempts > 0 {
        line.push_str(&format!(", {}", counted(u64::from(run.attempts), "try", "tries")));
    }
    if let Some(ended_at) = run.ended_at {
        line.push_str(&format!(", {ended_at}"));
    }
    if let Some(due_at) = run.due_at.filter(|_| !run.in_flight) {
        line.push_str(&format!(", due {due_at}"));
    }
    if let Some(digest) = &run.plugin_digest {
        line.push_str(&format!(" (sha256 {})", digest.chars().take(DIGEST_LEN_SHOWN).collect::<String>()));
    }
    session.console.line(format_args!("  {at}{line}"))?;
    match (&run.dead_letter, &run.detail) {
        (Some(letter), _) => {
            let mark = mark(session, letter);
            session.console.line(format_args!("  {below}  {mark}"))?;
        }
        (None, Some(detail)) => session.console.line(format_args!("  {below}  {}", printable(detail)))?,
        (None, None) => {}
    }
    for (index, delivery) in run.deliveries.iter().enumerate() {
        print_delivery(session, delivery, below, index + 1 == run.deliveries.len())?;
    }
    Ok(())
}

fn print_delivery(
    session: &mut Session<'_>,
    delivery: &DeliveryTrace,
    before: &str,
    is_last: bool,
) -> std::io::Result<()> {
    let (at, below) = branch(is_last);
    let summary = &delivery.summary;
    let (state, look) = state_look(summary.state);
    let mut line = format!(
        "{} to {} {}, {}",
        summary.id.as_str(),
        summary.endpoint,
        look.paint(&state, session.console.coloured()),
        counted(u64::from(summary.attempts), "attempt", "attempts")
    );
    if delivery.in_flight {
        line.push_str(", at work");
    }
    if let Some(due_at) = summary.due_at.filter(|_| !delivery.in_flight) {
        line.push_str(&format!(", due {due_at}"));
    }
    session.console.line(format_args!("  {before}{at}{line}"))?;
    for attempt in &delivery.last_attempts {
        let came_to = match (&attempt.error, attempt.status) {
            (Some(error), _) => printable(error),
            (None, Some(status)) => format!("{status} {}", printable(&attempt.response)),
            (None, None) => "no answer".to_owned(),
        };
        session.console.line(format_args!(
            "  {before}{below}  {}. {}, {:.3} s: {}",
            attempt.number,
            attempt.started_at,
            attempt.duration_s,
            came_to.trim_end()
        ))?;
    }
    match &delivery.dead_letter {
        Some(letter) => {
            let mark = mark(session, letter);
            session.console.line(format_args!("  {before}{below}  {mark}"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_itself_what_it_is_is_taken_at_its_word() {
        let check = |text: &str, expected: Sought| assert_eq!(sought(text), expected, "{text}");
        check("event:7", Sought::Event(EventSeq(7)));
        check("dead-letter:7", Sought::DeadLetter(7));
        check("entity:7", Sought::Entity("7".to_owned()));
        check("7", Sought::Any("7".to_owned()));
        check("event:x", Sought::Any("event:x".to_owned()));
        check("bus/id/a:b", Sought::Any("bus/id/a:b".to_owned()));
    }
}
