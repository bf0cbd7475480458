//! Bytes from outside that are to be UTF-8 text: JSON and settings.
//!
//! A byte order mark before them says nothing and is passed over, as RFC 8259 §8.1 allows. UTF-16, which Windows' tools
//! write, is told from bytes that are no text at all, so that its sender hears what to change.

/// UTF-8's byte order mark.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Why bytes are no text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotText {
    /// UTF-16.
    #[error("is in UTF-16; write it in UTF-8")]
    Utf16,
    /// UTF-32.
    #[error("is in UTF-32; write it in UTF-8")]
    Utf32,
    /// Not UTF-8 from this byte on.
    #[error("is not UTF-8 from byte {0} on")]
    NotUtf8(usize),
}

/// The bytes behind a byte order mark, where they begin with one.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// The text that bytes are, without a byte order mark.
///
/// # Errors
/// Where they are not UTF-8, with the encoding where it can be told.
pub fn text(bytes: &[u8]) -> Result<&str, NotText> {
    let text = without_mark(bytes);
    match std::str::from_utf8(text) {
        // Zero bytes are UTF-8, and no text of ours begins with one or has one as its second.
        Ok(text) => other_encoding(bytes).map_or(Ok(text), Err),
        Err(error) => {
            let at = error.valid_up_to() + (bytes.len() - text.len());
            Err(other_encoding(bytes).unwrap_or(NotText::NotUtf8(at)))
        }
    }
}

/// By the mark, else by where the zero bytes of the first two characters stand, which are ASCII in JSON and settings.
fn other_encoding(bytes: &[u8]) -> Option<NotText> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some(NotText::Utf32),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some(NotText::Utf16),
        [0, 0, 0, 1..=0x7f, ..] | [1..=0x7f, 0, 0, 0, ..] => Some(NotText::Utf32),
        [0, 1..=0x7f, 0, 1..=0x7f, ..] | [1..=0x7f, 0, 1..=0x7f, 0, ..] => Some(NotText::Utf16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_passed_over_and_another_encoding_is_named() {
        let check = |bytes: &[u8], expected: Result<&str, NotText>| assert_eq!(text(bytes), expected, "{bytes:?}");
        check(b"{}", Ok("{}"));
        check(b"", Ok(""));
        check(b"\xef\xbb\xbf{}", Ok("{}"));
        check(b"\xef\xbb\xbf\xef\xbb\xbf{}", Ok("\u{feff}{}"));
        check(b"\xff\xfe{\0}\0", Err(NotText::Utf16));
        check(b"\xfe\xff\0{\0}", Err(NotText::Utf16));
        check(b"{\0}\0", Err(NotText::Utf16));
        check(b"\0{\0}", Err(NotText::Utf16));
        check(b"\xff\xfe\0\0{\0\0\0", Err(NotText::Utf32));
        check(b"\0\0\0{\0\0\0}", Err(NotText::Utf32));
        check(b"{\xff}", Err(NotText::NotUtf8(1)));
        check(b"\xef\xbb\xbf{\xff}", Err(NotText::NotUtf8(4)));
        check(b"{\0", Ok("{\0"));
    }
}
