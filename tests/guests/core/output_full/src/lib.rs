//! Returns as much as one event may make by default: four webhooks of 1 MiB each, whatever the event.

use wirehook_sdk::{Event, Failure, Webhook};

const BODY_BYTES: usize = 1 << 20;
const WEBHOOKS: usize = 4;

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    Ok((0..WEBHOOKS).map(|_| Webhook::bytes(vec![b'x'; BODY_BYTES])).collect())
}

wirehook_sdk::export!(on_event);
