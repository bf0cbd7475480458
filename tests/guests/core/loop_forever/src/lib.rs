//! Never returns: only the host's deadline ends it.

use std::hint::black_box;

use wirehook_sdk::{Event, Failure, Webhook};

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    let mut turns = 0u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

wirehook_sdk::export!(on_event);
