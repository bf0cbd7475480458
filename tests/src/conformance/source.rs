//! What every source does, against its real server. `source_conformance!` runs every scenario on one [`Bus`]; each
//! states what the bus's [`Guarantee`] comes to there, and checks it.

mod order;
mod load;
mod arrivals;
mod stage;
mod path;
mod outage;
mod slow;
mod memory;

use std::future::Future;

use anyhow::Result;

pub use self::memory::{HeldSource, memory_is_bounded_while_the_store_holds};
pub use self::order::{ORDER_BYTES, Order};
pub use self::outage::{
    a_bus_that_is_down_at_the_start_is_joined_later, a_host_killed_under_load, a_server_killed_under_load,
};
pub use self::path::{
    an_event_arrives_decoded, garbage_is_a_dead_letter_and_the_rest_arrives,
    the_largest_message_is_delivered_and_a_larger_one_is_a_dead_letter,
};
pub use self::slow::{a_slow_store_holds_up_the_bus, acks_follow_the_commit};

/// The name of the source in every scenario's settings.
pub const SOURCE: &str = "bus";

/// `[limits] event` by default, in bytes.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// What a bus promises when something fails, with what the source makes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guarantee {
    /// Nothing that the bus has taken is lost, whoever is killed; no event has two webhook ids.
    AtLeastOnce,
    /// Lost is only what was published while the source was not connected, or was handed over and not committed when the
    /// host or the server was killed. A reconnect is counted.
    AtMostOnce,
}

/// One kind of source with its real server.
pub trait Bus: Send + Sync + Sized + 'static {
    /// What it promises.
    const GUARANTEE: Guarantee;

    /// The largest message that the bus itself takes, in bytes.
    const MESSAGE_BYTES_MAX: usize = 4 << 20;

    /// Publishes as an application does.
    type Publisher: Publisher;

    /// A server of its own, with the streams and tables that the source reads.
    fn start() -> impl Future<Output = Result<Self>>;

    /// A server that is down until [`Bus::restart`].
    fn stopped() -> impl Future<Output = Result<Self>>;

    /// A `[[source]]` called `name` that reads everything from the start on, where the bus has kept it.
    fn source_toml(&self, name: &str) -> String;

    /// A publisher that is not connected yet.
    fn publisher(&self) -> Self::Publisher;

    /// SIGKILL to the server. Returns once it is gone.
    fn kill(&mut self);

    /// Starts the server again on what it had kept, makes what the source reads where it is missing, and returns once the
    /// server answers.
    fn restart(&mut self) -> impl Future<Output = Result<()>>;

    /// Messages that the bus keeps until the source has acknowledged them; `None` where the bus does not know.
    fn unaccepted(&self) -> impl Future<Output = Result<Option<u64>>>;
}

/// Publishes to a bus, over one connection at a time, made when it is needed.
pub trait Publisher: Clone + Send + Sync + 'static {
    /// Publishes orders in order, in the bus's natural FraiseQL format. Returns once the bus has them, as durably as it
    /// ever will.
    ///
    /// # Errors
    /// The bus may have some of them then. On a bus that keeps messages, a fresh publisher that is given the same orders
    /// again adds only what is missing.
    fn publish(&mut self, orders: &[Order]) -> impl Future<Output = Result<()>> + Send;

    /// Publishes one message that is no event.
    fn publish_garbage(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// A test for each scenario, or for those named, on one bus.
#[macro_export]
macro_rules! source_conformance {
    ($bus:ty) => {
        $crate::source_conformance!(
            $bus:
            an_event_arrives_decoded,
            acks_follow_the_commit,
            a_server_killed_under_load,
            a_host_killed_under_load,
            garbage_is_a_dead_letter_and_the_rest_arrives,
            the_largest_message_is_delivered_and_a_larger_one_is_a_dead_letter,
            a_slow_store_holds_up_the_bus,
            memory_is_bounded_while_the_store_holds,
            a_bus_that_is_down_at_the_start_is_joined_later,
        );
    };
    ($bus:ty: $($scenario:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() -> anyhow::Result<()> {
                $crate::conformance::source::$scenario::<$bus>().await
            }
        )+
    };
}
