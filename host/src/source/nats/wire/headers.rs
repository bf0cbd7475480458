//! A header block as a publisher has written it. A server doesn't look into it, so any bytes may be there.

/// Most headers of a message that are kept, so that a block of tiny ones doesn't take many times its length in memory.
pub(in crate::source) const HEADERS_MAX: usize = 1024;
/// How a block begins.
const VERSION: &[u8] = b"NATS/1.0";
/// Headers of the server's and those that name a message or its trace, which are kept behind [`HEADERS_MAX`] too: each
/// once.
const ALWAYS_KEPT: [&str; 4] = ["nats-msg-id", "idempotency-key", "traceparent", MARKER_REASON];
/// The server's word in place of a message that is gone, where the stream asks for it.
const MARKER_REASON: &str = "nats-marker-reason";

/// What of a block can be understood.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::source) struct Headers {
    /// Names and values, sorted; of one name, sorted by value.
    pub(in crate::source) kept: Vec<(String, String)>,
    /// Lines that are no header: dropped. A version line that is missing is one.
    pub(in crate::source) dropped: usize,
}

impl Headers {
    /// Reads a block, whatever is in it.
    pub(in crate::source) fn read(block: &[u8]) -> Self {
        let mut headers = Self::default();
        let mut lines = Lines(block);
        let mut folded: Option<Vec<u8>> = None;
        if let Some(first) = lines.next().filter(|first| !is_version_line(first)) {
            headers.dropped += 1;
            folded = Some(first.to_vec());
        }
        for line in lines {
            // A value that continues on the next line, as HTTP had it.
            if matches!(line.first(), Some(b' ' | b'\t'))
                && let Some(folded) = &mut folded
            {
                folded.extend_from_slice(line);
                continue;
            }
            headers.take(folded.replace(line.to_vec()));
        }
        headers.take(folded);
        headers.kept.sort();
        headers
    }

    /// The value of the marker that stands in place of a deleted message.
    pub(in crate::source) fn marker(&self) -> Option<Marker> {
        self.first(MARKER_REASON).and_then(Marker::read)
    }

    /// The first value of a name, whatever its case.
    pub(in crate::source) fn first(&self, name: &str) -> Option<&str> {
        self.kept.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn take(&mut self, line: Option<Vec<u8>>) {
        let Some(line) = line.filter(|line| !line.is_empty()) else { return };
        match header(&line) {
            Some((name, value)) if self.has_room(name) => self.kept.push((name.to_owned(), value.to_owned())),
            _ => self.dropped += 1,
        }
    }

    fn has_room(&self, name: &str) -> bool {
        let is_needed = || ALWAYS_KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(name)) && self.first(name).is_none();
        self.kept.len() < HEADERS_MAX || (self.kept.len() < HEADERS_MAX + ALWAYS_KEPT.len() && is_needed())
    }
}

/// Why a server put a marker in place of a message (nats-server 2.11 and later).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::source) enum Marker {
    MaxAge,
    Purge,
    Remove,
}

impl Marker {
    fn read(reason: &str) -> Option<Self> {
        match reason {
            "MaxAge" => Some(Self::MaxAge),
            "Purge" => Some(Self::Purge),
            "Remove" => Some(Self::Remove),
            _ => None,
        }
    }
}

