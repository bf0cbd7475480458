//! Sets a header that belongs to the host, beside a webhook that is in order: both are refused.

use wirehook_sdk::{Event, Failure, Webhook};

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    Ok(vec![Webhook::bytes("{}"), Webhook::bytes("{}").header("x-SIGNATURE", "sha256=forged")])
}

wirehook_sdk::export!(on_event);
