//! For a plugin's native tests: events to call its function with, its config, and the lines it logged.
//!
//! Config, state and log lines belong to the thread, and `cargo test` gives each test its own.
//!
//! ```
//! use wirehook_sdk::{Event, test};
//!
//! // As the host makes it of a message in any of FraiseQL's formats:
//! let event: Event = test::from_message(
//!     r#"{"event": "fraiseql.order.created", "entity_type": "order", "operation": "created",
//!         "entity_id": "550e8400", "entity": {"total": 129.5}, "timestamp": "2026-03-02T14:00:00Z"}"#,
//! );
//! assert_eq!(event.entity_id.as_deref(), Some("550e8400"));
//!
//! // Or made by hand:
//! let event: Event = test::event("fraiseql.order.deleted").entity_id("550e8400").attempt(2).build();
//! assert_eq!(event.operation, "deleted");
//! ```

mod message;

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::bindings::wirehook::plugin::types;
use crate::log::Level;
use crate::state::Refused;
use crate::{Event, Failure, Webhook};

pub use message::from_message;

thread_local! {
    static CONFIG: RefCell<BTreeMap<String, String>> = const { RefCell::new(BTreeMap::new()) };
    static STATE: RefCell<BTreeMap<String, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    static LOGS: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// Log lines kept for one test; later ones are dropped. The host's own budget is 100.
pub const LOG_LINES_MAX: usize = 10_000;

/// Sets what [`crate::config::get`] answers for `name` in this test.
pub fn config(name: impl Into<String>, value: impl Into<String>) {
    CONFIG.with_borrow_mut(|config| config.insert(name.into(), value.into()));
}

pub(crate) fn state_value(key: &str) -> Option<Vec<u8>> {
    STATE.with_borrow(|state| state.get(key).cloned())
}

pub(crate) fn set_state(key: &str, value: &[u8]) -> Result<(), Refused> {
    /// As the host has them.
    const KEY_BYTES: std::ops::RangeInclusive<usize> = 1..=256;
    const VALUE_BYTES_MAX: usize = 64 << 10;
    if !KEY_BYTES.contains(&key.len()) {
        return Err(Refused::Key);
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(Refused::Value);
    }
    STATE.with_borrow_mut(|state| state.insert(key.to_owned(), value.to_vec()));
    Ok(())
}

pub(crate) fn delete_state(key: &str) {
    STATE.with_borrow_mut(|state| state.remove(key));
}

/// Takes the lines logged in this test since the last call, in order.
pub fn logs() -> Vec<(Level, String)> {
    LOGS.take()
}

/// Calls a plugin's function with a message in any of FraiseQL's formats, as the host would.
///
/// # Errors
/// As the plugin's function.
///
/// # Panics
/// The message is not JSON; see [`from_message`].
#[track_caller]
pub fn call<T>(
    handler: fn(Event<T>) -> Result<Vec<Webhook>, Failure>,
    message: impl AsRef<[u8]>,
) -> Result<Vec<Webhook>, Failure> {
    handler(from_message(message))
}

/// Begins an event of this subject; `fraiseql.{entity_type}.{operation}` sets those two as well.
pub fn event(subject: impl Into<String>) -> EventBuilder {
    let subject = subject.into();
    let (entity_type, operation) = match subject.split('.').collect::<Vec<_>>()[..] {
        ["fraiseql", entity_type, operation] => (entity_type.to_owned(), operation.to_owned()),
        _ => (String::new(), "custom".to_owned()),
    };
    let format = if entity_type.is_empty() { "json" } else { "page" };
    EventBuilder(types::Event {
        key: "test/once/1".to_owned(),
        attributes: [("source", "test"), ("format", format), ("raw_subject", &subject)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        subject,
        entity_type,
        operation,
        entity_id: None,
        tenant_id: None,
        timestamp: None,
        entity: None,
        previous: None,
        attempt: 1,
    })
}

/// An event under construction; see [`event`].
#[derive(Clone, Debug)]
#[must_use = "call `build` for the event"]
pub struct EventBuilder(types::Event);

impl EventBuilder {
    /// Sets the key; `test/once/1` by default.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.key = key.into();
        self
    }

    /// Sets the entity's id.
    pub fn entity_id(mut self, id: impl Into<String>) -> Self {
        self.0.entity_id = Some(id.into());
        self
    }

    /// Sets the tenant's id.
    pub fn tenant_id(mut self, id: impl Into<String>) -> Self {
        self.0.tenant_id = Some(id.into());
        self
    }

    /// Sets the timestamp, in RFC 3339.
    pub fn timestamp(mut self, timestamp: impl Into<String>) -> Self {
        self.0.timestamp = Some(timestamp.into());
        self
    }

    /// Sets the entity to `value` as JSON.
    ///
    /// # Panics
    /// `value` does not serialize.
    #[track_caller]
    pub fn entity(mut self, value: &impl Serialize) -> Self {
        self.0.entity = Some(json_bytes(value));
        self
    }

    /// Sets the entity to these bytes, JSON or not.
    pub fn entity_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.entity = Some(bytes.into());
        self
    }

    /// Sets the previous entity to `value` as JSON.
    ///
    /// # Panics
    /// `value` does not serialize.
    #[track_caller]
    pub fn previous(mut self, value: &impl Serialize) -> Self {
        self.0.previous = Some(json_bytes(value));
        self
    }

    /// Sets an attribute, such as `seq` or `header.x-shop`.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.0.attributes.retain(|(known, _)| *known != name);
        self.0.attributes.push((name, value));
        self
    }

    /// Sets which try this is; 1 by default.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.0.attempt = attempt;
        self
    }

    /// The event.
    pub fn build<T>(self) -> Event<T> {
        Event::from_contract(self.0)
    }
}

#[track_caller]
fn json_bytes(value: &impl Serialize) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(json) => json,
        Err(error) => panic!("the entity does not serialize: {error}"),
    }
}

pub(crate) fn record_log(level: Level, message: &str) {
    LOGS.with_borrow_mut(|logs| {
        if logs.len() < LOG_LINES_MAX {
            logs.push((level, message.to_owned()));
        }
    });
}

pub(crate) fn config_value(name: &str) -> Option<String> {
    CONFIG.with_borrow(|config| config.get(name).cloned())
}

pub(crate) fn config_values() -> Vec<(String, String)> {
    CONFIG.with_borrow(|config| config.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}
