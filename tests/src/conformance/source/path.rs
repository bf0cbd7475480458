//! Single messages, good and bad.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::stage::{DEADLINE, Stage};
use super::{Bus, EVENT_BYTES_MAX, Order, Publisher};

/// How far over the limit a message is that must not pass: more than what any bus adds to an order.
const OVER_BYTES: usize = 64 << 10;

/// An order in the bus's own format becomes the page's webhook, by a plugin that sees only the normalised subject.
pub async fn an_event_arrives_decoded<B: Bus>() -> Result<()> {
    let mut stage = Stage::<B>::ready().await?;
    let order = Order::new(7);
    stage.publish(&[order]).await?;
    stage.until("the order", |arrivals| arrivals.count() == 1).await?;
    let request = stage.endpoint.requests().remove(0);
    assert_eq!(serde_json::from_slice::<Value>(&request.body)?, order.webhook());
    assert!(request.webhook_id().starts_with("msg_"), "{request:?}");
    stage.until_settled().await?;
    stage.expect_clean().await
}

/// What is no event is kept with its reason, and holds up nothing.
pub async fn garbage_is_a_dead_letter_and_the_rest_arrives<B: Bus>() -> Result<()> {
    let mut stage = Stage::<B>::ready().await?;
    let mut publisher = stage.bus.publisher();
    publisher.publish(&[Order::new(0), Order::new(1)]).await?;
    publisher.publish_garbage().await?;
    publisher.publish(&[Order::new(2), Order::new(3)]).await?;
    stage.until_all(4).await?;
    let dead = stage.host.wait_dead_letters(1, DEADLINE).await?;
    assert_eq!((&*dead[0].kind, &*dead[0].reason), ("message", "undecodable"), "{dead:?}");
    stage.until_settled().await?;
    stage.host.expect_all_accounted().await
}

/// `[limits] event` is the limit, or the bus's own where that is lower. One over it is kept, cut, with its reason.
pub async fn the_largest_message_is_delivered_and_a_larger_one_is_a_dead_letter<B: Bus>() -> Result<()> {
    let mut stage = Stage::<B>::ready().await?;
    let largest = EVENT_BYTES_MAX.min(B::MESSAGE_BYTES_MAX);
    stage.publish(&[Order::sized(0, largest)]).await?;
    stage.until_all(1).await?;
    ensure!(stage.host.dead_letters().await?.is_empty(), "the largest message is no dead letter");
    if B::MESSAGE_BYTES_MAX > EVENT_BYTES_MAX {
        stage.publish(&[Order::sized(1, EVENT_BYTES_MAX + OVER_BYTES), Order::new(2)]).await?;
        stage.until("the order after it", |arrivals| arrivals.missing(2..3).is_empty()).await?;
        let dead = stage.host.wait_dead_letters(1, DEADLINE).await?;
        assert_eq!((&*dead[0].kind, &*dead[0].reason), ("message", "too_large"), "{dead:?}");
    }
    stage.until_settled().await?;
    stage.host.expect_all_accounted().await
}
