//! Pure: what the store keeps of a table's reading, as bytes, and what it means when the table is met again.
//!
//! One byte of version, then integers of variable length (LEB128), signed ones in zigzag. Gaps are distances from each
//! other, so that most take three bytes.

use super::frontier::{Frontier, Range};

const VERSION: u8 = 1;
/// Longest integer, in bytes.
const INTEGER_BYTES_MAX: usize = 10;

/// Where the source stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cursor {
    /// The table, as it was named.
    pub(super) name: String,
    /// How often its keys began anew: part of a row's position, so that a key that comes again is another.
    pub(super) generation: u64,
    /// Which table it was.
    pub(super) table: TableIdentity,
    pub(super) frontier: Frontier,
}

/// What tells a table, and how far its sequence has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct TableIdentity {
    /// Another one: it was dropped and made again, or restored.
    pub(super) oid: u32,
    /// Files that `TRUNCATE` replaces; 0 where there is none.
    pub(super) file: u32,
    pub(super) sequence_file: u32,
    /// When the server started, in microseconds.
    pub(super) server_start: i64,
    /// The last key drawn; the smallest `i64` where none has been. `None` where there is no sequence, or none that may be read.
    pub(super) drawn: Option<i64>,
}

/// What became of a table since it was read last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Met {
    /// Nothing that matters.
    Same,
    /// Made again or restored, with a sequence that goes on.
    Restored,
    /// The server lost what had not reached its disk, or a standby that lacks it took over: keys above are drawn anew.
    SteppedBack,
    /// Its keys began anew.
    BegunAnew,
}

/// Why a cursor can't be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum CursorError {
    #[error(
        "the store keeps this source's place in version {0}, which a newer Wirehook wrote; run that one, or give the source another name to begin anew"
    )]
    Version(u8),
    #[error(
        "the store keeps this source's place in bytes that mean nothing; give the source another name to begin anew"
    )]
    Malformed,
}

impl Cursor {
    /// The table as it is now is met; what follows from that is done. `first_key` is the one that its sequence began with.
    pub(super) fn meet(&mut self, now: TableIdentity, first_key: Option<i64>) -> Met {
        let before = std::mem::replace(&mut self.table, now);
        let drawn = before.drawn.zip(now.drawn);
        let behind = drawn.is_some_and(|(before, now)| now < before);
        // Keys that were read were drawn, though the last look at the sequence may have been before that.
        let lost = drawn.is_some_and(|(before, now)| now < before.max(self.frontier.high()));
        // `TRUNCATE … RESTART IDENTITY` replaces both files, and nothing else is likely to.
        let files_replaced = before.file != now.file && before.sequence_file != now.sequence_file;
        let same_table = before.oid == now.oid;
        let files_replaced = files_replaced && now.file != 0;
        let restarted = before.server_start != now.server_start;
        // Every key that another table's sequence will give is above those that were read.
        let high = self.frontier.high();
        let goes_on = now.drawn.is_some_and(|drawn| high <= drawn) || first_key.is_some_and(|first| high < first);
        let met = match (same_table, behind) {
            (true, _) if !files_replaced && restarted && lost => Met::SteppedBack,
            (true, false) if !files_replaced => Met::Same,
            (false, _) if goes_on => Met::Restored,
            _ => Met::BegunAnew,
        };
        match met {
            Met::Same | Met::Restored => {}
            Met::SteppedBack => {
                self.generation += 1;
                self.frontier.step_back(now.drawn.unwrap_or(i64::MIN));
            }
            Met::BegunAnew => {
                self.generation += 1;
                self.frontier = Frontier::start();
            }
        }
        met
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let gaps = self.frontier.gaps();
        let mut bytes = Vec::with_capacity(64 + self.name.len() + gaps.len() * 3);
        bytes.push(VERSION);
        put(&mut bytes, self.name.len() as u64);
        bytes.extend_from_slice(self.name.as_bytes());
        put(&mut bytes, self.generation);
        for number in [self.table.oid, self.table.file, self.table.sequence_file] {
            put(&mut bytes, number.into());
        }
        put_signed(&mut bytes, self.table.server_start);
        put(&mut bytes, self.table.drawn.is_some().into());
        put_signed(&mut bytes, self.table.drawn.unwrap_or_default());
        put_signed(&mut bytes, self.frontier.high());
        put(&mut bytes, gaps.len() as u64);
        let mut end = i64::MIN;
        for (range, wide) in gaps {
            put(&mut bytes, range.first.abs_diff(end));
            put(&mut bytes, range.last.abs_diff(range.first));
            put(&mut bytes, wide.into());
            end = range.last;
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CursorError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Decoder(rest).cursor().ok_or(CursorError::Malformed),
            Some((version, _)) => Err(CursorError::Version(*version)),
            None => Err(CursorError::Malformed),
        }
    }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_signed(bytes: &mut Vec<u8>, number: i64) {
    put(bytes, ((number << 1) ^ (number >> 63)) as u64);
}

struct Decoder<'a>(&'a [u8]);

