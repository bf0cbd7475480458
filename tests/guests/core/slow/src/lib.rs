//! Computes for about 20 ms, then returns a webhook. The config's `turns` makes it longer or shorter; 1,000,000 are
//! about a millisecond.

use std::hint::black_box;

use wirehook_sdk::{Event, Failure, Webhook, config};

const TURNS: u64 = 20_000_000;

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    let turns = config::get("turns").map_or(Ok(TURNS), |turns| turns.parse())?;
    let mut state = 1u64;
    for _ in 0..turns {
        state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
    Ok(vec![Webhook::bytes(format!(r#"{{"state":{state}}}"#))])
}

wirehook_sdk::export!(on_event);
