//! Messages that hold several events: opened before they are decoded, and answered as one.

use crate::event::Message;
use crate::event::decode::batch;
use crate::store::Acceptance;

/// How many events each message holds; nothing where each holds one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batches(Option<Vec<usize>>);

/// The messages with those of each batch in its place.
pub(super) fn open(messages: Vec<Message>) -> (Vec<Message>, Batches) {
    let Some(first) = messages.iter().position(|message| batch::split(message).is_some()) else {
        return (messages, Batches::default());
    };
    let mut opened = Vec::with_capacity(messages.len());
    let mut counts = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        match (index >= first).then(|| batch::split(&message)).flatten() {
            Some(events) => {
                counts.push(events.len());
                opened.extend(events);
            }
            None => {
                counts.push(1);
                opened.push(message);
            }
        }
    }
    (opened, Batches(Some(counts)))
}

impl Batches {
    /// What became of each message: of a batch, the first of its events that is new; else the worst that became of one. An
    /// empty one has brought nothing new.
    pub(super) fn fold(self, acceptances: Vec<Acceptance>) -> Vec<Acceptance> {
        let Some(counts) = self.0 else { return acceptances };
        let mut rest = acceptances.into_iter();
        let mut of_one = |count: usize| {
            let of_events = rest.by_ref().take(count);
            of_events.min_by_key(|acceptance| match acceptance {
                Acceptance::Fresh(_) => 0,
                Acceptance::Dead => 1,
                Acceptance::Conflict => 2,
                Acceptance::Duplicate => 3,
            })
        };
        counts.into_iter().map(|count| of_one(count).unwrap_or(Acceptance::Duplicate)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EventSeq;

    const BATCH: &str = r#"[{"specversion":"1.0","id":"1"},{"specversion":"1.0","id":"2"}]"#;

    fn message(payload: &'static str, content_type: Option<&str>) -> Message {
        let headers = content_type.iter().map(|it| ("Content-Type".to_owned(), (*it).to_owned())).collect();
        Message { subject: "bus".into(), payload: payload.into(), headers, position: Some("s:7".to_owned()) }
    }

    fn opened(messages: Vec<Message>) -> (Vec<(String, String)>, Batches) {
        let (messages, batches) = open(messages);
        let told = |message: Message| {
            (String::from_utf8(message.payload.to_vec()).unwrap(), message.position.unwrap_or_default())
        };
        (messages.into_iter().map(told).collect(), batches)
    }

    #[test]
    fn a_batch_is_as_many_messages_and_nothing_else_is() {
        let (found, batches) = opened(vec![message("{}", None), message(BATCH, None), message("7", None)]);
        let told = [("{}", "s:7"), (r#"{"specversion":"1.0","id":"1"}"#, "s:7§0")];
        assert_eq!(found[..2], told.map(|(payload, position)| (payload.to_owned(), position.to_owned())));
        assert_eq!((found.len(), batches), (4, Batches(Some(vec![1, 2, 1]))));
        let is_one = |payload: &'static str, content_type: Option<&str>| {
            assert_eq!(opened(vec![message(payload, content_type)]).1, Batches(None), "{payload} {content_type:?}");
        };
        is_one("[]", None);
        is_one("[1,2]", None);
        is_one(r#"[{"specversion":"1.0","id":"1"},{}]"#, None);
        is_one(r#"[{"specversion":"1.0","id":"1"}"#, None);
        is_one(r#"{"specversion":"1.0","id":"1"}"#, Some("application/cloudevents-batch+json"));
        let batch = |payload: &'static str, count: usize| {
            let (found, batches) =
                opened(vec![message(payload, Some("Application/CloudEvents-Batch+JSON; charset=utf-8"))]);
            assert_eq!((found.len(), batches), (count, Batches(Some(vec![count]))), "{payload}");
        };
        batch("[]", 0);
        batch("[7,{}]", 2);
    }

    #[test]
    fn a_longer_array_than_a_batch_may_be_is_no_batch() {
        let of = |count: usize| {
            let event = r#"{"specversion":"1.0","id":"1"}"#;
            let payload = format!("[{}]", vec![event; count].join(","));
            open(vec![Message { payload: payload.into(), ..message("", None) }]).0.len()
        };
        assert_eq!(
            (of(batch::EVENTS_IN_BATCH_MAX), of(batch::EVENTS_IN_BATCH_MAX + 1)),
            (batch::EVENTS_IN_BATCH_MAX, 1)
        );
    }

    #[test]
    fn one_answer_stands_for_a_batch() {
        use Acceptance::{Conflict, Dead, Duplicate, Fresh};
        let fold =
            |counts: &[usize], acceptances: &[Acceptance]| Batches(Some(counts.to_vec())).fold(acceptances.to_vec());
        let fresh = |seq| Fresh(EventSeq(seq));
        assert_eq!(fold(&[1, 2, 0, 1], &[Dead, Duplicate, fresh(7), Conflict]), [Dead, fresh(7), Duplicate, Conflict]);
        assert_eq!(fold(&[2], &[Duplicate, Duplicate]), [Duplicate]);
        assert_eq!(fold(&[2], &[Duplicate, Conflict]), [Conflict]);
        assert_eq!(Batches::default().fold(vec![Duplicate]), [Duplicate]);
    }
}
