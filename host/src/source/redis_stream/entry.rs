//! What Redis replies with: entries of streams. Pure.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use redis::Value;

use crate::event::Message;

/// Most bytes of fields, names and values, that become headers, or are kept of an entry without its event; what would pass
/// it is left out.
pub const FIELDS_BYTES_MAX: usize = 64 * 1024;

/// Where an entry is in its stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct EntryId {
    pub(super) ms: u64,
    pub(super) seq: u64,
}

impl EntryId {
    /// The last one that is older than `ms`: a group that begins behind it delivers what was added at `ms` or later.
    pub(super) fn before(ms: u64) -> Self {
        match ms.checked_sub(1) {
            Some(ms) => Self { ms, seq: u64::MAX },
            None => Self::default(),
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let odd = || format!("`{text}` is no id of an entry");
        let (ms, seq) = text.split_once('-').ok_or_else(odd)?;
        Ok(Self { ms: ms.parse().map_err(|_| odd())?, seq: seq.parse().map_err(|_| odd())? })
    }
}

/// An entry as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Which of the source's streams.
    pub(super) stream: usize,
    pub(super) id: EntryId,
    /// `None` where the entry is gone from the stream, deleted or trimmed, though it was still to be acknowledged.
    pub(super) fields: Option<Vec<(Bytes, Bytes)>>,
}

impl Entry {
    /// Bytes of its fields.
    pub(super) fn weight(&self) -> usize {
        self.fields.iter().flatten().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The event is in the first field called `field`; the other fields are headers. An entry without it yields a body that
    /// says so, which is no JSON, so that it ends as a dead letter.
    pub(super) fn into_message(self, key: &Arc<str>, field: &str) -> Message {
        let mut fields = self.fields.unwrap_or_default();
        let payload = match fields.iter().position(|(name, _)| name == field.as_bytes()) {
            Some(index) => fields.remove(index).1,
            None => without_event(self.id, key, field, &fields),
        };
        let mut bytes_left = FIELDS_BYTES_MAX;
        let fit = fields.iter().filter(|(name, value)| match bytes_left.checked_sub(name.len() + value.len()) {
            Some(left) => {
                bytes_left = left;
                true
            }
            None => false,
        });
        let headers = fit.map(|(name, value)| (text(name), text(value))).collect();
        Message { subject: Arc::clone(key), payload, headers, position: Some(format!("{key}:{}", self.id)) }
    }
}

fn without_event(id: EntryId, key: &str, field: &str, fields: &[(Bytes, Bytes)]) -> Bytes {
    let mut body = format!(
        "the entry {id} of the stream `{key}` has no field `{field}`; write events there, or set `field` of the source. \
         Its fields:"
    );
    for (name, value) in fields {
        let line = format!("\n{}: {}", text(name), text(value));
        if body.len() + line.len() > FIELDS_BYTES_MAX {
            body.push_str("\n…");
            break;
        }
        body.push_str(&line);
    }
    body.into()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The reply to `XREADGROUP`: nothing, or the entries of each stream that has some. `keys` are the source's streams.
pub(super) fn read(reply: Value, keys: &[Arc<str>]) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for of_stream in array(reply)? {
        let [key, of_stream] = elements(of_stream)?;
        let key = bytes(key)?;
        let stream = keys.iter().position(|known| known.as_bytes() == key);
        let stream = stream.ok_or_else(|| format!("the stream `{}` was not asked for", text(&key)))?;
        for entry in array(of_stream)? {
            let [id, fields] = elements(entry)?;
            let fields = match fields {
                Value::Nil => None,
                fields => Some(pairs(fields)?),
            };
            entries.push(Entry { stream, id: entry_id(id)?, fields });
        }
    }
    Ok(entries)
}

/// What `XAUTOCLAIM … JUSTID` did.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Claimed {
    /// Where the next call goes on; zero at the end.
    pub(super) next: EntryId,
    pub(super) claimed: usize,
    /// Entries that were gone from the stream. Redis before 7.0 does not say.
    pub(super) gone: usize,
}

pub(super) fn claimed(reply: Value) -> Result<Claimed, String> {
    let mut parts = array(reply)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    Ok(Claimed { next: entry_id(next())?, claimed: array(next())?.len(), gone: array(next())?.len() })
}

/// The ids in a reply to `XPENDING` with a range.
pub(super) fn pending(reply: Value) -> Result<Vec<EntryId>, String> {
    let first = |entry| array(entry)?.into_iter().next().ok_or_else(|| "a pending entry without an id".to_owned());
    array(reply)?.into_iter().map(|entry| entry_id(first(entry)?)).collect()
}

fn array(value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err("a list was expected".to_owned()),
    }
}

fn elements<const N: usize>(value: Value) -> Result<[Value; N], String> {
    array(value)?.try_into().map_err(|values: Vec<_>| format!("{N} elements were expected, not {}", values.len()))
}

