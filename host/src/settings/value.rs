//! One value: a literal, `{ env = "X" }`, `{ env = "X", default = "…" }` or `{ file = "…" }`; its type and bounds.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::kinds::Setting;
use super::load::read_bounded;
use super::section::{Reported, Section, article};
use super::show::{Origin, REDACTED};
use crate::secret::Secret;
use crate::secret::standard::{self, Oddity};

/// The largest file that `{ file = "…" }` reads, in bytes.
pub const VALUE_FILE_BYTES_MAX: u64 = 64 * 1024;
/// The most elements of one array.
pub const LIST_LEN_MAX: usize = 1024;

const SECRET_HELP: &str = "write { env = \"NAME\" } or { file = \"path\" }";

/// A string and where it comes from.
pub(super) struct Found {
    pub(super) text: String,
    pub(super) origin: Origin,
    pub(super) offset: usize,
}

impl Found {
    /// The text for a message, where it was written in the settings themselves.
    pub(super) fn quoted(&self, private: bool) -> String {
        match &self.origin {
            Origin::Variable(name) | Origin::VariableDefault(name, _) => format!(": found the value of ${name}"),
            Origin::File(path) => format!(": found the content of {path}"),
            // Or whatever its kind, where a URL with credentials was written to the wrong key.
            _ if private || (self.text.contains("://") && self.text.contains(['@', '?'])) => String::new(),
            _ => format!(": found `{}`", self.text),
        }
    }
}

impl<'a> Section<'a> {
    /// An optional value.
    pub(super) fn optional<T: Setting>(&self, key: &'static str) -> Result<Option<T>, Reported> {
        self.optional_if(key, |_| Ok(()))
    }

    /// An optional value that also passes `check`, which says what is wrong as a predicate.
    pub(super) fn optional_if<T: Setting>(
        &self,
        key: &'static str,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> Result<Option<T>, Reported> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let found = self.resolve_as::<T>(key, value)?;
        let read = self.read(key, &found, &check)?;
        self.show(key, Value::String(read.show()), found.origin);
        Ok(Some(read))
    }

    /// A value that must be there.
    pub(super) fn required<T: Setting>(&self, key: &'static str) -> Result<T, Reported> {
        self.optional(key)?.ok_or_else(|| self.missing(key, T::EXPECTED))
    }

    /// A value with a default.
    pub(super) fn or_default<T: Setting>(&self, key: &'static str, default: T) -> Result<T, Reported> {
        self.or_default_if(key, default, |_| Ok(()))
    }

    /// A value with a default that also passes `check`.
    pub(super) fn or_default_if<T: Setting>(
        &self,
        key: &'static str,
        default: T,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> Result<T, Reported> {
        match self.optional_if(key, check)? {
            Some(value) => Ok(value),
            None => {
                self.show(key, Value::String(default.show()), Origin::Default);
                Ok(default)
            }
        }
    }

    /// An array; empty when absent.
    pub(super) fn list<T: Setting>(&self, key: &'static str) -> Result<Vec<T>, Reported> {
        let Some(value) = self.get(key) else {
            self.show(key, Value::Array(Vec::new()), Origin::Default);
            return Ok(Vec::new());
        };
        let DeValue::Array(array) = value.get_ref() else {
            let offset = value.span().start;
            return Err(self.wrong_type(key, offset, "an array of strings", value.get_ref()));
        };
        if array.len() > LIST_LEN_MAX {
            return Err(self.refuse(
                key,
                value.span().start,
                format_args!("has more than {LIST_LEN_MAX} elements"),
                "",
            ));
        }
        let elements: Vec<Result<T, Reported>> = array
            .iter()
            .map(|element| self.resolve_as::<T>(key, element).and_then(|found| self.read(key, &found, &|_| Ok(()))))
            .collect();
        let elements: Vec<T> = elements.into_iter().collect::<Result<_, _>>()?;
        let shown = elements.iter().map(|element| Value::String(element.show())).collect();
        self.show(key, Value::Array(shown), Origin::Settings(self.context.at_line(value.span().start)));
        Ok(elements)
    }

    /// `true` or `false`, with a default.
    pub(super) fn boolean(&self, key: &'static str, default: bool) -> Result<bool, Reported> {
        let Some(value) = self.get(key) else {
            self.show(key, Value::Bool(default), Origin::Default);
            return Ok(default);
        };
        let offset = value.span().start;
        let DeValue::Boolean(read) = value.get_ref() else {
            return Err(self.wrong_type(key, offset, "true or false", value.get_ref()));
        };
        self.show(key, Value::Bool(*read), Origin::Settings(self.context.at_line(offset)));
        Ok(*read)
    }

    /// A whole number with a default and bounds.
    pub(super) fn integer(
        &self,
        key: &'static str,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> Result<u64, Reported> {
        let Some(value) = self.get(key) else {
            self.show(key, default.into(), Origin::Default);
            return Ok(default);
        };
        let DeValue::Integer(integer) = value.get_ref() else {
            return Err(self.wrong_type(key, value.span().start, "an integer", value.get_ref()));
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if bounds.contains(&number) => {
                self.show(key, number.into(), Origin::Settings(self.context.at_line(value.span().start)));
                Ok(number)
            }
            _ => Err(self.out_of_bounds(key, value.span().start, integer, bounds.start(), bounds.end())),
        }
    }

    /// A number with a default and bounds.
    pub(super) fn float(&self, key: &'static str, default: f64, bounds: RangeInclusive<f64>) -> Result<f64, Reported> {
        let Some(value) = self.get(key) else {
            self.show(key, default.into(), Origin::Default);
            return Ok(default);
        };
        let text = match value.get_ref() {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) => integer.as_str(),
            other => return Err(self.wrong_type(key, value.span().start, "a number", other)),
        };
        match text.parse::<f64>() {
            Ok(number) if bounds.contains(&number) => {
                self.show(key, number.into(), Origin::Settings(self.context.at_line(value.span().start)));
                Ok(number)
            }
            _ => Err(self.out_of_bounds(key, value.span().start, text, bounds.start(), bounds.end())),
        }
    }

