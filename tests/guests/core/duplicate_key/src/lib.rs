//! Uses one key for two webhooks to one endpoint, which would make them one delivery.

use wirehook_sdk::{Event, Failure, Webhook};

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    Ok(vec![Webhook::bytes("1").key("same"), Webhook::bytes("2").key("same")])
}

wirehook_sdk::export!(on_event);
