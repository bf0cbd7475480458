//! Every reason for a dead letter is documented.

use super::{File, Finding};

const SOURCE: &str = "host/src/dead_letter.rs";
const DOCUMENT: &str = "host/docs/dead-letters.md";

/// Looks each reason up in the document, where there is one.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let text = |path: &str| files.iter().find(|file| file.path == path).and_then(|file| file.text.as_deref());
    match (text(SOURCE), text(DOCUMENT)) {
        (Some(source), Some(document)) => undocumented(source, document),
        _ => Vec::new(),
    }
}

fn undocumented(source: &str, document: &str) -> Vec<Finding> {
    names(source)
        .filter(|name| !document.contains(&format!("`{name}`")))
        .map(|name| Finding::error(DOCUMENT, format!("says nothing of the reason `{name}`, which {SOURCE} has")))
        .collect()
}

/// The names in lines such as `TooLarge = "too_large",`.
fn names(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| {
        let (variant, name) = line.trim().split_once(" = \"")?;
        let name = name.strip_suffix("\",")?;
        variant.chars().all(char::is_alphanumeric).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::{File, check};

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), bytes: 0, text: Some(text.to_owned()) }
    }

    #[test]
    fn every_reason_is_in_the_document_if_there_is_one() {
        let source = file(
            super::SOURCE,
            "reasons! {\n    /// Too large.\n    TooLarge = \"too_large\",\n    Gone = \"gone\",\n}",
        );
        let document = file(super::DOCUMENT, "| `gone` | it is gone |");
        let findings = check(&[source, document]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].message.contains("`too_large`"));
        assert!(check(&[file(super::SOURCE, "Gone = \"gone\",")]).is_empty());
    }
}
