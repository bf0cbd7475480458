//! Recorded events: files that a plugin is tried on without a bus, each with what is expected of it beside it.
//!
//! `orders.json` is a message as a bus carries it, in any of FraiseQL's formats or other JSON, or an event as a host had
//! it: an object with the one member `wirehook_event`. `orders.webhooks.json` is its golden file.

pub mod diff;
pub mod golden;
mod json;
pub mod redact;
pub mod trial;

#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

pub use json::{JsonError, indented};

use crate::encoding;
use crate::event::decode::{Fields, Undecodable, decode};
use crate::event::{Event, EventKey, Message};

/// Events of one folder.
pub const EVENTS_MAX: usize = 10_000;
/// Bytes of one event's file: the largest event a host may be told to accept, and room around it.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// What a golden file's name ends in.
const GOLDEN_END: &str = ".webhooks.json";
/// What every other file's name ends in.
const EVENT_END: &str = ".json";
/// The source of a recorded message.
const SOURCE: &str = "test";

/// An event as it is kept outside the host: what a plugin is given, and nothing else. JSON is text here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecordedEvent {
    /// Its key.
    pub key: String,
    /// Its subject.
    pub subject: String,
    /// Empty where the format was not recognised.
    #[serde(default)]
    pub entity_type: String,
    /// `created`, `updated`, `deleted` or `custom`.
    pub operation: String,
    /// The entity's id.
    #[serde(default)]
    pub entity_id: Option<String>,
    /// The tenant's id.
    #[serde(default)]
    pub tenant_id: Option<String>,
    /// As the publisher wrote it.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// JSON after the change.
    #[serde(default)]
    pub entity: Option<String>,
    /// JSON before the change.
    #[serde(default)]
    pub previous: Option<String>,
    /// Names and values, in order.
    #[serde(default)]
    pub attributes: Vec<(String, String)>,
}

/// The same as a file has it: JSON as JSON, its digits untouched.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventInFile {
    key: String,
    subject: String,
    #[serde(default)]
    entity_type: String,
    operation: String,
    #[serde(default)]
    entity_id: Option<String>,
    #[serde(default)]
    tenant_id: Option<String>,
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(default)]
    entity: Option<Box<RawValue>>,
    #[serde(default)]
    previous: Option<Box<RawValue>>,
    #[serde(default)]
    attributes: Vec<(String, String)>,
    #[serde(default = "first_attempt")]
    attempt: u32,
}

#[derive(Serialize, Deserialize)]
struct EventFile {
    wirehook_event: EventInFile,
}

/// A file with its event.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The file's name without `.json`.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// The event.
    pub event: Event,
    /// Which try of the run it is, from 1.
    pub attempt: u32,
}

/// Why there is no event, or nothing to write.
#[derive(Debug, Error)]
pub enum RecordedError {
    /// A file or folder can't be read.
    #[error("{} can't be read: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing to try.
    #[error("there is no event in {}; put one in a file that ends in .json", folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
    /// Too much to try.
    #[error("there are more than {EVENTS_MAX} files in {}; use several folders", folder.display())]
    TooMany {
        /// The folder.
        folder: PathBuf,
    },
    /// Over [`FILE_BYTES_MAX`].
    #[error("{} is larger than {FILE_BYTES_MAX} bytes, which no event is", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A host would refuse it too.
    #[error("{}: {source}", path.display())]
    Undecodable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Undecodable,
    },
    /// `wirehook_event` is not one.
    #[error("{}: its `wirehook_event` is none: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
}

impl From<&Event> for RecordedEvent {
    fn from(event: &Event) -> Self {
        let text = |json: &Option<Bytes>| json.as_ref().map(|json| String::from_utf8_lossy(json).into_owned());
        Self {
            key: event.key.as_str().to_owned(),
            subject: event.subject.clone(),
            entity_type: event.entity_type.clone(),
            operation: event.operation.clone(),
            entity_id: event.entity_id.clone(),
            tenant_id: event.tenant_id.clone(),
            timestamp: event.timestamp.clone(),
            entity: text(&event.entity),
            previous: text(&event.previous),
            attributes: event.attributes.clone(),
        }
    }
}