/// The status of a block and the words behind it, where its first line has one. Only the server's own messages mean it.
pub(in crate::source) fn status(block: &[u8]) -> Option<(u16, String)> {
    let line = Lines(block).next()?.strip_prefix(VERSION)?;
    let line = String::from_utf8_lossy(line.trim_ascii()).into_owned();
    let (status, words) = line.split_once(' ').unwrap_or((&line, ""));
    let status =
        status.parse().ok().filter(|_| status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((status, words.trim().to_owned()))
}

fn is_version_line(line: &[u8]) -> bool {
    line.strip_prefix(VERSION).is_some_and(|rest| rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t')))
}

/// A name of visible ASCII characters, and a text without control characters.
fn header(line: &[u8]) -> Option<(&str, &str)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let value = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    let is_text = value.chars().all(|c| c == '\t' || !c.is_control());
    is_text.then_some((std::str::from_utf8(name).ok()?, value))
}

/// Lines without their ends. A carriage return alone ends none.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().position(|byte| *byte == b'\n');
        let line = &self.0[..end.unwrap_or(self.0.len())];
        self.0 = &self.0[end.map_or(self.0.len(), |end| end + 1)..];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_can_be_read_is_kept_and_the_rest_counted() {
        let check = |block: &[u8], kept: &[(&str, &str)], dropped: usize| {
            let headers = Headers::read(block);
            let found: Vec<_> = headers.kept.iter().map(|(name, value)| (&name[..], &value[..])).collect();
            assert_eq!((&found[..], headers.dropped), (kept, dropped), "{}", block.escape_ascii());
        };
        check(b"NATS/1.0\r\n\r\n", &[], 0);
        check(b"NATS/1.0\r\nB: 2\r\nA:1\r\nB: 1 \r\n\r\n", &[("A", "1"), ("B", "1"), ("B", "2")], 0);
        check(b"NATS/1.0 409 Consumer Deleted\r\nA: 1\r\n\r\n", &[("A", "1")], 0);
        check("NATS/1.0\r\nA: grün\r\nGröße: 1\r\n\r\n".as_bytes(), &[("A", "grün")], 1);
        check(b"NATS/1.0\r\nuser id: 42\r\nA: 1\r\n\r\n", &[("A", "1")], 1);
        check(b"NATS/1.0\r\nX: a\rb\r\nA: 1\r\n\r\n", &[("A", "1")], 1);
        check(b"NATS/1.0\r\nX: \xff\r\nno colon\r\n: empty\r\nA: \r\n\r\n", &[("A", "")], 3);
        check(b"NATS/1.0\r\nA: 1\r\n 2\r\n\r\n", &[("A", "1 2")], 0);
        check(b"NATS/1.0\r\nA: 1\nB: 2", &[("A", "1"), ("B", "2")], 0);
        check(b"A: 1\r\nB: 2\r\n\r\n", &[("A", "1"), ("B", "2")], 1);
        check(b"NATS/1.0x\r\nB: 2\r\n\r\n", &[("B", "2")], 2);
        check(b"NATS/1.0\r\nA: \0\r\n\r\n", &[], 1);
        check(b"", &[], 0);
    }

    #[test]
    fn very_many_headers_are_bounded_and_what_names_a_message_is_kept() {
        let many: String = (0..5000).map(|number| format!("X-{number}: a\r\n")).collect();
        let headers = Headers::read(format!("NATS/1.0\r\n{many}Nats-Msg-Id: 7\r\nNats-Msg-Id: 8\r\n\r\n").as_bytes());
        assert_eq!((headers.kept.len(), headers.dropped), (HEADERS_MAX + 1, 5000 - HEADERS_MAX + 1));
        assert_eq!(headers.first("nats-msg-id"), Some("7"));
    }

    #[test]
    fn a_status_is_three_digits_and_words() {
        let check = |block: &[u8], expected: Option<(u16, &str)>| {
            let found = status(block);
            assert_eq!(
                found.as_ref().map(|(status, words)| (*status, &words[..])),
                expected,
                "{}",
                block.escape_ascii()
            );
        };
        check(b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", Some((100, "Idle Heartbeat")));
        check(b"NATS/1.0 503\r\n\r\n", Some((503, "")));
        check(b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 7\r\n\r\n", Some((408, "Request Timeout")));
        check(b"NATS/1.0\r\n\r\n", None);
        check(b"NATS/1.0 4x9 No\r\n\r\n", None);
        check(b"NATS/1.0 +40\r\n\r\n", None);
        check(b"", None);
    }

    #[test]
    fn markers_are_known_by_their_reason() {
        let check = |reason: &str, expected: Option<Marker>| {
            let block = format!("NATS/1.0\r\nNats-Marker-Reason: {reason}\r\nNats-TTL: 1s\r\n\r\n");
            assert_eq!(Headers::read(block.as_bytes()).marker(), expected, "{reason}");
        };
        check("MaxAge", Some(Marker::MaxAge));
        check("Purge", Some(Marker::Purge));
        check("Remove", Some(Marker::Remove));
        check("else", None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(block in prop::collection::vec(prop_oneof![
            3 => any::<u8>(),
            1 => prop::sample::select(b"\r\n: NATS/1.0".to_vec()),
        ], 0..200)) {
            let headers = Headers::read(&block);
            // The version line counts as one where it is missing.
            prop_assert!(headers.kept.len() + headers.dropped <= block.len() + 1);
            prop_assert!(headers.kept.iter().all(|(_, value)| !value.contains(['\r', '\n', '\0'])));
            let _ = status(&block);
        }
    }
}
