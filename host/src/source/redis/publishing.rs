//! What publishing to Redis shares with reading from it.

use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::failure::Failure;
use super::{connect, glob};
use crate::settings::RedisConnection;

/// A connection to publish over, each of whose requests is answered within `response_deadline`.
///
/// # Errors
/// In words: the server is down, or refuses.
pub(crate) async fn publisher(
    connection: &RedisConnection,
    response_deadline: Duration,
) -> Result<MultiplexedConnection, String> {
    let connected = connect::multiplexed("publish", connection, response_deadline).await;
    connected.map_err(|failure| failure.advised("+publish +xadd"))
}

/// An error with the server's words and what to change; `rules` are those that an ACL needs.
pub(crate) fn explain(error: RedisError, rules: &str) -> String {
    Failure::from(error).advised(rules)
}

/// Whether a source takes the name of a channel for a pattern.
pub(crate) fn is_pattern(channel: &str) -> bool {
    channel.contains(['*', '?', '['])
}

/// Whether a source that has `subscribed` as one of its `channels` gets what is published to `channel`.
pub(crate) fn takes(subscribed: &str, channel: &str) -> bool {
    if is_pattern(subscribed) {
        glob::matches(subscribed.as_bytes(), channel.as_bytes())
    } else {
        subscribed == channel
    }
}
