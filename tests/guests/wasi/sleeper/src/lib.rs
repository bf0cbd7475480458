//! Sleeps for a minute in a host call, where a deadline on CPU time does not reach it.

use std::time::Duration;

use wirehook_sdk::{Event, Failure, Webhook};

#[allow(clippy::disallowed_methods, reason = "the point of this guest")]
fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    std::thread::sleep(Duration::from_secs(60));
    Ok(vec![])
}

wirehook_sdk::export!(on_event);
