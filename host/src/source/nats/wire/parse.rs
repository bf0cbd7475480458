//! What a server sends, from bytes: pure, and indifferent to how the bytes are cut into reads.

use bytes::{Buf, Bytes, BytesMut};

use super::Delivery;

/// Longest line before a body: `INFO` of a large cluster; a subject with its reply is some 8 KiB at most.
pub(super) const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Longest headers and body of one message: `max_payload` is 64 MiB at most, and headers count within it.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One operation of the server's.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Operation {
    /// JSON that describes the server.
    Info(Bytes),
    /// A message for the subscription of this number.
    Message(u64, Delivery),
    Ping,
    Pong,
    Ok,
    /// In the server's words, without its quotation marks.
    Error(String),
}

/// Bytes that no NATS server sends. Nothing behind them can be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::source) enum ProtocolError {
    /// A line without an end.
    #[error("a line of the server is longer than {LINE_BYTES_MAX} bytes")]
    LongLine,
    /// A message over every limit that a server may have.
    #[error("a message of {0} bytes is larger than NATS allows ({MESSAGE_BYTES_MAX})")]
    LargeMessage(usize),
    /// No operation.
    #[error("the server says what is not NATS: {0}")]
    Unknown(String),
}

/// Reads operations from a growing buffer.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// How far the buffer was searched for the end of a line.
    searched: usize,
    /// A message whose line is read and whose body is awaited.
    head: Option<Head>,
}

/// The line before a message.
#[derive(Debug)]
struct Head {
    sid: u64,
    subject: Bytes,
    reply: Option<Bytes>,
    headers_len: Option<usize>,
    total_len: usize,
}

impl Parser {
    /// The next operation, taken out of `buffer`; none where more bytes are needed.
    ///
    /// # Errors
    ///
    /// When the bytes are no NATS. The connection is of no use then.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Operation>, ProtocolError> {
        loop {
            if let Some(head) = &self.head {
                let needed = head.total_len + LINE_END.len();
                if buffer.len() < needed {
                    buffer.reserve(needed - buffer.len());
                    return Ok(None);
                }
                return Ok(self.head.take().map(|head| message(head, buffer)));
            }
            let Some(line) = self.line(buffer)? else { return Ok(None) };
            match operation(&line)? {
                Line::Whole(operation) => return Ok(Some(operation)),
                Line::Head(head) => self.head = Some(head),
                Line::Empty => {}
            }
        }
    }

    /// A line, without its end.
    fn line(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, ProtocolError> {
        let found = buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(found) = found else {
            self.searched = buffer.len();
            return if buffer.len() > LINE_BYTES_MAX { Err(ProtocolError::LongLine) } else { Ok(None) };
        };
        let mut line = buffer.split_to(self.searched + found + 1);
        self.searched = 0;
        line.truncate(line.len() - 1);
        // Only the last carriage return is the server's: a subject may have its own.
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(ProtocolError::LongLine);
        }
        Ok(Some(line.freeze()))
    }
}

const LINE_END: &[u8] = b"\r\n";
/// Of a message's line, the verb not counted.
const TOKENS_MAX: usize = 5;

enum Line {
    Whole(Operation),
    Head(Head),
    Empty,
}

fn message(head: Head, buffer: &mut BytesMut) -> Operation {
    let mut content = buffer.split_to(head.total_len).freeze();
    buffer.advance(LINE_END.len());
    let headers = head.headers_len.map(|len| content.split_to(len));
    let Head { sid, subject, reply, .. } = head;
    Operation::Message(sid, Delivery { subject, reply, headers, payload: content })
}

fn operation(line: &Bytes) -> Result<Line, ProtocolError> {
    let end = line.iter().position(|byte| is_blank(*byte)).unwrap_or(line.len());
    let (verb, rest) = (&line[..end], line.slice((end + 1).min(line.len())..));
    let is = |name: &[u8]| verb.eq_ignore_ascii_case(name);
    Ok(if is(b"MSG") {
        Line::Head(head(line, &rest, false)?)
    } else if is(b"HMSG") {
        Line::Head(head(line, &rest, true)?)
    } else if is(b"PING") {
        Line::Whole(Operation::Ping)
    } else if is(b"PONG") {
        Line::Whole(Operation::Pong)
    } else if is(b"+OK") {
        Line::Whole(Operation::Ok)
    } else if is(b"-ERR") {
        let words = String::from_utf8_lossy(&rest);
        Line::Whole(Operation::Error(words.trim().trim_matches('\'').to_owned()))
    } else if is(b"INFO") {
        Line::Whole(Operation::Info(rest))
    } else if line.is_empty() {
        Line::Empty
    } else {
        return Err(unknown(line));
    })
}

