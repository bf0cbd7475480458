//! Reading a table key by key: known keys are those asked for, everything wrong is collected, every value is recorded.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::load::Environment;
use super::show::{Origin, Shown};
use super::text::Text;

/// The least likeness of an unknown key to a known one for the latter to be suggested.
const LIKENESS_MIN: f64 = 0.75;

/// What the reader of a value is told when it is wrong: the problem is already collected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reported;

/// One reading of one file: where things are, what is wrong so far, what was read so far.
pub(super) struct Context<'a> {
    text: Text<'a>,
    folder: PathBuf,
    pub(super) environment: &'a Environment,
    problems: RefCell<Vec<(usize, Problem)>>,
    warnings: RefCell<Vec<Problem>>,
    shown: RefCell<Vec<Shown>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(path: &Path, text: &'a str, environment: &'a Environment) -> Self {
        let folder = path.parent().unwrap_or(Path::new(""));
        Self {
            text: Text::new(path.display().to_string(), text),
            // Absolute, so that a later change of the working folder changes nothing.
            folder: std::path::absolute(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
                .unwrap_or_else(|_| folder.to_owned()),
            environment,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            shown: RefCell::default(),
        }
    }

    /// The whole file as a section.
    pub(super) fn root(&'a self, table: &'a DeTable<'a>) -> Section<'a> {
        Section::new(self, Some(table), 0, String::new(), "the settings".to_owned())
    }

    /// A path of the settings: relative ones start at the file's folder.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    pub(super) fn at_line(&self, offset: usize) -> String {
        self.text.at_line(offset)
    }

    /// Collects a problem at a byte offset.
    pub(super) fn problem(&self, offset: usize, message: String, help: Option<String>) -> Reported {
        let problem = Problem { message, at: self.text.at(offset), help };
        self.problems.borrow_mut().push((offset, problem));
        Reported
    }

    /// Collects what is allowed but hardly meant.
    pub(super) fn warning(&self, offset: usize, message: String, help: Option<String>) {
        self.warnings.borrow_mut().push(Problem { message, at: self.text.at(offset), help });
    }

    /// Records an effective value.
    pub(super) fn show(&self, key: String, value: Value, origin: Origin) {
        self.shown.borrow_mut().push(Shown { key, value, origin });
    }

    /// Problems in the order of the file, warnings, effective values.
    pub(super) fn take(&self) -> (Vec<Problem>, Vec<Problem>, Vec<Shown>) {
        let mut problems = self.problems.take();
        problems.sort_by_key(|(offset, _)| *offset);
        (problems.into_iter().map(|(_, problem)| problem).collect(), self.warnings.take(), self.shown.take())
    }
}

