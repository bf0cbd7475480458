//! What a notification says: an event, or the key of the outbox's row that is one.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::event::Message;

/// What a notification says.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// The event itself, or what its publisher took for one: the inbox judges.
    Event(Message),
    /// The key of its row.
    Row {
        /// The channel.
        subject: Arc<str>,
        /// The key.
        key: i64,
    },
}

impl Said {
    /// A payload that is an integer and nothing else is a key; FraiseQL's trigger sends it as text.
    pub(super) fn of(subject: Arc<str>, payload: String) -> Self {
        match payload.trim().parse() {
            Ok(key) => Self::Row { subject, key },
            Err(_) => Self::Event(message(subject, payload.into())),
        }
    }
}

/// The keys in `said`, in order.
pub(super) fn keys(said: &VecDeque<Said>) -> Vec<i64> {
    said.iter().filter_map(|said| if let Said::Row { key, .. } = said { Some(*key) } else { None }).collect()
}

/// Takes from the front of `said` what can be handed over, in order: events, and rows as far as `rows` go, which are
/// those of the first keys; a key without a row is left out.
pub(super) fn take(said: &mut VecDeque<Said>, rows: Vec<Option<Bytes>>) -> Vec<Message> {
    let (mut messages, mut rows) = (Vec::with_capacity(said.len()), rows.into_iter());
    while let Some(next) = said.pop_front() {
        match next {
            Said::Event(message) => messages.push(message),
            Said::Row { subject, key } => match rows.next() {
                Some(Some(json)) => messages.push(message(subject, json)),
                Some(None) => {}
                None => {
                    said.push_front(Said::Row { subject, key });
                    break;
                }
            },
        }
    }
    messages
}

/// A notification has no headers and no position: the bus keeps nothing.
fn message(subject: Arc<str>, payload: Bytes) -> Message {
    Message { subject, payload, headers: Vec::new(), position: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(payloads: &[&str]) -> VecDeque<Said> {
        payloads.iter().map(|payload| Said::of("events".into(), (*payload).to_owned())).collect()
    }

    #[test]
    fn a_bare_integer_is_a_key() {
        let check = |payload: &str, expected: Option<i64>| {
            assert_eq!(keys(&said(&[payload])).first().copied(), expected, "{payload:?}");
        };
        check("42", Some(42));
        check(" 42\n", Some(42));
        check("-1", Some(-1));
        check("9223372036854775807", Some(i64::MAX));
        check("9223372036854775808", None);
        check("42.0", None);
        check("\"42\"", None);
        check("4 2", None);
        check("{\"id\":42}", None);
        check("garbage", None);
        check("", None);
    }

    #[test]
    fn order_is_kept_and_what_was_not_read_stays() {
        let mut waiting = said(&["{\"a\":1}", "7", "8", "{\"b\":2}", "9", "{\"c\":3}"]);
        assert_eq!(keys(&waiting), [7, 8, 9]);
        let messages = take(&mut waiting, vec![Some("{\"row\":7}".into()), None]);
        let bodies: Vec<_> = messages.iter().map(|message| &message.payload[..]).collect();
        assert_eq!(bodies, [&b"{\"a\":1}"[..], b"{\"row\":7}", b"{\"b\":2}"]);
        assert_eq!((keys(&waiting), waiting.len()), (vec![9], 2));
        let messages = take(&mut waiting, vec![Some("{\"row\":9}".into())]);
        assert_eq!((messages.len(), waiting.len()), (2, 0));
    }
}
