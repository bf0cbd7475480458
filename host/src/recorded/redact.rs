//! Taking what is private out of a recorded event, for certain: a path that matches nothing is an error, and so is a
//! value that was taken out in one place and is still there in another.

use std::collections::BTreeSet;

use thiserror::Error;

use super::json::{JsonError, rewrite};

/// Paths of one event.
pub const PATHS_MAX: usize = 256;
/// Places that an error names.
const PLACES_SHOWN_MAX: usize = 10;
/// A redacted text or number that is shorter is not looked for elsewhere: `1` and `EUR` are everywhere.
const TRACE_BYTES_MIN: usize = 4;
/// What takes a text's place.
const TEXT: &str = "\"redacted\"";

/// Why an event was not redacted. Nothing is written then.
#[derive(Debug, Error)]
pub enum RedactError {
    /// Not a path.
    #[error(
        "`{path}` is no path: begin with a slash, as in /entity/customer/email; * stands for every member or element"
    )]
    Path {
        /// As it was given.
        path: String,
    },
    /// Too many.
    #[error("more than {PATHS_MAX} paths are given")]
    TooMany,
    /// Nothing is there.
    #[error("nothing is at `{path}` in the event")]
    Nothing {
        /// As it was given.
        path: String,
    },
    /// The same value is elsewhere too.
    #[error("what was redacted is still at {}", places.join(", "))]
    Left {
        /// Where; the first few.
        places: Vec<String>,
    },
    /// The event is not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// Replaces what is at each of `paths` by a value of the same kind that says nothing. A path is a JSON pointer in which
/// `*` stands for every member or element; `prefix` is put before each.
///
/// # Errors
/// A path matches nothing, or what it matches is elsewhere too.
pub fn redact(text: &str, prefix: &str, paths: &[String]) -> Result<String, RedactError> {
    if paths.len() > PATHS_MAX {
        return Err(RedactError::TooMany);
    }
    let patterns = paths.iter().map(|path| Pattern::parse(prefix, path)).collect::<Result<Vec<_>, _>>()?;
    let mut found = vec![false; paths.len()];
    let mut taken = Vec::new();
    let redacted = rewrite(text, &mut |path, raw| {
        let mut is_meant = false;
        for (pattern, found) in patterns.iter().zip(&mut found) {
            // One that reaches into what another has taken out has matched as well.
            let inside = pattern.0.len() > path.len() && patterns.iter().any(|other| other.matches(path));
            if pattern.matches(path) || (inside && matches_within(pattern, path, raw)) {
                *found = true;
            }
            is_meant |= pattern.matches(path);
        }
        is_meant.then(|| {
            taken.push(raw.to_owned());
            nothing_like(raw).to_owned()
        })
    })?;
    if let Some((path, _)) = paths.iter().zip(&found).find(|(_, found)| !**found) {
        return Err(RedactError::Nothing { path: path.clone() });
    }
    let mut traces = BTreeSet::new();
    for raw in &taken {
        scalars(raw, &mut |_, scalar| {
            if scalar.len() >= TRACE_BYTES_MIN && !matches!(scalar, "true" | "false" | "null") {
                traces.insert(scalar.to_owned());
            }
        })?;
    }
    let mut places = Vec::new();
    scalars(&redacted, &mut |path, scalar| {
        let names = path.last().map_or("", String::as_str);
        let is_left = |trace: &String| scalar.contains(trace.as_str()) || names.contains(trace.as_str());
        if places.len() < PLACES_SHOWN_MAX && traces.iter().any(is_left) {
            places.push(shown(prefix, path));
        }
    })?;
    if places.is_empty() { Ok(redacted) } else { Err(RedactError::Left { places }) }
}

struct Pattern(Vec<String>);

