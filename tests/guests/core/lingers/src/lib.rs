//! Says in the log that it has begun, and computes for the entity's `linger` turns (1,000,000 are about a millisecond)
//! before it returns a webhook: time for a test to end the host meanwhile.

use std::hint::black_box;

use serde::Deserialize;
use wirehook_sdk::{Event, Failure, Webhook, log};

#[derive(Deserialize)]
struct Entity {
    #[serde(default)]
    linger: u64,
}

fn on_event(event: Event<Entity>) -> Result<Vec<Webhook>, Failure> {
    let turns = event.entity()?.linger;
    let id = event.entity_id.clone().unwrap_or_default();
    let mut state = 1u64;
    if turns > 0 {
        log::info!("lingering over {id}");
        for _ in 0..turns {
            state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
    Ok(vec![Webhook::bytes(format!(r#"{{"order_id":"{id}","state":{state}}}"#))])
}

wirehook_sdk::export!(on_event);
