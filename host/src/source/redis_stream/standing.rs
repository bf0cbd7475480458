//! What a source remembers between starts, in its cursor. Pure.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::entry::EntryId;
use crate::event::decode::body_digest;
use crate::settings::Start;

/// Groups remembered; beyond that the oldest are forgotten. A source has 1024 streams at most, and this many digests fit a
/// cursor.
const GROUPS_MAX: usize = 4096;

/// Who the source is to Redis, and which groups it has had.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Standing {
    /// The consumer's name: unique to the store, and the same after a restart, so that it finds its pending entries.
    pub(super) consumer: String,
    /// A digest of each: names may be too long to keep all of them.
    groups: Vec<String>,
}

/// The cursor's content, by the kind of source: one of another kind may have had the name before.
#[derive(Serialize, Deserialize)]
struct Cursor {
    #[serde(rename = "redis-stream")]
    standing: Standing,
}

impl Standing {
    /// What the cursor says; where it says nothing, the source has no past, and calls itself `new_consumer`.
    pub(super) fn read(cursor: Option<&[u8]>, new_consumer: &str) -> Self {
        let known = cursor.and_then(|cursor| serde_json::from_slice::<Cursor>(cursor).ok());
        known.map_or_else(|| Self { consumer: new_consumer.to_owned(), groups: Vec::new() }, |cursor| cursor.standing)
    }

    pub(super) fn cursor(&self) -> Bytes {
        serde_json::json!(Cursor { standing: self.clone() }).to_string().into()
    }

    /// Whether the source has had this group of this stream.
    pub(super) fn had(&self, stream: &str, group: &str) -> bool {
        self.groups.contains(&digest(stream, group))
    }

    /// Notes that it has.
    pub(super) fn note(&mut self, stream: &str, group: &str) {
        if self.had(stream, group) {
            return;
        }
        if self.groups.len() >= GROUPS_MAX {
            self.groups.remove(0);
        }
        self.groups.push(digest(stream, group));
    }

    /// Behind which entry a group begins that does not exist. `start` counts only for one that never did: after a loss
    /// nothing may be left out, and what was accepted before is known by its position.
    pub(super) fn origin(&self, stream: &str, group: &str, start: Start) -> String {
        match start {
            _ if self.had(stream, group) => "0".to_owned(),
            Start::New => "$".to_owned(),
            Start::All => "0".to_owned(),
            Start::At(time) => EntryId::before(u64::try_from(time.0).unwrap_or(0)).to_string(),
        }
    }
}

/// Neither name has control characters in it.
fn digest(stream: &str, group: &str) -> String {
    hex::encode(body_digest(format!("{stream}\n{group}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::store::CURSOR_BYTES_MAX;

    #[test]
    fn a_source_knows_itself_again() {
        let mut standing = Standing::read(None, "one");
        standing.note("s", "g");
        assert!(standing.had("s", "g") && !standing.had("s", "other"));
        let again = Standing::read(Some(&standing.cursor()), "two");
        assert_eq!((again.consumer.as_str(), again.had("s", "g")), ("one", true));
        assert_eq!(Standing::read(Some(br#"{"outbox":1}"#), "two"), Standing::read(None, "two"));
    }

    #[test]
    fn a_group_begins_as_told_the_first_time_and_leaves_nothing_out_later() {
        let mut standing = Standing::read(None, "one");
        let check = |standing: &Standing, start: Start, expected: &str| {
            assert_eq!(standing.origin("s", "g", start), expected);
        };
        check(&standing, Start::New, "$");
        check(&standing, Start::All, "0");
        check(&standing, Start::At(Timestamp(7)), &format!("6-{}", u64::MAX));
        check(&standing, Start::At(Timestamp(-7)), "0-0");
        standing.note("s", "g");
        check(&standing, Start::New, "0");
        check(&standing, Start::At(Timestamp(7)), "0");
    }

    #[test]
    fn the_cursor_is_bounded() {
        let mut standing = Standing::read(None, "one");
        for number in 0..2 * GROUPS_MAX {
            standing.note(&number.to_string(), "g");
        }
        assert!(standing.cursor().len() <= CURSOR_BYTES_MAX);
        assert!(!standing.had("0", "g") && standing.had(&GROUPS_MAX.to_string(), "g"));
    }
}
