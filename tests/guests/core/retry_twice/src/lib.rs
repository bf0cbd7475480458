//! Asks to be run again twice, and works at the third attempt.

use wirehook_sdk::{Event, Failure, Webhook, retry};

fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
    if event.attempt < 3 {
        return Err(retry(format!("attempt {} is too early", event.attempt)));
    }
    Ok(vec![Webhook::bytes(format!(r#"{{"attempt":{}}}"#, event.attempt))])
}

wirehook_sdk::export!(on_event);
