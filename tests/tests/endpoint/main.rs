//! One attempt against servers that behave, misbehave and must not be reached.

mod auth;
mod authority;
mod certificates;
mod echo;
mod exchange;
mod nginx;
mod network;
mod odd_answers;
mod proxy;
mod reuse;
mod ssrf;
mod tls;

use std::sync::Arc;

use wirehook::clock::SystemClock;
use wirehook::delivery::{AttemptResult, Outcome};
use wirehook::endpoint::Endpoint;
use wirehook_tests::raw_endpoint::delivery;

/// One attempt with a small body.
async fn attempt(endpoint: &Arc<Endpoint>) -> Outcome {
    let clock = SystemClock::shared();
    endpoint.attempt(&delivery("{}"), clock.now(), &*clock).await
}

/// What went wrong; panics where nothing did.
fn transport(outcome: &Outcome) -> &str {
    match &outcome.result {
        AttemptResult::Transport(text) => text,
        other => panic!("not a transport error: {other:?}"),
    }
}

/// Why the guard refused; panics where it did not.
fn denied(outcome: &Outcome) -> &str {
    match &outcome.result {
        AttemptResult::EgressDenied(text) => text,
        other => panic!("not refused: {other:?}"),
    }
}
