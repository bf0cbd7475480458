//! Sets a header whose value would be two headers on the wire.

use wirehook_sdk::{Event, Failure, Webhook};

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    Ok(vec![Webhook::bytes("{}").header("X-Shop", "berlin\r\nX-Signature: sha256=forged")])
}

wirehook_sdk::export!(on_event);
