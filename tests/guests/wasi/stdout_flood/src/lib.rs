//! Prints 16 MiB to both standard streams, then returns one webhook: the flood is cut, the event is not.

use wirehook_sdk::{Event, Failure, Webhook};

const LINES: u32 = 128;
const LINE_BYTES: usize = 64 << 10;

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    let line = "x".repeat(LINE_BYTES);
    for _ in 0..LINES {
        println!("{line}");
        eprintln!("{line}");
    }
    Ok(vec![Webhook::bytes("{}")])
}

wirehook_sdk::export!(on_event);
