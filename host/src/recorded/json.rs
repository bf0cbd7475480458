//! JSON as text: indented and edited without touching a digit, an escape or the order of members.

use thiserror::Error;

/// Arrays and objects within each other.
const DEPTH_MAX: usize = 128;

/// Why a text can't be read.
#[derive(Debug, Error)]
pub enum JsonError {
    /// It is not JSON.
    #[error("it is not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It is nested too deeply.
    #[error("it is nested deeper than {DEPTH_MAX} levels")]
    Deep,
}

/// `text` with one member or element a line.
///
/// # Errors
/// It is not JSON, or too deep.
pub fn indented(text: &str) -> Result<String, JsonError> {
    rewrite(text, &mut |_, _| None)
}

/// Gives every value of `text` with its path to `edit`, outer ones first; what that returns, itself JSON, takes the
/// value's place. Returns the result, indented.
pub(super) fn rewrite(text: &str, edit: &mut Edit<'_>) -> Result<String, JsonError> {
    // Past this the text is known to be JSON, so that finding the ends of values needs no further checks.
    let _: &serde_json::value::RawValue = serde_json::from_str(text)?;
    let mut walk = Walk { text, at: 0, out: String::with_capacity(text.len() * 2), path: Vec::new(), edit };
    walk.value()?;
    Ok(walk.out)
}

/// Whether `text` is JSON that [`indented`] takes within `around` arrays and objects more.
pub(super) fn fits(text: &str, around: usize) -> bool {
    let mut deepest = 0;
    let read = rewrite(text, &mut |path, _| {
        deepest = deepest.max(path.len());
        None
    });
    read.is_ok() && deepest + around < DEPTH_MAX
}

/// Of a path and the value's own text.
type Edit<'a> = dyn FnMut(&[String], &str) -> Option<String> + 'a;

struct Walk<'a, 'e, 'f> {
    text: &'a str,
    at: usize,
    out: String,
    path: Vec<String>,
    edit: &'e mut Edit<'f>,
}

impl Walk<'_, '_, '_> {
    fn value(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        let end = end_of_value(self.text.as_bytes(), self.at);
        let raw = &self.text[self.at..end];
        if let Some(instead) = (self.edit)(&self.path, raw) {
            self.out.push_str(&instead);
            self.at = end;
            return Ok(());
        }
        match raw.as_bytes().first() {
            Some(b'{') => self.container('}'),
            Some(b'[') => self.container(']'),
            _ => {
                self.out.push_str(raw);
                self.at = end;
                Ok(())
            }
        }
    }

    fn container(&mut self, close: char) -> Result<(), JsonError> {
        if self.path.len() >= DEPTH_MAX {
            return Err(JsonError::Deep);
        }
        let open = self.next_char();
        self.out.push(open);
        for index in 0_usize.. {
            self.skip_space();
            match self.next_char() {
                ',' => self.out.push(','),
                end if end == close => {
                    if index > 0 {
                        self.new_line(self.path.len());
                    }
                    self.out.push(close);
                    return Ok(());
                }
                // The first of them: not a comma, but itself.
                other => self.at -= other.len_utf8(),
            }
            self.new_line(self.path.len() + 1);
            let name = if open == '{' { self.name()? } else { index.to_string() };
            self.path.push(name);
            self.value()?;
            self.path.pop();
        }
        Ok(())
    }

    /// A member's name, which is written as it is; returned decoded.
    fn name(&mut self) -> Result<String, JsonError> {
        self.skip_space();
        let end = end_of_value(self.text.as_bytes(), self.at);
        let raw = &self.text[self.at..end];
        self.out.push_str(raw);
        self.out.push_str(": ");
        self.at = end;
        self.skip_space();
        // The colon.
        self.at += 1;
        // A name with half a character can't be decoded: nobody's path has it, and the text keeps it as it is.
        Ok(serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()))
    }

    fn next_char(&mut self) -> char {
        let next = self.text[self.at..].chars().next().unwrap_or('\0');
        self.at += next.len_utf8();
        next
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_ascii_start().len();
    }

    fn new_line(&mut self, depth: usize) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n("  ", depth));
    }
}

/// The end of the value that begins at `start`, of a text that is JSON.
fn end_of_value(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = end_of_string(bytes, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};
    use serde_json::Value;

    use super::*;

    #[test]
    fn digits_escapes_and_order_are_kept() {
        let check = |text: &str, expected: &str| assert_eq!(indented(text).unwrap(), expected);
        check(
            r#" {"b":1.50, "a" : "\u00e9\"}," , "c":[ ],"d":{},"e":[1,{"f":null}]} "#,
            "{\n  \"b\": 1.50,\n  \"a\": \"\\u00e9\\\"},\",\n  \"c\": [],\n  \"d\": {},\n  \"e\": [\n    1,\n    {\n      \"f\": null\n    }\n  ]\n}",
        );
        check("12345678901234567890.10", "12345678901234567890.10");
        assert!(indented("{\"a\":1,}").is_err());
    }

    #[test]
    fn what_is_too_deep_is_refused() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(indented(&nested(DEPTH_MAX)).is_ok());
        assert!(matches!(indented(&nested(DEPTH_MAX + 1)), Err(JsonError::Deep)));
        assert!(indented(&nested(100_000)).is_err());
    }

    #[test]
    fn a_name_that_is_no_text_is_kept_as_it_is() {
        assert_eq!(indented(r#"{"\ud800":1}"#).unwrap(), "{\n  \"\\ud800\": 1\n}");
    }

    #[test]
    fn what_fits_is_indented_within_so_much_more() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let mut refused = 0;
        for depth in [1, DEPTH_MAX - 4, DEPTH_MAX - 3, DEPTH_MAX - 2, DEPTH_MAX, DEPTH_MAX * 50] {
            let text = nested(depth);
            refused += usize::from(!fits(&text, 3));
            assert!(!fits(&text, 3) || indented(&format!("[[[{text}]]]")).is_ok(), "{depth}");
        }
        assert_eq!(refused, 4);
        assert!(!fits("{", 3));
    }

    #[test]
    fn values_are_given_with_their_paths_and_replaced() {
        let mut seen = Vec::new();
        let text = rewrite(r#"{"a/b":[{"c":"x"},2]}"#, &mut |path, raw| {
            seen.push(format!("{}={raw}", path.join(" ")));
            (path == ["a/b", "0"]).then(|| "\"gone\"".to_owned())
        });
        assert_eq!(text.unwrap(), "{\n  \"a/b\": [\n    \"gone\",\n    2\n  ]\n}");
        assert_eq!(seen[2..], ["a/b 0={\"c\":\"x\"}", "a/b 1=2"]);
    }

    proptest! {
        #[test]
        fn the_meaning_is_never_changed(members in prop::collection::btree_map(any::<String>(), any::<(String, i64)>(), 0..8)) {
            let value = serde_json::to_value(&members).unwrap();
            let text = indented(&value.to_string()).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            assert_eq!(indented(&text).unwrap(), text);
        }
    }
}
