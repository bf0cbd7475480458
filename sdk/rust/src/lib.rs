//! Write a Wirehook plugin in Rust.
//!
//! A plugin is one function: an [`Event`] in, [`Webhook`]s out. Wirehook does the rest: it receives the event, keeps it
//! durably, runs the plugin in a sandbox, signs the webhooks, delivers and retries them.
//!
//! ```toml
//! # Cargo.toml
//! [package]
//! name = "orders"
//! version = "0.1.0"
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! serde = { version = "1", features = ["derive"] }
//! wirehook-sdk = { git = "https://github.com/wirehook/wirehook" }
//! ```
//!
//! ```
//! // src/lib.rs
//! use serde::{Deserialize, Serialize};
//! use wirehook_sdk::{Event, Failure, Webhook, config, log};
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     customer_email: Option<String>,
//!     total: Option<f64>,
//! }
//!
//! #[derive(Serialize)]
//! struct OrderCreated<'a> {
//!     event: &'static str,
//!     order_id: Option<&'a str>,
//!     customer_email: Option<String>,
//!     total: Option<f64>,
//!     currency: String,
//! }
//!
//! fn on_event(event: Event<Order>) -> Result<Vec<Webhook>, Failure> {
//!     if event.subject != "fraiseql.order.created" {
//!         return Ok(vec![]);
//!     }
//!     let order = event.entity()?; // JSON of another shape rejects the event
//!     log::info!("order {:?} for {:?}", event.entity_id, order.total);
//!     let webhook = Webhook::json(&OrderCreated {
//!         event: "order.created",
//!         order_id: event.entity_id.as_deref(),
//!         customer_email: order.customer_email,
//!         total: order.total,
//!         currency: config::get("currency").unwrap_or_else(|| "EUR".to_owned()),
//!     })?;
//!     Ok(vec![webhook])
//! }
//!
//! wirehook_sdk::export!(on_event);
//!
//! // In `#[cfg(test)] mod tests`: the function runs natively, under `cargo test`.
//! # fn main() {
//! use wirehook_sdk::test;
//!
//! test::config("currency", "USD");
//! let event = test::event("fraiseql.order.created")
//!     .entity_id("550e8400")
//!     .entity(&serde_json::json!({"customer_email": "ada@example.com", "total": 129.5}))
//!     .build();
//! let webhooks = on_event(event).unwrap();
//! assert_eq!(
//!     webhooks[0].body_json(),
//!     serde_json::json!({
//!         "event": "order.created", "order_id": "550e8400",
//!         "customer_email": "ada@example.com", "total": 129.5, "currency": "USD",
//!     })
//! );
//! # }
//! ```
//!
//! Build it with `cargo build --release --target wasm32-unknown-unknown` and drop the `.wasm` into the host's plugins
//! folder. `wasm32-wasip2` works too; std's files, sockets and variables are there and empty.
//!
//! What ends how:
//!
//! | the function | the event |
//! |---|---|
//! | returns webhooks | becomes deliveries, all of them or none |
//! | returns an empty list | is filtered |
//! | returns [`retry`] | is run again, by the sidecar's `[retry]` |
//! | returns [`reject`], or an error through `?` | is a dead letter `plugin_rejected` |
//! | panics | is a dead letter `plugin_trap`; the message is in the log |
//!
//! The contract itself, with its bounds, is `wit/subscriber.wit` in Wirehook's repository.

mod by_name;
mod event;
mod webhook;
mod failure;
pub mod log;
pub mod config;
pub mod state;
pub mod http;
mod export;
#[cfg(any(test, all(feature = "allocator", target_family = "wasm", not(target_feature = "atomics"))))]
mod memory;
#[cfg(not(target_arch = "wasm32"))]
pub mod test;

pub use event::{EntityError, Event};
pub use failure::{Failure, reject, retry};
pub use webhook::Webhook;

/// The bindings that the contract generates, kept as a file: for [`export!`] and for plugins that want the raw records.
#[doc(hidden)]
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    reason = "generated"
)]
#[rustfmt::skip]
pub mod bindings;

#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::exports::wirehook::plugin::handler::Guest;
    pub use crate::bindings::wirehook::plugin::types;
    pub use crate::export::{check, run};
}

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
