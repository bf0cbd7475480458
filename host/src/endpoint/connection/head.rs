//! Pure: the head of an answer in HTTP/1, made such that a strict parser takes it.
//!
//! What counts of an answer is its status. Servers, and what stands before them, write headers that are none: a warning of PHP
//! among them, a control character in a cookie, a folded line, a hundred of them. They are passed over here, as browsers do.

use std::borrow::Cow;
use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};

/// Headers that are passed on; the parser behind takes a hundred. Those that say where the body ends always are.
pub(super) const HEADERS_MAX: usize = 96;

/// Headers that are passed on whatever their place among the others.
const WANTED: &[&[u8]] = &[b"connection", b"content-encoding", b"content-type", b"location", b"retry-after"];

/// Takes the answer's head and what came behind it from `read`, of which the first `searched` bytes held no whole head. `None` as
/// long as it is not whole; informational responses (1xx) before it are thrown away. What does not begin as HTTP is handed over as it is.
pub(super) fn taken(read: &mut BytesMut, mut searched: usize) -> Option<Bytes> {
    loop {
        // Servers end a body with a line too many.
        while read.first().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
            let _ = read.split_to(1);
            searched = searched.saturating_sub(1);
        }
        if !b"HTTP/1.".starts_with(&read[..read.len().min(7)]) {
            return Some(read.split().freeze());
        }
        let end = end_of_head(read, searched)?;
        searched = 0;
        let head = read.split_to(end);
        match cleaned(&head) {
            Answer::Informational => {}
            Answer::AsItIs => {
                let mut whole = head;
                whole.unsplit(read.split());
                return Some(whole.freeze());
            }
            Answer::Cleaned(clean) => {
                let mut whole = BytesMut::from(&clean[..]);
                whole.extend_from_slice(&read.split());
                return Some(whole.freeze());
            }
        }
    }
}

/// What a head is.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    /// 1xx, but for the one that changes the protocol.
    Informational,
    /// As a strict parser takes it, or such that none would.
    AsItIs,
    /// In its place.
    Cleaned(Vec<u8>),
}

/// Where the empty line behind the headers ends. It can't begin before `searched`, less what may be half of it.
fn end_of_head(read: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(3);
    let newlines = read[from..].iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| from + index);
    newlines.map(|newline| newline + 1).find_map(|next| match &read[next..] {
        [b'\n', ..] => Some(next + 1),
        [b'\r', b'\n', ..] => Some(next + 2),
        _ => None,
    })
}

fn cleaned(head: &[u8]) -> Answer {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let Some(status_line) = lines.next() else { return Answer::AsItIs };
    let Some((minor, status)) = status(status_line) else { return Answer::AsItIs };
    if status[0] == b'1' && status != *b"101" {
        return Answer::Informational;
    }
    let lines = lines.take_while(|line| !line.is_empty());
    if is_plain(status_line) && is_orderly(minor, lines.clone()) {
        return Answer::AsItIs;
    }
    Answer::Cleaned(rewritten(minor, status, lines))
}

/// The minor version and the status of a status line.
fn status(line: &[u8]) -> Option<(u8, [u8; 3])> {
    let (minor, rest) = line.strip_prefix(b"HTTP/1.")?.split_first()?;
    let rest = rest.strip_prefix(b" ")?.trim_ascii_start();
    let (status, behind) = rest.split_first_chunk::<3>()?;
    let is_status = status.iter().all(u8::is_ascii_digit) && status[0] != b'0';
    let is_alone = behind.first().is_none_or(u8::is_ascii_whitespace);
    (matches!(minor, b'0' | b'1') && is_status && is_alone).then_some((*minor, *status))
}

/// Whether these are headers that any parser takes, and that say clearly where the body ends.
fn is_orderly<'a>(minor: u8, lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut count, mut lengths, mut encodings) = (0, 0, 0);
    for line in lines {
        let Some((name, value)) = split(line) else { return false };
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) || !is_plain(value) {
            return false;
        }
        count += 1;
        if name.eq_ignore_ascii_case(b"content-length") {
            lengths += 1;
            if !is_length(value.trim_ascii()) {
                return false;
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            encodings += 1;
        }
    }
    count <= HEADERS_MAX && lengths + encodings <= 1 && (encodings == 0 || minor == b'1')
}

