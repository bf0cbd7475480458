//! Asks to be run again, for ever.

use wirehook_sdk::{Event, Failure, Webhook, retry};

fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
    Err(retry(format!("attempt {} was not the one", event.attempt)))
}

wirehook_sdk::export!(on_event);
