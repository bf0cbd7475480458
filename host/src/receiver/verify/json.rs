//! The same JSON as other libraries write it.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::Value;

/// How a library writes JSON.
#[derive(Clone, Copy)]
struct Style {
    spacing: Spacing,
    escapes: Escapes,
    /// Numbers as JavaScript has them: `1.50` is `1.5`, `2.0` is `2`.
    short_numbers: bool,
}

#[derive(Clone, Copy)]
enum Spacing {
    /// As most libraries do.
    None,
    /// As Python's does: one after every comma and colon.
    Python,
    /// A line for each member, this many spaces further in each time.
    Lines(usize),
}

#[derive(Clone, Copy)]
enum Escapes {
    /// As they were.
    Kept,
    /// Only where they must be.
    Fewest,
    /// Whatever is not ASCII, as Python and PHP do.
    Ascii,
    /// Also what HTML has a meaning for, as Go does.
    Html,
}

/// The JSON in `body` as other libraries write it, each way once and none as it is; nothing where it is not JSON.
pub(super) fn rewritings(body: &[u8]) -> Vec<Vec<u8>> {
    if serde_json::from_slice::<IgnoredAny>(body).is_err() {
        return Vec::new();
    }
    let sorted = serde_json::from_slice(body).ok().and_then(|value| serde_json::to_vec(&sorted(value)).ok());
    let mut written: Vec<Vec<u8>> = Vec::new();
    for source in std::iter::once(body).chain(sorted.as_deref()) {
        for style in styles() {
            let one = rewritten(source, style);
            if one != body && !written.contains(&one) {
                written.push(one);
            }
        }
    }
    written
}

fn styles() -> impl Iterator<Item = Style> {
    let spacings = [Spacing::None, Spacing::Python, Spacing::Lines(2), Spacing::Lines(4)];
    let escapes = [Escapes::Kept, Escapes::Fewest, Escapes::Ascii, Escapes::Html];
    spacings.into_iter().flat_map(move |spacing| {
        escapes
            .into_iter()
            .flat_map(move |escapes| [false, true].map(|short_numbers| Style { spacing, escapes, short_numbers }))
    })
}