/// The head anew, with the headers that are some. Where it does not say clearly where the body ends, there is none, and the
/// connection is of no further use.
fn rewritten<'a>(minor: u8, status: [u8; 3], lines: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut framing = Framing::default();
    let mut kept: Vec<(&[u8], Cow<'_, [u8]>)> = Vec::new();
    let mut others = 0;
    for (name, value) in fields(lines) {
        if framing.takes(name, &value).is_break() || !is_plain(&value) {
            continue;
        }
        let is_wanted = WANTED.iter().any(|wanted| name.eq_ignore_ascii_case(wanted));
        if is_wanted && kept.len() < 2 * HEADERS_MAX || others < HEADERS_MAX - WANTED.len() {
            others += usize::from(!is_wanted);
            kept.push((name, value));
        }
    }
    kept.truncate(HEADERS_MAX);
    // A chunked body in an answer of HTTP/1.0 is one of 1.1 that does not know its version.
    let minor = if framing.is_chunked() { b'1' } else { minor };
    let mut head = [b"HTTP/1.", &[minor][..], b" ", &status, b"\r\n"].concat();
    for (name, value) in kept {
        for part in [name, b": ", &value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(&framing.written());
    head.extend_from_slice(b"\r\n");
    head
}

/// What the headers say of the body's end.
#[derive(Default)]
struct Framing {
    length: Option<Vec<u8>>,
    encoding: Option<Vec<u8>>,
    is_doubtful: bool,
}

impl Framing {
    /// Breaks where the header is one of these.
    fn takes(&mut self, name: &[u8], value: &[u8]) -> ControlFlow<()> {
        let place = if name.eq_ignore_ascii_case(b"content-length") {
            // `5, 5` is what a list of equal ones becomes on its way (RFC 9110, section 8.6).
            let mut lengths = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            let first = lengths.next().unwrap_or_default();
            self.is_doubtful |= !is_length(first) || !lengths.all(|length| length == first);
            self.is_doubtful |= self.length.as_deref().is_some_and(|before| before != first);
            self.length = Some(first.to_vec());
            return ControlFlow::Break(());
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            &mut self.encoding
        } else {
            return ControlFlow::Continue(());
        };
        self.is_doubtful |= !is_plain(value);
        match place {
            Some(before) => before.extend_from_slice(&[b", ", value].concat()),
            None => *place = Some(value.to_vec()),
        }
        ControlFlow::Break(())
    }

    fn is_chunked(&self) -> bool {
        self.encoding.is_some() && !self.is_doubtful
    }

    fn written(&self) -> Vec<u8> {
        match (&self.length, &self.encoding) {
            _ if self.is_doubtful => b"connection: close\r\ncontent-length: 0\r\n".to_vec(),
            // Both are an error that the encoding wins (RFC 9112, section 6.3); nothing else is sent over such a connection.
            (_, Some(encoding)) => [b"connection: close\r\ntransfer-encoding: ", &encoding[..], b"\r\n"].concat(),
            (Some(length), None) => [b"content-length: ", &length[..], b"\r\n"].concat(),
            (None, None) => Vec::new(),
        }
    }
}

/// The headers among `lines`, folded ones in one piece; what is no header, and what folds on behind it, is left out.
fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<(&'a [u8], Cow<'a, [u8]>)> {
    let mut fields: Vec<(&[u8], Cow<'_, [u8]>)> = Vec::new();
    let mut is_kept = false;
    for line in lines {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            if let (true, Some((_, value))) = (is_kept, fields.last_mut()) {
                let value = value.to_mut();
                value.push(b' ');
                value.extend_from_slice(line.trim_ascii());
            }
            continue;
        }
        let field = split(line).map(|(name, value)| (name.trim_ascii_end(), value.trim_ascii()));
        let field = field.filter(|(name, _)| !name.is_empty() && name.iter().all(|byte| is_token(*byte)));
        is_kept = field.is_some();
        fields.extend(field.map(|(name, value)| (name, Cow::Borrowed(value))));
    }
    fields
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((&line[..colon], &line[colon + 1..]))
}

/// Whether there is no control character in it but the tabulator.
fn is_plain(value: &[u8]) -> bool {
    value.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t')
}

fn is_length(value: &[u8]) -> bool {
    // More digits than a number of 64 bits surely has room for are no length.
    (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of an answer that arrives byte by byte, and in one piece.
    fn check(answer: &str, expected: &str) {
        let mut read = BytesMut::from(answer.as_bytes());
        let at_once = taken(&mut read, 0).unwrap_or_default();
        assert_eq!(String::from_utf8_lossy(&at_once), expected, "{answer:?}");
        let (mut read, mut dripped) = (BytesMut::new(), Vec::new());
        for byte in answer.bytes() {
            if !dripped.is_empty() {
                dripped.push(byte);
                continue;
            }
            let searched = read.len();
            read.extend_from_slice(&[byte]);
            dripped.extend(taken(&mut read, searched).unwrap_or_default());
        }
        assert_eq!(String::from_utf8_lossy(&dripped), expected, "byte by byte: {answer:?}");
    }

    fn as_it_is(answer: &str) {
        check(answer, answer);
    }

    #[test]
    fn what_is_in_order_is_not_touched() {
        as_it_is("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        as_it_is("HTTP/1.1 200\r\n\r\n");
        as_it_is("HTTP/1.0 404 Não\r\nx-é: ä\r\n\r\n".replace("x-é", "x-e").as_str());
        as_it_is("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\r\n\r\n");
        as_it_is("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n");
        as_it_is(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX)));
    }

    #[test]
    fn headers_that_are_none_are_passed_over() {
        let clean = "HTTP/1.1 200\r\na: b\r\ncontent-length: 2\r\n\r\nok";
        for odd in [
            "Set-Cookie: a=\u{1}b",
            "Set-Cookie: a=\0b",
            "Set-Cookie: a\rb",
            "PHP Warning  Undefined index in /srv/index.php on line 3",
            ": nameless",
            "na me: x",
            "n\u{e4}me: x",
            "<b>Notice</b>: Undefined variable",
            "",
        ] {
            if !odd.is_empty() {
                check(&format!("HTTP/1.1 200 OK\r\na: b\r\n{odd}\r\nContent-Length: 2\r\n\r\nok"), clean);
                check(&format!("HTTP/1.1 200 OK\n{odd}\na: b\nContent-Length: 2\n\nok"), clean);
            }
        }
        check("HTTP/1.1 200 O\u{1}K\r\na: b\r\ncontent-length: 2\r\n\r\nok", clean);
        check("HTTP/1.1 200 OK\r\na : b\r\nContent-Length\t: 2\r\n\r\nok", clean);
        check("HTTP/1.1 200 OK\r\n folded: first\r\na: b\r\ncontent-length: 2\r\n\r\nok", clean);
        let folded = "HTTP/1.1 200\r\na: b c\r\ncontent-length: 2\r\n\r\nok";
        check("HTTP/1.1 200 OK\r\na: b\r\n\t c\r\ncontent-length:\r\n 2\r\n\r\nok", folded);
    }

    #[test]
    fn many_headers_leave_those_that_matter() {
        let many = "x: y\r\n".repeat(5_000);
        let mut read =
            BytesMut::from(format!("HTTP/1.1 503 X\r\n{many}retry-after: 7\r\ncontent-length: 0\r\n\r\n").as_str());
        let head = String::from_utf8(taken(&mut read, 0).unwrap().to_vec()).unwrap();
        assert!(head.contains("\r\nretry-after: 7\r\n") && head.ends_with("content-length: 0\r\n\r\n"), "{head}");
        assert!(head.lines().count() < 100, "{head}");
    }

    #[test]
    fn a_body_whose_end_is_in_doubt_is_none() {
        let none = "HTTP/1.1 200\r\nconnection: close\r\ncontent-length: 0\r\n\r\nok";
        for doubtful in ["2\r\ncontent-length: 3", "2, 3", "two", "-2", "", "9999999999999999999999"] {
            check(&format!("HTTP/1.1 200 OK\r\ncontent-length: {doubtful}\r\n\r\nok"), none);
        }
        let two = "HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok";
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok", two);
        check("HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok", two);
        let chunked = "HTTP/1.1 200\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        check("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", chunked);
        check("HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", chunked);
    }

    #[test]
    fn informational_responses_are_thrown_away() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        check(&format!("{}{ok}", "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(50)), ok);
        check(&format!("HTTP/1.1 100 Continue\r\n\r\n\r\n{ok}"), ok);
        check("HTTP/1.1 102 Processing\r\n\r\n", "");
    }

    #[test]
    fn what_is_no_http_is_left_to_the_parser() {
        let mut read = BytesMut::from("SSH-2.0-OpenSSH_9.2");
        assert_eq!(taken(&mut read, 0).unwrap(), "SSH-2.0-OpenSSH_9.2");
        as_it_is("HTTP/1.1 20 OK\r\n\r\n");
        as_it_is("HTTP/1.1 2000 OK\r\n\r\n");
        as_it_is("HTTP/1.7 200 OK\r\n\r\n");
    }
}
