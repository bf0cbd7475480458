//! Recurses until the stack is used up.

use std::hint::black_box;

use wirehook_sdk::{Event, Failure, Webhook};

#[allow(unconditional_recursion, reason = "the point of this guest")]
fn descend(depth: u64) -> u64 {
    black_box(descend(black_box(depth + 1))) + 1
}

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    Ok(vec![Webhook::bytes(descend(0).to_le_bytes())])
}

wirehook_sdk::export!(on_event);
