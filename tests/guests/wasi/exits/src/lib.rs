//! Ends its process, as it thinks, instead of returning.

use wirehook_sdk::{Event, Failure, Webhook};

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    std::process::exit(0)
}

wirehook_sdk::export!(on_event);