impl Pattern {
    fn parse(prefix: &str, path: &str) -> Result<Self, RedactError> {
        let tokens = path.strip_prefix('/').filter(|tokens| !tokens.is_empty());
        let tokens = tokens.ok_or_else(|| RedactError::Path { path: path.to_owned() })?;
        let own = tokens.split('/').map(|token| token.replace("~1", "/").replace("~0", "~"));
        Ok(Self(std::iter::once(prefix.to_owned()).filter(|prefix| !prefix.is_empty()).chain(own).collect()))
    }

    fn matches(&self, path: &[String]) -> bool {
        self.0.len() == path.len() && self.0.iter().zip(path).all(|(token, name)| token == "*" || token == name)
    }
}

/// Whether `pattern` leads to something within `raw`, which is at `path`.
fn matches_within(pattern: &Pattern, path: &[String], raw: &str) -> bool {
    let mut found = false;
    let walked = rewrite(raw, &mut |inner, _| {
        found |= pattern.matches(&[path, inner].concat());
        None
    });
    found && walked.is_ok()
}

/// Of the same kind: a plugin that expects a number still finds one.
fn nothing_like(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'"') => TEXT,
        Some(b'{') => "{}",
        Some(b'[') => "[]",
        Some(b't' | b'f') => "false",
        Some(b'n') | None => "null",
        Some(_) => "0",
    }
}

/// Every text, decoded, and every other scalar as it is written.
fn scalars(text: &str, each: &mut dyn FnMut(&[String], &str)) -> Result<(), JsonError> {
    rewrite(text, &mut |path, raw| {
        match raw.as_bytes().first() {
            Some(b'{' | b'[') => {}
            Some(b'"') => each(path, &serde_json::from_str::<String>(raw).unwrap_or_default()),
            _ => each(path, raw),
        }
        None
    })?;
    Ok(())
}

fn shown(prefix: &str, path: &[String]) -> String {
    let own = path.iter().skip(usize::from(!prefix.is_empty()));
    own.map(|token| format!("/{}", token.replace('~', "~0").replace('/', "~1"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"e":{"entity":{"email":"ada@example.com","total":129.50,"lines":[{"note":"ring twice"},{"note":"leave it"}],"ok":true},"previous":null}}"#;

    fn check(paths: &[&str]) -> Result<String, String> {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        let redacted = redact(EVENT, "e", &paths).map_err(|error| error.to_string())?;
        Ok(redacted.split_whitespace().collect())
    }

    #[test]
    fn what_is_at_a_path_is_replaced_by_its_like_and_nothing_else_is_touched() {
        assert_eq!(
            check(&["/entity/email", "/entity/lines/*/note", "/entity/ok"]).unwrap(),
            r#"{"e":{"entity":{"email":"redacted","total":129.50,"lines":[{"note":"redacted"},{"note":"redacted"}],"ok":false},"previous":null}}"#
        );
        assert_eq!(
            check(&["/entity/total", "/entity/lines", "/entity/lines/1/note", "/previous"]).unwrap(),
            r#"{"e":{"entity":{"email":"ada@example.com","total":0,"lines":[],"ok":true},"previous":null}}"#
        );
    }

    #[test]
    fn a_path_that_matches_nothing_is_an_error() {
        for path in ["/entity/mail", "/entity/lines/2/note", "/entity/*/email", "/email"] {
            assert_eq!(check(&["/entity/email", path]).unwrap_err(), format!("nothing is at `{path}` in the event"));
        }
        for path in ["entity/email", "", "/"] {
            assert!(check(&[path]).unwrap_err().contains("is no path"), "{path}");
        }
    }

    #[test]
    fn a_value_that_is_elsewhere_too_is_an_error_that_says_where() {
        let event =
            r#"{"email":"ada@example.com","a":{"text":"write to \u0061da@example.com"},"b":{"ada@example.com":1}}"#;
        let error = redact(event, "", &["/email".to_owned()]).unwrap_err();
        let RedactError::Left { places } = error else { panic!("{error}") };
        assert_eq!(places, ["/a/text", "/b/ada@example.com"]);
        assert!(redact(event, "", &["/email".to_owned(), "/a".to_owned(), "/b".to_owned()]).is_ok());
    }
}
