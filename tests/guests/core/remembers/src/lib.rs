//! Counts its events in a global, and says in a webhook which one each was: always the first, unless instances are
//! reused. An entity with `trap` ends the instance.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use wirehook_sdk::{Event, Failure, Webhook};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Turns that take about a millisecond, so that calls of several workers overlap.
const TURNS: u64 = 1_000_000;

fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
    if event.entity_json().is_some_and(|entity| entity.windows(4).any(|word| word == b"trap")) {
        panic!("as it was told");
    }
    for turn in 0..TURNS {
        black_box(turn);
    }
    let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    Ok(vec![Webhook::json(&json!({"order_id": event.entity_id, "number": number}))?])
}

wirehook_sdk::export!(on_event);
