//! What a source takes from its bus while its inbox is slow, and what it acknowledges. In the test's own process, so that
//! the inbox does as it is told.

use anyhow::{Result, ensure};
use wirehook::source::{BATCH_MESSAGES_MAX, BATCHES_IN_FLIGHT_MAX};

use super::load::orders;
use super::order::number_in;
use super::stage::DEADLINE;
use super::{Bus, Guarantee, Publisher, SOURCE};
use crate::fake_inbox::{FakeInbox, Mode, Running, Seen, build};
use crate::full::is_full;
use crate::wait;

/// Messages of a scenario about acks: less than a batch.
const FEW: usize = 10;

/// Orders published at once.
const PUBLISHED_AT_ONCE: usize = 200;

/// What a source may hold at most; a scenario publishes a multiple of it.
const MESSAGES_IN_FLIGHT_MAX: usize = BATCHES_IN_FLIGHT_MAX * BATCH_MESSAGES_MAX;

/// A message is the bus's until the inbox has committed it: a source that ends before gets it again, and one that has
/// committed it does not. Of a bus that keeps nothing, what was handed over is accepted before the source ends.
pub async fn acks_follow_the_commit<B: Bus>() -> Result<()> {
    let bus = B::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = start(&bus, &inbox)?;
    source.connected().await;
    bus.publisher().publish(&orders(0..FEW)).await?;
    inbox.until("the first orders", |seen| seen.accepted.len() == FEW).await;
    until_unaccepted(&bus, 0).await?;

    inbox.set(Mode::Hold);
    bus.publisher().publish(&orders(FEW..2 * FEW)).await?;
    inbox.until("the next orders", |seen| seen.offered == 2 * FEW).await;
    until_unaccepted(&bus, FEW as u64).await?;
    match B::GUARANTEE {
        Guarantee::AtLeastOnce => {
            source.killed().await;
            let inbox = inbox.after_a_kill(Mode::Accept);
            let source = start(&bus, &inbox)?;
            inbox.until("the next orders again", |seen| seen.accepted.len() >= FEW).await;
            until_unaccepted(&bus, 0).await?;
            expect_exactly(&inbox.seen(), FEW..2 * FEW)?;
            source.drained().await?;
        }
        Guarantee::AtMostOnce => {
            source.drain.begin();
            inbox.set(Mode::Accept);
            let state = source.state.clone();
            source.ended().await?;
            expect_exactly(&inbox.seen(), 0..2 * FEW)?;
            ensure!(state.status().messages_lost == 0, "nothing is lost: {:?}", state.status());
        }
    }
    Ok(())
}

/// While the inbox is slow, the source takes no more than it may hold; nothing is lost of what the bus can keep.
pub async fn a_slow_store_holds_up_the_bus<B: Bus>() -> Result<()> {
    let events = MESSAGES_IN_FLIGHT_MAX * if is_full() { 16 } else { 4 };
    let bus = B::start().await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = start(&bus, &inbox)?;
    source.connected().await;
    let mut publisher = bus.publisher();
    for first in (0..events).step_by(PUBLISHED_AT_ONCE) {
        publisher.publish(&orders(first..events.min(first + PUBLISHED_AT_ONCE))).await?;
    }
    inbox.until("the first batch", |seen| seen.batches > 0).await;
    inbox.set(Mode::Slow);
    let seen = inbox.until("every order", |seen| seen.accepted.len() >= events).await;
    let most = seen.waiting_most;
    println!("most that waited: {most:?} of {events} messages");
    ensure!(most.batches <= BATCHES_IN_FLIGHT_MAX && most.messages <= MESSAGES_IN_FLIGHT_MAX, "too much: {most:?}");
    let status = source.state.status();
    ensure!(status.messages_lost == 0 && status.reconnects == 0, "the bus can wait: {status:?}");
    source.drained().await?;
    expect_exactly(&inbox.seen(), 0..events)
}

fn start<B: Bus>(bus: &B, inbox: &std::sync::Arc<FakeInbox>) -> Result<Running> {
    Ok(Running::start(build(&bus.source_toml(SOURCE))?, inbox))
}

async fn until_unaccepted<B: Bus>(bus: &B, expected: u64) -> Result<()> {
    wait::until(&format!("{expected} messages to be unacknowledged"), DEADLINE, async || {
        let unaccepted = bus.unaccepted().await?;
        Ok(unaccepted.is_none_or(|unaccepted| unaccepted == expected).then_some(()))
    })
    .await
}

/// Those orders were accepted, whichever of them twice, and no others.
fn expect_exactly(seen: &Seen, numbers: std::ops::Range<usize>) -> Result<()> {
    let mut accepted: Vec<_> = seen.accepted.iter().filter_map(|message| number_in(&message.payload)).collect();
    accepted.sort_unstable();
    accepted.dedup();
    let expected: Vec<_> = numbers.collect();
    ensure!(accepted == expected, "accepted {accepted:?} instead of {expected:?}");
    Ok(())
}
