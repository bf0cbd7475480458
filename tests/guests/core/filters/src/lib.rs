//! Filters every event.

use wirehook_sdk::{Event, Failure, Webhook};

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    Ok(vec![])
}

wirehook_sdk::export!(on_event);
