//! Rejects every event.

use wirehook_sdk::{Event, Failure, Webhook, reject};

fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
    Err(reject(format!("{} is not wanted here", event.subject)))
}

wirehook_sdk::export!(on_event);