/// With the members of every object in the order of their names, as Go's maps and many others have them.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            Value::Object(members.into_iter().collect())
        }
        Value::Array(elements) => Value::Array(elements.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// `json`, which is valid, token by token.
fn rewritten(json: &[u8], style: Style) -> Vec<u8> {
    let mut written = Vec::with_capacity(json.len() * 2);
    let mut left = json;
    let mut depth = 0;
    while let Some(&first) = left.first() {
        let length = match first {
            b'"' => string_length(left),
            byte if is_scalar(byte) => left.iter().take_while(|byte| is_scalar(**byte)).count(),
            _ => 1,
        };
        let (token, rest) = left.split_at(length.clamp(1, left.len()));
        left = rest;
        match first {
            byte if byte.is_ascii_whitespace() => {}
            b'{' | b'[' => {
                written.push(first);
                depth += 1;
                // What is empty stays on its line.
                if !matches!(left.trim_ascii_start().first(), Some(b'}' | b']')) {
                    break_line(&mut written, style.spacing, depth);
                }
            }
            b'}' | b']' => {
                depth -= 1;
                if !matches!(written.last(), Some(b'{' | b'[')) {
                    break_line(&mut written, style.spacing, depth);
                }
                written.push(first);
            }
            b',' => {
                written.push(first);
                match style.spacing {
                    Spacing::Python => written.push(b' '),
                    spacing => break_line(&mut written, spacing, depth),
                }
            }
            b':' if matches!(style.spacing, Spacing::None) => written.push(first),
            b':' => written.extend_from_slice(b": "),
            b'"' => write_string(&mut written, token, style.escapes),
            _ if style.short_numbers => written.extend_from_slice(&short_number(token)),
            _ => written.extend_from_slice(token),
        }
    }
    written
}

fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// With both quotes.
fn string_length(json: &[u8]) -> usize {
    let mut escaped = false;
    let end = json.iter().skip(1).position(|byte| {
        let is_end = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        is_end
    });
    end.map_or(json.len(), |end| end + 2)
}

fn break_line(written: &mut Vec<u8>, spacing: Spacing, depth: usize) {
    if let Spacing::Lines(spaces) = spacing {
        written.push(b'\n');
        written.resize(written.len() + spaces * depth, b' ');
    }
}

fn write_string(written: &mut Vec<u8>, token: &[u8], escapes: Escapes) {
    let text = match escapes {
        Escapes::Kept => None,
        _ => serde_json::from_slice::<String>(token).and_then(|text| serde_json::to_string(&text)).ok(),
    };
    let Some(text) = text else { return written.extend_from_slice(token) };
    for character in text.chars() {
        let is_escaped = match escapes {
            Escapes::Kept | Escapes::Fewest => false,
            Escapes::Ascii => !character.is_ascii(),
            Escapes::Html => matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'),
        };
        if is_escaped {
            let mut units = [0; 2];
            let units = character.encode_utf16(&mut units);
            units.iter().for_each(|unit| written.extend_from_slice(format!("\\u{unit:04x}").as_bytes()));
        } else {
            written.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

fn short_number(token: &[u8]) -> Vec<u8> {
    let is_plain_fraction = token.contains(&b'.') && !token.iter().any(|byte| matches!(byte, b'e' | b'E'));
    if !is_plain_fraction {
        return token.to_vec();
    }
    let zeros = token.iter().rev().take_while(|byte| **byte == b'0').count();
    let short = &token[..token.len() - zeros];
    short.strip_suffix(b".").unwrap_or(short).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `other` is among the ways to write `json`.
    fn check(json: &str, other: &str, expected: bool) {
        let found = rewritings(json.as_bytes()).iter().any(|one| one == other.as_bytes());
        assert_eq!(found, expected, "{json} as {other}");
    }

    #[test]
    fn what_libraries_make_of_the_same_json_is_found() {
        let kept = r#"{"b": [1, 2.50, true], "a": {"x": "é </é> \"y\": z,", "empty": {}}}"#;
        // JSON.stringify(JSON.parse(…))
        check(kept, r#"{"b":[1,2.5,true],"a":{"x":"é </é> \"y\": z,","empty":{}}}"#, true);
        // json.dumps(json.loads(…))
        check(kept, r#"{"b": [1, 2.5, true], "a": {"x": "\u00e9 </\u00e9> \"y\": z,", "empty": {}}}"#, true);
        // json.dumps(…, indent=2)
        let lines = "{\n  \"b\": [\n    1,\n    2.5,\n    true\n  ],\n  \"a\": {\n    \"x\": \"\\u00e9 </\\u00e9> \\\"y\\\": z,\",\n    \"empty\": {}\n  }\n}";
        check(kept, lines, true);
        check(lines, r#"{"b":[1,2.5,true],"a":{"x":"é </é> \"y\": z,","empty":{}}}"#, true);
        // Go's json.Marshal of a map.
        check(kept, r#"{"a":{"empty":{},"x":"é \u003c/é\u003e \"y\": z,"},"b":[1,2.5,true]}"#, true);
        check(kept, r#"{"b":[1,2.5,true],"a":{"x":"e"}}"#, false);
        check(kept, kept, false);
    }

    #[test]
    fn what_is_no_json_is_not_written_again() {
        for body in ["", "a=1&b=2", "{\"a\":1", "{} {}"] {
            assert_eq!(rewritings(body.as_bytes()), Vec::<Vec<u8>>::new(), "{body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_rewriting_is_the_same_json(text in "\\PC{0,12}", number: i16, nested: bool) {
            let number = f64::from(number) + 0.5;
            let inner = serde_json::json!({ "b": text, "a": [number, null, [], {}] });
            let value = if nested { serde_json::json!({ "outer": inner, "": [inner] }) } else { inner };
            for body in [serde_json::to_vec(&value).unwrap(), serde_json::to_vec_pretty(&value).unwrap()] {
                for rewriting in rewritings(&body) {
                    let read: Value = serde_json::from_slice(&rewriting).unwrap();
                    proptest::prop_assert_eq!(&read, &value, "{}", String::from_utf8_lossy(&rewriting));
                }
            }
        }
    }
}
