//! Returns far more webhooks than a result may have.

use wirehook_sdk::{Event, Failure, Webhook};

const WEBHOOKS: u32 = 100_000;

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    Ok((0..WEBHOOKS).map(|index| Webhook::bytes(index.to_string())).collect())
}

wirehook_sdk::export!(on_event);
