//! Reports the time and the randomness that std has of the host, around a sleep.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use wirehook_sdk::{Event, Failure, Webhook};

#[allow(clippy::disallowed_methods, reason = "the point of this guest")]
fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    let since_epoch = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let (begun_at, begun) = (since_epoch(), Instant::now());
    std::thread::sleep(Duration::from_millis(200));
    Ok(vec![Webhook::json(&json!({
        "began_at_ms": begun_at as u64,
        "ended_at_ms": since_epoch() as u64,
        "slept_ns": begun.elapsed().as_nanos() as u64,
        "random": RandomState::new().hash_one("").to_string(),
    }))?])
}

wirehook_sdk::export!(on_event);
