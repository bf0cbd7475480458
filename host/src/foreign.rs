//! Text that others have written, where it is printed: on a terminal, in a log, in JSON.
//!
//! A line break in it would begin a line that looks like the host's own; a control character drives the terminal; what
//! turns the direction of writing or has no width makes a text look like another one. All of that is printed as an
//! escape. This happens where lines are written, not where they are put together, so that no caller can forget it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

/// Whether a character is printed as an escape: controls, line separators, and what Unicode calls format characters, which
/// turn the direction of writing (Bidi_Control) or can't be seen.
pub fn is_hidden(c: char) -> bool {
    match c {
        ' '..='~' => false,
        c if c.is_control() => true,
        c => matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        ),
    }
}

/// The text with `\n`, `\r`, `\t` and `\u{…}` for what is hidden. A backslash of its own stays as it is.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_but(text, |_| false)
}

/// As [`escape`], without the characters that are to be `kept`.
pub fn escape_but(text: &str, kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let hidden = |c: char| is_hidden(c) && !kept(c);
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) {
            // As Rust writes them: `\n`, `\u{1b}`.
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// JSON on one line, in which every hidden character is an escape (RFC 8259 §7).
///
/// # Errors
/// When it can't be written, or has a key that is no text.
pub fn write_json<W: io::Write>(writer: W, value: &impl Serialize) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(writer, Escaping);
    Ok(value.serialize(&mut serializer)?)
}

/// JSON that is written already, with escapes for what is hidden: nothing of that stands outside its texts.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    let hidden = |c: char| is_hidden(c) && c != '\n';
    if !json.contains(hidden) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if hidden(c) { push_json(&mut escaped, c) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

/// `\u009b`, and two of them beyond the first plane.
fn push_json(escaped: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // A string takes everything.
        let _ = write!(escaped, "\\u{unit:04x}");
    }
}

struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        writer.write_all(escape_json(fragment).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_printed_as_an_escape() {
        let check = |text: &str, expected: &str| assert_eq!(escape(text), expected);
        check("plain, Größe, 東京, עברית, 👩", "plain, Größe, 東京, עברית, 👩");
        check("a\nb\r\tc\0", r"a\nb\r\tc\u{0}");
        check("\u{1b}[31m\u{9b}31m\u{7f}", r"\u{1b}[31m\u{9b}31m\u{7f}");
        check("\u{202e}gnp\u{2066}\u{200f}\u{61c}", r"\u{202e}gnp\u{2066}\u{200f}\u{61c}");
        check("a\u{200b}\u{feff}\u{2028}\u{e0041}", r"a\u{200b}\u{feff}\u{2028}\u{e0041}");
        assert_eq!(escape_but("a\n\r", |c| c == '\n'), "a\n\\r");
    }

    #[test]
    fn json_says_the_same_with_escapes() {
        let text = "a\n\u{9b}\u{202e}\u{e0041}\u{7f}é\"";
        let mut json = Vec::new();
        write_json(&mut json, &serde_json::json!({ "a\u{202e}": text })).unwrap();
        let json = String::from_utf8(json).unwrap();
        assert_eq!(json, r#"{"a\u202e":"a\n\u009b\u202e\udb40\udc41\u007fé\""}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["a\u{202e}"], text);
        let plain = serde_json::json!({ "b": text }).to_string();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escape_json(&plain)).unwrap()["b"], text);
    }
}
