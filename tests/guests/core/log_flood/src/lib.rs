//! Logs far past the budget of lines and bytes, then returns one webhook: the flood is cut, the event is not.

use wirehook_sdk::{Event, Failure, Webhook, log};

const LINES: u32 = 2_000;
const LINE_BYTES: usize = 200;

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    let filler = "x".repeat(LINE_BYTES);
    for line in 0..LINES {
        log::info!("line {line} {filler}");
    }
    Ok(vec![Webhook::bytes("{}")])
}

wirehook_sdk::export!(on_event);
