//! Returns one webhook whose body is far larger than it may be, though it fits the memory.

use wirehook_sdk::{Event, Failure, Webhook};

const BODY_BYTES: usize = 32 << 20;

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    Ok(vec![Webhook::bytes(vec![b'x'; BODY_BYTES])])
}

wirehook_sdk::export!(on_event);