impl Decoder<'_> {
    fn cursor(&mut self) -> Option<Cursor> {
        let name_len = usize::try_from(self.number()?).ok()?;
        let name = String::from_utf8(self.0.split_off(..name_len)?.to_vec()).ok()?;
        let generation = self.number()?;
        let mut small = || u32::try_from(self.number()?).ok();
        let (oid, file, sequence_file) = (small()?, small()?, small()?);
        let server_start = self.signed()?;
        let (has_drawn, drawn) = (self.flag()?, self.signed()?);
        let high = self.signed()?;
        let mut gaps = Vec::new();
        let mut end = i64::MIN;
        for _ in 0..self.number()? {
            let first = end.checked_add_unsigned(self.number()?)?;
            let last = first.checked_add_unsigned(self.number()?)?;
            gaps.push((Range { first, last }, self.flag()?));
            end = last;
        }
        let table = TableIdentity { oid, file, sequence_file, server_start, drawn: has_drawn.then_some(drawn) };
        self.0.is_empty().then(|| Cursor { name, generation, table, frontier: Frontier::new(high, gaps) })
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for place in 0..INTEGER_BYTES_MAX {
            let byte = *self.0.split_off_first()?;
            number |= u64::from(byte & 0x7f).checked_shl(7 * place as u32)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn flag(&mut self) -> Option<bool> {
        match self.number()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::postgres_outbox::frontier::GAPS_MAX;
    use crate::store::CURSOR_BYTES_MAX;

    fn cursor(table: TableIdentity, frontier: Frontier) -> Cursor {
        Cursor { name: "core.tb_entity_change_log".to_owned(), generation: 3, table, frontier }
    }

    fn identity() -> TableIdentity {
        TableIdentity { oid: 16_400, file: 16_400, sequence_file: 16_399, server_start: 7, drawn: Some(100) }
    }

    fn met(now: TableIdentity) -> (Met, u64, i64) {
        let mut cursor = cursor(identity(), Frontier::new(90, [(Range { first: 40, last: 50 }, false)]));
        let met = cursor.meet(now, Some(1));
        assert_eq!(cursor.table, now);
        (met, cursor.generation, cursor.frontier.high())
    }

    #[test]
    fn a_table_that_goes_on_is_read_on() {
        let identity = identity();
        assert_eq!(met(identity), (Met::Same, 3, 90));
        assert_eq!(met(TableIdentity { drawn: Some(200), server_start: 8, ..identity }), (Met::Same, 3, 90));
        assert_eq!(met(TableIdentity { file: 9, ..identity }), (Met::Same, 3, 90), "VACUUM FULL");
        assert_eq!(met(TableIdentity { sequence_file: 9, ..identity }), (Met::Same, 3, 90), "ALTER SEQUENCE");
        assert_eq!(met(TableIdentity { drawn: None, ..identity }), (Met::Same, 3, 90), "REVOKE");
        let restored = TableIdentity { oid: 9, file: 9, sequence_file: 8, server_start: 8, drawn: Some(100) };
        assert_eq!(met(restored), (Met::Restored, 3, 90));
    }

    #[test]
    fn keys_that_begin_anew_are_read_anew() {
        let identity = identity();
        let anew = (Met::BegunAnew, 4, i64::MIN);
        assert_eq!(met(TableIdentity { file: 9, sequence_file: 8, drawn: Some(i64::MIN), ..identity }), anew);
        assert_eq!(met(TableIdentity { file: 9, sequence_file: 8, drawn: Some(500), ..identity }), anew, "seen late");
        assert_eq!(met(TableIdentity { file: 9, sequence_file: 8, drawn: None, ..identity }), anew);
        assert_eq!(met(TableIdentity { drawn: Some(5), ..identity }), anew, "setval");
        assert_eq!(met(TableIdentity { oid: 9, drawn: Some(5), ..identity }), anew, "made again");
    }

    #[test]
    fn another_table_whose_keys_go_on_is_read_on() {
        let check = |drawn, first_key, expected| {
            let mut cursor = cursor(identity(), Frontier::new(90, [(Range { first: 40, last: 50 }, false)]));
            assert_eq!(cursor.meet(TableIdentity { oid: 9, drawn, ..identity() }, first_key), expected);
            let gaps = usize::from(expected == Met::Restored);
            assert_eq!(cursor.frontier.gaps().len(), gaps);
        };
        check(Some(90), Some(1), Met::Restored);
        check(Some(90), Some(91), Met::Restored);
        check(Some(89), Some(1), Met::BegunAnew);
        check(None, Some(91), Met::Restored);
        check(None, Some(90), Met::BegunAnew);
        check(None, None, Met::BegunAnew);
    }

    #[test]
    fn a_server_that_lost_its_last_instants_draws_keys_again() {
        let now = TableIdentity { server_start: 8, drawn: Some(45), ..identity() };
        let last_look = TableIdentity { drawn: Some(44), ..identity() };
        let mut cursor = cursor(last_look, Frontier::new(90, [(Range { first: 40, last: 50 }, false)]));
        assert_eq!(cursor.meet(now, Some(1)), Met::SteppedBack);
        assert_eq!((cursor.generation, cursor.frontier.high()), (4, 45));
        assert_eq!(cursor.frontier.gaps().collect::<Vec<_>>(), [(Range { first: 40, last: 45 }, false)]);
    }

    #[test]
    fn other_versions_and_other_bytes_are_refused() {
        let bytes = cursor(identity(), Frontier::new(90, [(Range { first: 40, last: 50 }, true)])).encode();
        assert_eq!(Cursor::decode(&[2, 1]), Err(CursorError::Version(2)));
        for len in 0..bytes.len() {
            assert_eq!(Cursor::decode(&bytes[..len]), Err(CursorError::Malformed), "{len}");
        }
        assert_eq!(Cursor::decode(&[&bytes[..], &[0]].concat()), Err(CursorError::Malformed));
    }

    #[test]
    fn as_many_gaps_as_there_may_be_fit_the_store() {
        let step = (u64::MAX / GAPS_MAX as u64 - 1) as i64;
        let gaps = (0..GAPS_MAX as i128).map(|index| (i128::from(i64::MIN) + index * i128::from(step)) as i64);
        let gaps = gaps.map(|first| (Range { first, last: first + step / 2 }, true));
        let bytes = cursor(identity(), Frontier::new(i64::MAX, gaps)).encode();
        assert!(bytes.len() < CURSOR_BYTES_MAX / 2, "{} bytes", bytes.len());
    }

    proptest! {
        #[test]
        fn what_is_kept_comes_back(
            high in any::<i64>(),
            drawn in any::<Option<i64>>(),
            server_start in any::<i64>(),
            parts in prop::collection::btree_set(any::<i64>(), 0..40),
        ) {
            let ends: Vec<_> = parts.into_iter().collect();
            let gaps = ends.chunks_exact(2).map(|ends| (Range { first: ends[0], last: ends[1] }, ends[0] % 2 == 0));
            let cursor = cursor(TableIdentity { drawn, server_start, ..identity() }, Frontier::new(high, gaps));
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }
    }
}