/// `subject sid [reply] [headers' length] length`
fn head(line: &Bytes, rest: &Bytes, has_headers: bool) -> Result<Head, ProtocolError> {
    let mut found: [&[u8]; TOKENS_MAX] = [b""; TOKENS_MAX];
    let mut count = 0;
    for token in rest.split(|byte| is_blank(*byte)).filter(|token| !token.is_empty()) {
        *found.get_mut(count).ok_or_else(|| unknown(line))? = token;
        count += 1;
    }
    let tokens = &found[..count];
    let lengths = if has_headers { 2 } else { 1 };
    let (subject, sid, reply) = match count.checked_sub(lengths) {
        Some(2) => (rest.slice_ref(tokens[0]), tokens[1], None),
        Some(3) => (rest.slice_ref(tokens[0]), tokens[1], Some(rest.slice_ref(tokens[2]))),
        _ => return Err(unknown(line)),
    };
    let number = |token: &[u8]| number(token).ok_or_else(|| unknown(line));
    let sid = number(sid)?;
    let length = |token: &[u8]| {
        let length = usize::try_from(number(token)?).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX { Err(ProtocolError::LargeMessage(length)) } else { Ok(length) }
    };
    let total_len = length(tokens[count - 1])?;
    let headers_len = if has_headers { Some(length(tokens[count - 2])?) } else { None };
    if headers_len.is_some_and(|len| len > total_len) {
        return Err(unknown(line));
    }
    Ok(Head { sid, subject, reply, headers_len, total_len })
}

