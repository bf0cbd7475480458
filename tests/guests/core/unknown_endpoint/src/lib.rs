//! Names an endpoint that it was not given, beside a webhook that is in order: both are refused.

use wirehook_sdk::{Event, Failure, Webhook};

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    Ok(vec![Webhook::bytes("{}"), Webhook::bytes("{}").endpoint("nowhere")])
}

wirehook_sdk::export!(on_event);
