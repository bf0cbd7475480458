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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Floor {
    /// When the stream was created, in nanoseconds since 1970: another one may have its name by now.
    pub(super) stream_created: i128,
    /// The last message that is settled, with all before it.
    pub(super) sequence: u64,
    /// Where the stream ended each time that it was found to be an earlier state of itself.
    #[serde(default, skip_serializing_if = "Restores::is_empty")]
    pub(super) restores: Restores,
}

/// Where a stream ended each time that it was found restored from a backup: behind that, it gives sequences again that
/// other messages had.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Restores(Vec<u64>);

/// Restores of one stream that are told apart; what reuses a sequence after more of them is an id conflict.
const RESTORES_MAX: usize = 8;

impl Restores {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn note(&mut self, last_sequence: u64) {
        if self.0.len() < RESTORES_MAX {
            self.0.push(last_sequence);
        }
    }

    /// How many messages of this sequence there were before, as far as is known: it grows with every restore for what
    /// comes behind it, so that no two of them are one.
    pub(super) fn reuses(&self, sequence: u64) -> usize {
        self.0.iter().filter(|end| **end < sequence).count()
    }
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
        self.floors.get(stream).cloned()
    }
}

impl Resume {
    /// Begins with what was kept.
    pub(super) fn new(floor: Option<Floor>) -> Self {
        Self(Arc::new(Mutex::new(floor)))
    }

    /// The floor, where there is one.
    pub(super) fn floor(&self) -> Option<Floor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The restores of the stream that was created then.
    pub(super) fn restores(&self, stream_created: i128) -> Restores {
        let floor = self.floor().filter(|floor| floor.stream_created == stream_created);
        floor.map(|floor| floor.restores).unwrap_or_default()
    }

    /// Looks whether the stream ends before the floor, and gives up the floor where it does: it was restored from a
    /// backup, and what it has behind its end, now or later, is not what was settled. Returns the floor given up.
    pub(super) fn check(&self, stream_created: i128, last_sequence: u64) -> Option<u64> {
        let mut floor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = floor.as_mut().filter(|floor| floor.stream_created == stream_created)?;
        if floor.sequence <= last_sequence {
            return None;
        }
        floor.restores.note(last_sequence);
        Some(std::mem::take(&mut floor.sequence))
    }

    /// Notes the floor of `info`. It only rises: a consumer that has acknowledged nothing yet says 0, wherever it began.
    pub(super) fn note(&self, stream_created: i128, info: &consumer::Info) {
        // With nothing pending, all that was delivered is settled; in a new consumer, all that it leaves out.
        let delivered = if info.num_ack_pending == 0 { info.delivered.stream_sequence } else { 0 };
        let sequence = info.ack_floor.stream_sequence.max(delivered);
        let mut floor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = floor.take().filter(|floor| floor.stream_created == stream_created);
        let (before, restores) = before.map_or_else(Default::default, |floor| (floor.sequence, floor.restores));
        *floor = Some(Floor { stream_created, sequence: sequence.max(before), restores });
    }

    /// Where a consumer begins that doesn't exist yet. `start` counts only for the first one: after that nothing may be
    /// left out, and a stream that was made anew, or restored from a backup, is new from its beginning.
    pub(super) fn policy(&self, start: Start, stream_created: i128) -> Result<DeliverPolicy, String> {
        match self.floor() {
            Some(floor) if floor.stream_created == stream_created && floor.sequence > 0 => {
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
        let same = floor(7, 41);
        check(Some(same), Start::New, DeliverPolicy::ByStartSequence { start_sequence: 42 });
        check(Some(floor(6, 41)), Start::New, DeliverPolicy::All);
        check(Some(floor(7, 0)), Start::New, DeliverPolicy::All);
    }

    fn floor(stream_created: i128, sequence: u64) -> Floor {
        Floor { stream_created, sequence, restores: Restores::default() }
    }

    #[test]
    fn the_floor_of_a_stream_that_ends_before_it_is_given_up() {
        let resume = Resume::new(Some(floor(7, 25)));
        assert_eq!((resume.check(7, 25), resume.check(6, 5)), (None, None));
        assert_eq!(resume.check(7, 9), Some(25));
        assert_eq!(resume.policy(Start::New, 7).unwrap(), DeliverPolicy::All);
        assert_eq!(resume.check(7, 9), None, "one restore is noted once");
        let floors = Floors::new("d", [("s", resume.floor().unwrap())].into_iter());
        let kept = Resume::new(Floors::read(&floors.cursor(), "d").unwrap().get("s"));
        assert_eq!([9, 10].map(|sequence| kept.restores(7).reuses(sequence)), [0, 1]);
        assert_eq!(kept.restores(6).reuses(10), 0);
    }

    #[test]
    fn no_two_messages_of_a_sequence_are_one_however_often_a_stream_is_restored() {
        let mut restores = Restores::default();
        for end in [9, 7, 20, 8] {
            let before = restores.reuses(end + 1);
            restores.note(end);
            assert_eq!(restores.reuses(end + 1), before + 1);
        }
        assert_eq!([7, 8, 9, 10, 21].map(|sequence| restores.reuses(sequence)), [0, 1, 2, 3, 4]);
        (0..2 * RESTORES_MAX as u64).for_each(|end| restores.note(end));
        assert_eq!(restores.0.len(), RESTORES_MAX);
    }

    #[test]
    fn floors_are_kept_for_one_consumer_name() {
        let floor = floor(i128::from(u64::MAX), 41);
        let floors = Floors::new("wirehook-bus", [("events", floor.clone())].into_iter());
        let check = |durable: &str, expected: Option<Floor>| {
            assert_eq!(Floors::read(&floors.cursor(), durable).unwrap().get("events"), expected);
        };
        check("wirehook-bus", Some(floor));
        check("another", None);
        assert_eq!(floors.get("others"), None);
        assert!(Floors::read(b"", "wirehook-bus").is_err());
    }
}