    fn out_of_bounds(
        &self,
        key: &str,
        offset: usize,
        found: impl Display,
        least: impl Display,
        most: impl Display,
    ) -> Reported {
        self.refuse(key, offset, format_args!("is {found}, which is not within {least} to {most}"), "")
    }

    /// An optional secret: only from a variable or a file of its own, and never empty.
    pub(super) fn secret(&self, key: &'static str) -> Result<Option<Secret>, Reported> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let (secret, origin) = self.one_secret(key, value)?;
        self.show(key, Value::from(REDACTED), origin);
        Ok(Some(secret))
    }

    /// One secret and its origin.
    pub(super) fn one_secret(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Result<(Secret, Origin), Reported> {
        let (secret, origin, ()) = self.one_secret_and(key, value, |_| ())?;
        self.warn_of(key, value.span().start, standard::oddities(secret.expose()), "every byte of it counts");
        Ok((secret, origin))
    }

    /// Warns of what is hardly meant in the secret `key`, of which nothing is printed; `consequence` is what follows.
    pub(super) fn warn_of(&self, key: &str, offset: usize, oddities: Vec<Oddity>, consequence: &str) {
        for oddity in oddities {
            let message = format!("`{key}` in {} {oddity}; {consequence}", self.title);
            let help = "copy it again where that is not meant; a file is best written with printf '%s'";
            self.context.warning(offset, message, Some(help.to_owned()));
        }
    }

    /// One secret, its origin, and what `more` reads of the table that says where it is.
    pub(super) fn one_secret_and<T>(
        &self,
        key: &str,
        value: &'a Spanned<DeValue<'a>>,
        more: impl FnOnce(&Section<'a>) -> T,
    ) -> Result<(Secret, Origin, T), Reported> {
        let offset = value.span().start;
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.refuse(key, offset, "is a secret, and stands in the settings as it is", SECRET_HELP));
        };
        if table.contains_key("default") {
            return Err(self.refuse(
                key,
                offset,
                "is a secret, and its default stands in the settings as it is",
                SECRET_HELP,
            ));
        }
        let (found, more) = self.place(key, table, offset, more);
        let found = found?;
        if found.text.is_empty() {
            let message = format_args!("is empty: {} holds nothing", named(&found.origin));
            return Err(self.refuse(key, offset, message, "put the secret there"));
        }
        Ok((Secret::new(found.text.as_bytes()), found.origin, more))
    }

