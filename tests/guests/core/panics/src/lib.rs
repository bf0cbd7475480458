//! Panics: a trap, after the SDK has sent the message to the host's log.

use wirehook_sdk::{Event, Failure, Webhook};

fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
    panic!("the guest panicked on {}", event.subject);
}

wirehook_sdk::export!(on_event);
