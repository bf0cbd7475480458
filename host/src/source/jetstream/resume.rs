//! How far a consumer has come, kept so that one that is deleted, while the host is down too, is made again where it was.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::jetstream::consumer::{self, DeliverPolicy};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::settings::Start;

/// How far the acks had come in a stream, as the server last said: where a consumer begins that takes the place of one
/// that was deleted meanwhile. Everything before it is settled; what is delivered again after it is a duplicate.
#[derive(Clone, Debug, Default)]
pub(super) struct Resume(Arc<Mutex<Option<Floor>>>);

/// A place in a stream of which nothing before is needed again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Floor {
    /// When the stream was created, in nanoseconds since 1970: another one may have its name by now.
    pub(super) stream_created: i128,
    /// The last message that is settled, with all before it.
    pub(super) sequence: u64,
}

/// The floors of a source's consumers, as they are kept with the inbox.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Floors {
    /// The consumers' name: others have floors of their own.
    durable: String,
    /// By stream.
    floors: BTreeMap<String, Floor>,
}

impl Floors {
    /// Those that are known.
    pub(super) fn new<'a>(durable: &str, floors: impl Iterator<Item = (&'a str, Floor)>) -> Self {
        let floors = floors.map(|(stream, floor)| (stream.to_owned(), floor)).collect();
        Self { durable: durable.to_owned(), floors }
    }

    /// What [`Floors::cursor`] made, where it was made for `durable`.
    ///
    /// # Errors
    ///
    /// In words, when it is nothing that this version wrote.
    pub(super) fn read(cursor: &[u8], durable: &str) -> Result<Self, String> {
        let floors: Self = serde_json::from_slice(cursor).map_err(|error| error.to_string())?;
        Ok(if floors.durable == durable { floors } else { Self::default() })
    }

    /// As bytes.
    pub(super) fn cursor(&self) -> Bytes {
        // Names and numbers in a map by text can be written.
        serde_json::to_vec(self).map(Bytes::from).unwrap_or_default()
    }

    /// That of a stream.
    pub(super) fn get(&self, stream: &str) -> Option<Floor> {
        self.floors.get(stream).copied()
    }
}

impl Resume {
    /// Begins with what was kept.
    pub(super) fn new(floor: Option<Floor>) -> Self {
        Self(Arc::new(Mutex::new(floor)))
    }

    /// The floor, where there is one.
    pub(super) fn floor(&self) -> Option<Floor> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the floor of `info`. It only rises: a consumer that has acknowledged nothing yet says 0, wherever it began.
    pub(super) fn note(&self, stream_created: i128, info: &consumer::Info) {
        // With nothing pending, all that was delivered is settled; in a new consumer, all that it leaves out.
        let delivered = if info.num_ack_pending == 0 { info.delivered.stream_sequence } else { 0 };
        let sequence = info.ack_floor.stream_sequence.max(delivered);
        let mut floor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = floor.filter(|floor| floor.stream_created == stream_created).map_or(0, |floor| floor.sequence);
        *floor = Some(Floor { stream_created, sequence: sequence.max(before) });
    }

    /// Where a consumer begins that doesn't exist yet. `start` counts only for the first one: after that nothing may be
    /// left out, and a stream that was made anew is new from its beginning.
    pub(super) fn policy(&self, start: Start, stream_created: i128) -> Result<DeliverPolicy, String> {
        match self.floor() {
            Some(floor) if floor.stream_created == stream_created => {
                Ok(DeliverPolicy::ByStartSequence { start_sequence: floor.sequence + 1 })
            }
            Some(_) => Ok(DeliverPolicy::All),
            None => match start {
                Start::New => Ok(DeliverPolicy::New),
                Start::All => Ok(DeliverPolicy::All),
                Start::At(at) => {
                    let start_time = async_nats::datetime::from_nanos(i128::from(at.0) * 1_000_000)
                        .map_err(|error| format!("`start` {at} is no time that JetStream knows: {error}"))?;
                    Ok(DeliverPolicy::ByStartTime { start_time })
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_deleted_consumer_is_continued_where_its_acks_were() {
        let check = |floor: Option<Floor>, start: Start, expected: DeliverPolicy| {
            assert_eq!(Resume::new(floor).policy(start, 7).unwrap(), expected);
        };
        let time = async_nats::datetime::from_nanos(1_500_000_000).unwrap();
        check(None, Start::New, DeliverPolicy::New);
        check(None, Start::All, DeliverPolicy::All);
        check(None, Start::At(Timestamp(1500)), DeliverPolicy::ByStartTime { start_time: time });
        let same = Floor { stream_created: 7, sequence: 41 };
        check(Some(same), Start::New, DeliverPolicy::ByStartSequence { start_sequence: 42 });
        check(Some(Floor { stream_created: 6, ..same }), Start::New, DeliverPolicy::All);
    }

    #[test]
    fn floors_are_kept_for_one_consumer_name() {
        let floor = Floor { stream_created: i128::from(u64::MAX), sequence: 41 };
        let floors = Floors::new("wirehook-bus", [("events", floor)].into_iter());
        let check = |durable: &str, expected: Option<Floor>| {
            assert_eq!(Floors::read(&floors.cursor(), durable).unwrap().get("events"), expected);
        };
        check("wirehook-bus", Some(floor));
        check("another", None);
        assert_eq!(floors.get("others"), None);
        assert!(Floors::read(b"", "wirehook-bus").is_err());
    }
}