    /// The string that a value stands for.
    pub(super) fn resolve(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Result<Found, Reported> {
        let offset = value.span().start;
        let here = || Origin::Settings(self.context.at_line(offset));
        match value.get_ref() {
            DeValue::String(text) => Ok(Found { text: text.to_string(), origin: here(), offset }),
            DeValue::Datetime(datetime) => Ok(Found { text: datetime.to_string(), origin: here(), offset }),
            DeValue::Table(table) => self.place(key, table, offset, |_| ()).0,
            other => Err(self.wrong_type(key, offset, "a string", other)),
        }
    }

    /// The string at the place that a table names, and what `more` reads of that table.
    fn place<T>(
        &self,
        key: &str,
        table: &'a DeTable<'a>,
        offset: usize,
        more: impl FnOnce(&Section<'a>) -> T,
    ) -> (Result<Found, Reported>, T) {
        let inner = Section::new(self.context, Some(table), offset, String::new(), format!("`{key}`"));
        let part = |name: &'static str| match inner.get(name).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text.to_string())),
            Some(other) => Err(inner.wrong_type(name, offset, "a string", other)),
        };
        let parts = (part("env"), part("default"), part("file"));
        let more = more(&inner);
        inner.finish();
        let found = || match (parts.0?, parts.1?, parts.2?) {
            (Some(name), default, None) => self.variable(key, offset, name, default),
            (None, None, Some(path)) => self.file(key, offset, &path),
            _ => Err(self.refuse(
                key,
                offset,
                "does not say where its value is",
                "write { env = \"NAME\" }, { env = \"NAME\", default = \"…\" } or { file = \"path\" }",
            )),
        };
        (found(), more)
    }

    /// As [`Self::resolve`]; a value of another type is told what `T` expects.
    fn resolve_as<T: Setting>(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Result<Found, Reported> {
        match value.get_ref() {
            DeValue::String(_) | DeValue::Datetime(_) | DeValue::Table(_) => self.resolve(key, value),
            other => {
                let message = format_args!("is {}, not a string", article(other));
                Err(self.refuse(key, value.span().start, message, T::EXPECTED))
            }
        }
    }

    fn variable(&self, key: &str, offset: usize, name: String, default: Option<String>) -> Result<Found, Reported> {
        match (self.context.environment.variable(&name).map(std::ffi::OsString::into_string), default) {
            (Some(Ok(text)), _) => Ok(Found { text, origin: Origin::Variable(name), offset }),
            (Some(Err(_)), _) => {
                Err(self.refuse(key, offset, format_args!("reads ${name}, which is not UTF-8 text"), ""))
            }
            (None, Some(text)) => {
                Ok(Found { text, origin: Origin::VariableDefault(name, self.context.at_line(offset)), offset })
            }
            (None, None) => Err(self.refuse(
                key,
                offset,
                format_args!("reads the environment variable {name}, which is not set"),
                &format!("set {name} in the environment of wirehook, or write {{ file = \"path\" }}"),
            )),
        }
    }

    fn file(&self, key: &str, offset: usize, path: &str) -> Result<Found, Reported> {
        let shown = self.context.path(path);
        match read_value_file(&shown) {
            Ok(text) => Ok(Found { text, origin: Origin::File(path.to_owned()), offset }),
            Err(error) => Err(self.refuse(
                key,
                offset,
                format_args!("reads the file {path}, which can't be read: {error}"),
                "relative paths start at the folder of the settings file",
            )),
        }
    }

    /// Reads a resolved string as a type and checks it.
    pub(super) fn read<T: Setting>(
        &self,
        key: &str,
        found: &Found,
        check: &impl Fn(&T) -> Result<(), String>,
    ) -> Result<T, Reported> {
        T::read(&found.text).and_then(|value| check(&value).map(|()| value)).map_err(|message| {
            let message = format!("{message}{}", found.quoted(T::PRIVATE));
            self.refuse(key, found.offset, message, T::EXPECTED)
        })
    }
}

/// The text of a file that holds one value: without one newline at its end, as editors and `echo` add it; more would be
/// part of the value.
pub(crate) fn read_value_file(path: &Path) -> std::io::Result<String> {
    let bytes = read_bounded(path, VALUE_FILE_BYTES_MAX)?;
    let mut text = String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8 text"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn named(origin: &Origin) -> String {
    match origin {
        Origin::Variable(name) => format!("${name}"),
        other => other.to_string(),
    }
}