/// A table, present or absent.
pub(super) struct Section<'a> {
    pub(super) context: &'a Context<'a>,
    table: Option<&'a DeTable<'a>>,
    /// Where it begins.
    pub(super) offset: usize,
    /// As in [`Shown::key`], without the key.
    prefix: String,
    /// As in messages.
    pub(super) title: String,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        context: &'a Context<'a>,
        table: Option<&'a DeTable<'a>>,
        offset: usize,
        prefix: String,
        title: String,
    ) -> Self {
        Self { context, table, offset, prefix, title, asked: RefCell::default() }
    }

    /// The value of a key; from now on the key is a known one.
    pub(super) fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        self.table?.get(key)
    }

    /// The whole key, as in [`Shown::key`].
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }

    /// Every key with its value, in the order of the file; for tables whose keys are free.
    pub(super) fn entries(&self) -> Vec<(&'a str, usize, &'a Spanned<DeValue<'a>>)> {
        let mut entries: Vec<_> = self
            .table
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.get_ref().as_ref(), key.span().start, value))
            .collect();
        entries.sort_by_key(|(_, offset, _)| *offset);
        entries
    }

    /// A table inside this one.
    pub(super) fn table(&self, key: &'static str) -> Section<'a> {
        let title = format!("[{}]", self.path_of(key));
        let (table, offset) = match self.get(key) {
            None => (None, self.offset),
            Some(value) => match value.get_ref() {
                DeValue::Table(table) => (Some(table), value.span().start),
                other => {
                    self.wrong_type(key, value.span().start, "a table", other);
                    (None, value.span().start)
                }
            },
        };
        Section::new(self.context, table, offset, self.path_of(key), title)
    }

    /// An array of tables inside this one: `[[key]]`, each called by its `name` where it has one.
    pub(super) fn tables(&self, key: &'static str) -> Result<Vec<Section<'a>>, Reported> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let DeValue::Array(array) = value.get_ref() else {
            return Err(self.context.problem(
                value.span().start,
                format!("`{}` is {}, not an array of tables", self.path_of(key), article(value.get_ref())),
                Some(format!("write [[{key}]], with two brackets on each side")),
            ));
        };
        let path = self.path_of(key);
        let mut sections = Vec::new();
        for (index, element) in array.iter().enumerate() {
            let DeValue::Table(table) = element.get_ref() else {
                return Err(self.wrong_type(key, element.span().start, "a table", element.get_ref()));
            };
            let name = match table.get("name").map(Spanned::get_ref) {
                Some(DeValue::String(name)) if !name.is_empty() => Some(name.as_ref()),
                _ => None,
            };
            let title = match name {
                Some(name) => format!("[[{path}]] `{name}`"),
                None => format!("[[{path}]] number {}", index + 1),
            };
            let prefix = format!("{path}.{}", name.map_or_else(|| (index + 1).to_string(), str::to_owned));
            sections.push(Section::new(self.context, Some(table), element.span().start, prefix, title));
        }
        Ok(sections)
    }

    /// Refuses every key that was not asked for. Called last.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for (key, offset, _) in self.entries() {
            if asked.contains(&key) {
                continue;
            }
            let help = match nearest(key, &asked) {
                Some(near) => format!("did you mean `{near}`?"),
                None if asked.is_empty() => "remove it".to_owned(),
                None => format!("known here: {}", known(&asked)),
            };
            self.context.problem(offset, format!("unknown key `{key}` in {}", self.title), Some(help));
        }
    }

    /// Collects: `key` in this section `message`.
    pub(super) fn refuse(&self, key: &str, offset: usize, message: impl std::fmt::Display, help: &str) -> Reported {
        let help = (!help.is_empty()).then(|| help.to_owned());
        self.context.problem(offset, format!("`{key}` in {} {message}", self.title), help)
    }

    /// Collects: a required key is missing.
    pub(super) fn missing(&self, key: &str, help: &str) -> Reported {
        self.context.problem(
            self.offset,
            format!("`{key}` is missing in {}", self.title),
            (!help.is_empty()).then(|| help.to_owned()),
        )
    }

    /// Collects: a value of another type.
    pub(super) fn wrong_type(&self, key: &str, offset: usize, wanted: &str, found: &DeValue<'_>) -> Reported {
        self.refuse(key, offset, format_args!("is {}, not {wanted}", article(found)), "")
    }

    /// Records an effective value of this section.
    pub(super) fn show(&self, key: &str, value: Value, origin: Origin) {
        self.context.show(self.path_of(key), value, origin);
    }
}

/// The known name most like `name`, where one is like it at all.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), *candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

/// Known names for a message, sorted, each once.
pub(super) fn known(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// A value's type with its article; never the value.
pub(super) fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_key_is_suggested() {
        let keys = ["name", "url", "secret", "timeout", "concurrency", "retry"];
        let check = |unknown: &str, expected: Option<&str>| assert_eq!(nearest(unknown, &keys), expected, "{unknown}");
        check("conurrency", Some("concurrency"));
        check("secrets", Some("secret"));
        check("time_out", Some("timeout"));
        check("colour", None);
    }
}
