//! Every line that the program could write, in the source itself: its fields are those of the closed lists.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use wirehook::logging::{FIELDS, OTHER_FIELDS};

/// One call of a `tracing` macro.
struct Line {
    file: PathBuf,
    text: String,
    fields: Vec<String>,
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The macro's arguments, cut at the commas outside of brackets and strings, without the closing bracket.
fn arguments(text: &str) -> Vec<String> {
    let (mut arguments, mut depth, mut in_string, mut escaped) = (vec![String::new()], 0, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '(' | '[' | '{' if !in_string => depth += 1,
            ')' | ']' | '}' if !in_string && depth == 0 => break,
            ')' | ']' | '}' if !in_string => depth -= 1,
            ',' if !in_string && depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().unwrap().push(c);
    }
    arguments.iter().map(|argument| argument.trim().to_owned()).filter(|argument| !argument.is_empty()).collect()
}

/// The names of the fields: what stands before the message, `target:` aside.
fn fields(arguments: &[String]) -> Vec<String> {
    let fields = arguments.iter().take_while(|argument| !argument.starts_with('"'));
    fields
        .filter(|argument| !argument.starts_with("target:"))
        .map(|argument| {
            let name = argument.split('=').next().unwrap().trim().trim_start_matches(['%', '?']);
            name.rsplit('.').next().unwrap().to_owned()
        })
        .collect()
}

fn lines() -> Vec<Line> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut lines = Vec::new();
    for file in sources(&root) {
        let source = fs::read_to_string(&file).unwrap();
        for level in ["error", "warn", "info", "debug", "trace"] {
            for (_, rest) in
                source.match_indices(&format!("tracing::{level}!(")).map(|(at, name)| (at, &source[at + name.len()..]))
            {
                let arguments = arguments(rest);
                lines.push(Line { file: file.clone(), text: arguments.join(", "), fields: fields(&arguments) });
            }
        }
    }
    lines
}

#[test]
fn every_field_is_in_the_closed_lists() {
    let lines = lines();
    assert!(lines.len() > 80, "only {} lines were found", lines.len());
    for Line { file, text, fields } in &lines {
        for field in fields {
            let known = FIELDS.contains(&field.as_str()) || OTHER_FIELDS.contains(&field.as_str());
            assert!(known, "{}: the field `{field}` is in no list of logging.rs: {text}", file.display());
        }
    }
    for field in OTHER_FIELDS {
        assert!(lines.iter().any(|line| line.fields.iter().any(|it| it == field)), "nothing has the field `{field}`");
    }
}

#[test]
fn a_line_on_the_path_has_the_paths_fields_only_and_says_what_came_of_it() {
    let is_on_path = |line: &&Line| line.fields.iter().any(|field| field == "event_key" || field == "delivery_id");
    let lines = lines();
    let on_path: Vec<_> = lines.iter().filter(is_on_path).filter(|line| !line.file.ends_with("logging.rs")).collect();
    assert!(on_path.len() > 12, "only {} lines were found", on_path.len());
    for Line { file, text, fields } in on_path {
        let has = |name: &str| fields.iter().any(|field| field == name);
        for field in fields {
            assert!(FIELDS.contains(&field.as_str()), "{}: `{field}` has no place on the path: {text}", file.display());
        }
        assert!(!has("delivery_id") || has("event_key"), "{}: a delivery without its event: {text}", file.display());
        assert!(!has("reason") || has("outcome"), "{}: a reason without an outcome: {text}", file.display());
    }
}

#[test]
fn the_fields_are_documented() {
    let documented = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/service.md")).unwrap();
    for field in FIELDS {
        assert!(documented.contains(&format!("| `{field}` |")), "docs/service.md lacks the log field `{field}`");
    }
}