fn bytes(value: Value) -> Result<Bytes, String> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        Value::SimpleString(text) => Ok(text.into()),
        _ => Err("a string was expected".to_owned()),
    }
}

fn entry_id(value: Value) -> Result<EntryId, String> {
    text(&bytes(value)?).parse()
}

fn pairs(value: Value) -> Result<Vec<(Bytes, Bytes)>, String> {
    let mut values = array(value)?.into_iter();
    let mut pairs = Vec::with_capacity(values.len() / 2);
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        pairs.push((bytes(name)?, bytes(value)?));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn strings(texts: &[&str]) -> Value {
        Value::Array(texts.iter().map(|text| string(text)).collect())
    }

    fn entry(fields: &[(&'static str, &'static str)]) -> Entry {
        let fields = fields.iter().map(|(name, value)| (Bytes::from(*name), Bytes::from(*value))).collect();
        Entry { stream: 0, id: EntryId { ms: 5, seq: 7 }, fields: Some(fields) }
    }

    #[test]
    fn entries_are_read() {
        let keys = ["a".into(), "b".into()];
        let present = Value::Array(vec![string("1-0"), strings(&["payload", "{}", "x", "y"])]);
        let gone = Value::Array(vec![string("2-1"), Value::Nil]);
        let reply = Value::Array(vec![Value::Array(vec![string("b"), Value::Array(vec![present, gone])])]);
        let entries = read(reply, &keys).unwrap();
        assert_eq!((entries.len(), entries[0].stream, entries[0].weight()), (2, 1, 11));
        assert_eq!((entries[1].id.to_string().as_str(), &entries[1].fields), ("2-1", &None));
        assert_eq!(read(Value::Nil, &keys).unwrap(), []);
        assert!(read(Value::Array(vec![Value::Array(vec![string("c"), Value::Nil])]), &keys).is_err());
        assert!(read(Value::Okay, &keys).is_err());
    }

    #[test]
    fn claims_are_read_from_every_version() {
        let check = |parts: Vec<Value>, claimed_count: usize, gone: usize| {
            let expected = Claimed { next: EntryId::default(), claimed: claimed_count, gone };
            assert_eq!(claimed(Value::Array(parts)), Ok(expected));
        };
        check(vec![string("0-0"), strings(&["1-1", "1-2"])], 2, 0);
        check(vec![string("0-0"), strings(&["1-1"]), strings(&["1-2", "1-3"])], 1, 2);
        let entry = |id| Value::Array(vec![string(id), string("consumer"), Value::Int(1), Value::Int(1)]);
        let ids = pending(Value::Array(vec![entry("3-4")])).unwrap();
        assert_eq!(ids, [EntryId { ms: 3, seq: 4 }]);
    }

    #[test]
    fn ids_are_ordered_and_begin_where_they_are_told() {
        assert!("9-2".parse::<EntryId>().unwrap() < "10-1".parse().unwrap());
        assert_eq!(EntryId::before(5).to_string(), format!("4-{}", u64::MAX));
        assert_eq!(EntryId::before(0).to_string(), "0-0");
        assert!("5".parse::<EntryId>().is_err() && "a-b".parse::<EntryId>().is_err());
    }

    #[test]
    fn a_field_is_the_event_and_the_others_are_headers() {
        let message = entry(&[("a", "1"), ("payload", "{}"), ("payload", "2")]).into_message(&"s".into(), "payload");
        assert_eq!((&message.payload[..], message.position.as_deref()), (&b"{}"[..], Some("s:5-7")));
        assert_eq!(message.headers, [("a".to_owned(), "1".to_owned()), ("payload".to_owned(), "2".to_owned())]);
        assert_eq!(&*message.subject, "s");
    }

    #[test]
    fn an_entry_without_its_event_says_so_and_is_no_json() {
        let message = entry(&[("data", "{}")]).into_message(&"s".into(), "payload");
        let body = String::from_utf8(message.payload.to_vec()).unwrap();
        assert!(
            body.starts_with("the entry 5-7 of the stream `s` has no field `payload`") && body.ends_with("data: {}")
        );
        assert!(serde_json::from_str::<serde_json::Value>(&body).is_err());
    }

    #[test]
    fn large_fields_are_left_out() {
        let large: &'static str = "x".repeat(FIELDS_BYTES_MAX).leak();
        let message =
            entry(&[("large", large), ("small", "1"), ("payload", "{}")]).into_message(&"s".into(), "payload");
        assert_eq!(message.headers, [("small".to_owned(), "1".to_owned())]);
        let message = entry(&[("large", large)]).into_message(&"s".into(), "payload");
        assert!(message.payload.len() < FIELDS_BYTES_MAX);
    }
}