fn number(token: &[u8]) -> Option<u64> {
    if token.is_empty() || !token.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(token).ok()?.parse().ok()
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The line's beginning, as text that can be shown.
fn unknown(line: &[u8]) -> ProtocolError {
    const SHOWN: usize = 64;
    ProtocolError::Unknown(line[..line.len().min(SHOWN)].escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All operations of `bytes`, which come in pieces of these lengths, over and over.
    fn all(bytes: &[u8], pieces: &[usize]) -> (Vec<Operation>, Option<ProtocolError>) {
        let (mut parser, mut buffer, mut found) = (Parser::default(), BytesMut::new(), Vec::new());
        let mut pieces = pieces.iter().copied().cycle();
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = pieces.next().unwrap_or(1).clamp(1, rest.len());
            buffer.extend_from_slice(&rest[..piece]);
            rest = &rest[piece..];
            loop {
                match parser.next(&mut buffer) {
                    Ok(Some(operation)) => found.push(operation),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        (found, None)
    }

    fn delivery(subject: &[u8], reply: Option<&[u8]>, headers: Option<&[u8]>, payload: &[u8]) -> Delivery {
        let bytes = Bytes::copy_from_slice;
        Delivery {
            subject: bytes(subject),
            reply: reply.map(bytes),
            headers: headers.map(bytes),
            payload: bytes(payload),
        }
    }

    #[test]
    fn operations_are_read() {
        let check = |bytes: &[u8], expected: Operation| {
            let whole = [bytes, b"PING\r\n"].concat();
            assert_eq!(
                all(&whole, &[whole.len()]),
                (vec![expected, Operation::Ping], None),
                "{}",
                bytes.escape_ascii()
            );
        };
        let message = |sid, it| Operation::Message(sid, it);
        check(b"MSG a.b 7 2\r\n{}\r\n", message(7, delivery(b"a.b", None, None, b"{}")));
        check(b"MSG a\xff 7 r 0\r\n\r\n", message(7, delivery(b"a\xff", Some(b"r"), None, b"")));
        check(b"MSG a\rb\r 1 1\r\nx\r\n", message(1, delivery(b"a\rb\r", None, None, b"x")));
        check(b"HMSG a 1 3 5\r\nabc\r\n\r\n", message(1, delivery(b"a", None, Some(b"abc"), b"\r\n")));
        check(b"HMSG a 1 r 0 0\r\n\r\n", message(1, delivery(b"a", Some(b"r"), Some(b""), b"")));
        check(b"msg a 1 4\r\nMSG \r\n", message(1, delivery(b"a", None, None, b"MSG ")));
        check(b"\r\n+OK\r\n", Operation::Ok);
        check(b"PONG\r\n", Operation::Pong);
        check(b"-ERR 'Slow Consumer'\r\n", Operation::Error("Slow Consumer".to_owned()));
        check(b"INFO {\"a\": 1}\r\n", Operation::Info(Bytes::from_static(b"{\"a\": 1}")));
    }

    #[test]
    fn what_is_no_nats_ends_the_connection() {
        let check = |bytes: &[u8]| {
            let (found, error) = all(bytes, &[bytes.len()]);
            assert!(found.is_empty() && error.is_some(), "{}: {found:?}", bytes.escape_ascii());
        };
        check(b"HTTP/1.1 400 Bad Request\r\n");
        check(b"MSG a 1\r\n");
        check(b"MSG a b c d e f 1\r\n");
        check(b"MSG a x 1\r\n");
        check(b"MSG a 1 -1\r\n");
        check(b"MSG a 1 99999999999999999999\r\n");
        check(format!("MSG a 1 {}\r\n", MESSAGE_BYTES_MAX + 1).as_bytes());
        check(b"HMSG a 1 6 5\r\n");
        check(&[b'x'; LINE_BYTES_MAX + 1]);
    }

    /// A well-formed message of arbitrary content, as bytes and as what is to be read.
    fn any_message() -> impl Strategy<Value = (Vec<u8>, Operation)> {
        let token = || {
            prop::collection::vec(any::<u8>(), 1..20).prop_map(|mut token| {
                token.retain(|byte| !matches!(byte, b' ' | b'\t' | b'\n'));
                token.push(b'x');
                token
            })
        };
        let content = || prop::collection::vec(any::<u8>(), 0..200);
        let parts = (token(), any::<u64>(), prop::option::of(token()), prop::option::of(content()), content());
        parts.prop_map(|(subject, sid, reply, headers, payload)| {
            let mut bytes = if headers.is_some() { b"HMSG ".to_vec() } else { b"MSG ".to_vec() };
            bytes.extend([&subject[..], format!(" {sid} ").as_bytes()].concat());
            bytes.extend(reply.iter().flat_map(|reply| [&reply[..], b" "].concat()));
            let headers_len = headers.as_ref().map_or(0, Vec::len);
            let lengths = match &headers {
                Some(_) => format!("{headers_len} {}\r\n", headers_len + payload.len()),
                None => format!("{}\r\n", payload.len()),
            };
            bytes.extend([lengths.as_bytes(), headers.as_deref().unwrap_or_default(), &payload, b"\r\n"].concat());
            (bytes, Operation::Message(sid, delivery(&subject, reply.as_deref(), headers.as_deref(), &payload)))
        })
    }

    proptest! {
        #[test]
        fn messages_of_any_content_are_read_however_they_are_cut(
            messages in prop::collection::vec(any_message(), 1..8),
            pieces in prop::collection::vec(1_usize..50, 1..10),
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
            let expected: Vec<Operation> = messages.into_iter().map(|(_, operation)| operation).collect();
            prop_assert_eq!(all(&bytes, &pieces), (expected, None));
        }

        #[test]
        fn no_bytes_break_it_and_no_cut_changes_what_they_mean(
            bytes in prop::collection::vec(prop_oneof![
                4 => any::<u8>().prop_map(|byte| vec![byte]),
                1 => prop::sample::select(vec![
                    &b"MSG a 1 3\r\n"[..], b"HMSG a 1 2 3\r\n", b"PING\r\n", b"\r\n", b"-ERR '", b"INFO {}", b" ", b"9",
                ]).prop_map(<[u8]>::to_vec),
            ], 0..60),
            pieces in prop::collection::vec(1_usize..9, 1..5),
        ) {
            let bytes = bytes.concat();
            prop_assert_eq!(all(&bytes, &pieces), all(&bytes, &[bytes.len().max(1)]));
        }
    }
}