impl RecordedEvent {
    /// As a file has it: indented, where it is not nested too deeply for that.
    ///
    /// # Errors
    /// The entity is not JSON.
    pub fn to_file(&self) -> Result<String, JsonError> {
        let raw = |json: &Option<String>| json.clone().map(RawValue::from_string).transpose();
        let file = EventFile {
            wirehook_event: EventInFile {
                key: self.key.clone(),
                subject: self.subject.clone(),
                entity_type: self.entity_type.clone(),
                operation: self.operation.clone(),
                entity_id: self.entity_id.clone(),
                tenant_id: self.tenant_id.clone(),
                timestamp: self.timestamp.clone(),
                entity: raw(&self.entity)?,
                previous: raw(&self.previous)?,
                attributes: self.attributes.clone(),
                attempt: first_attempt(),
            },
        };
        let text = serde_json::to_string(&file)?;
        match indented(&text) {
            Err(JsonError::Deep) => Ok(text),
            indented => indented,
        }
    }
}

impl Recorded {
    /// Reads one event's file. A message in none of FraiseQL's formats has the file's name as its subject.
    ///
    /// # Errors
    /// It can't be read, or is no event.
    pub fn read(file: &Path) -> Result<Self, RecordedError> {
        let bytes = Bytes::from(read(file)?);
        let text = bytes.slice_ref(encoding::without_mark(&bytes));
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(EVENT_END).unwrap_or(&name).to_owned();
        let recorded = |event, attempt| Self { name: name.clone(), file: file.to_owned(), event, attempt };
        // Only whether the member is there: what is wrong with it is said below.
        // An array would fill the struct by position.
        let has_event = text.trim_ascii_start().starts_with(b"{")
            && serde_json::from_slice::<Marker>(&text).is_ok_and(|marker| marker.wirehook_event.is_some());
        if has_event {
            let malformed =
                |error: serde_json::Error| RecordedError::Malformed { path: file.to_owned(), what: error.to_string() };
            let EventFile { wirehook_event } = serde_json::from_slice(&text).map_err(malformed)?;
            let attempt = wirehook_event.attempt;
            return Ok(recorded(wirehook_event.into(), attempt));
        }
        let message = Message { subject: name.as_str().into(), payload: text, headers: Vec::new(), position: None };
        let event = decode(&SOURCE.into(), &message, Fields::none(), || name.clone());
        let event = event.map_err(|source| RecordedError::Undecodable { path: file.to_owned(), source })?;
        Ok(recorded(event, first_attempt()))
    }

    /// Where what is expected of it is kept.
    pub fn golden(&self) -> PathBuf {
        self.file.with_file_name(format!("{}{GOLDEN_END}", self.name))
    }
}

#[derive(Deserialize)]
struct Marker {
    #[serde(default)]
    wirehook_event: Option<serde::de::IgnoredAny>,
}

impl From<EventInFile> for Event {
    fn from(event: EventInFile) -> Self {
        let bytes = |json: Option<Box<RawValue>>| json.map(|json| Bytes::from(json.get().to_owned()));
        let source = event.attributes.iter().find(|(name, _)| name == "source");
        Self {
            key: EventKey::from_stored(event.key),
            source: source.map_or(SOURCE, |(_, source)| source).into(),
            subject: event.subject,
            entity_type: event.entity_type,
            operation: event.operation,
            entity_id: event.entity_id,
            tenant_id: event.tenant_id,
            timestamp: event.timestamp,
            entity: bytes(event.entity),
            previous: bytes(event.previous),
            attributes: event.attributes,
            // Tells a redelivery from a conflict, of which there is neither here.
            body_digest: [0; 16],
        }
    }
}

/// The events' files of a folder, by name.
///
/// # Errors
/// The folder can't be read, has none or too many.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, RecordedError> {
    let failed = |source| RecordedError::Read { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(EVENT_END) && !name.ends_with(GOLDEN_END) {
            files.push(path);
        }
        if files.len() > EVENTS_MAX {
            return Err(RecordedError::TooMany { folder: folder.to_owned() });
        }
    }
    if files.is_empty() {
        return Err(RecordedError::Empty { folder: folder.to_owned() });
    }
    files.sort();
    Ok(files)
}

/// A whole file, bounded.
fn read(path: &Path) -> Result<Vec<u8>, RecordedError> {
    let failed = |source| RecordedError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(RecordedError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// What is expected, as it was written; none where nothing was.
///
/// # Errors
/// It is there and can't be read.
pub fn read_golden(recorded: &Recorded) -> Result<Option<String>, RecordedError> {
    match read(&recorded.golden()) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(RecordedError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn first_attempt() -> u32 {
    1
}
