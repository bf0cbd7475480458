//! The `stdin` source, and a host that ends when nothing is left to do.

use std::time::Duration;

use anyhow::Result;
use tokio::io::AsyncWriteExt;
use wirehook_tests::events::order_created;
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::test_host::{PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(90);

/// Feeds `orders` events to a host that ends by itself. Returns its exit code.
async fn run_to_idle(host: &mut TestHost, orders: usize) -> Result<Option<i32>> {
    host.spawn(&["--exit-when-idle"]).await?;
    let mut input = host.take_stdin()?;
    for number in 0..orders {
        input.write_all(&order_created(number).body).await?;
        input.write_all(b"\n").await?;
    }
    drop(input);
    Ok(host.wait_exit(DEADLINE).await?.code())
}

fn host(endpoint: &FakeEndpoint) -> Result<TestHost> {
    // Every first attempt fails, which a breaker would take for an endpoint that is down.
    let retry = "breaker = \"off\"\n[endpoint.retry]\ninitial_delay = \"50ms\"\nmultiplier = 1.0";
    let orders = PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders");
    TestHost::builder().stdin().endpoint("orders", endpoint, retry).plugin(orders).build()
}

#[tokio::test]
async fn it_ends_with_0_once_everything_is_delivered_retries_included() -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::statuses(&[503, 200])).await?;
    let mut host = host(&endpoint)?;
    assert_eq!(run_to_idle(&mut host, 100).await?, Some(0));
    assert_eq!(endpoint.look(|log| (log.ids(), log.all().len())), (100, 200));
    endpoint.expect_all_signed()
}

#[tokio::test]
async fn it_ends_with_1_if_anything_died_and_the_dead_letter_is_there() -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::statuses(&[400])).await?;
    let mut host = host(&endpoint)?;
    assert_eq!(run_to_idle(&mut host, 3).await?, Some(1));
    assert_eq!(host.wait_dead_letters(3, DEADLINE).await?[0].reason, "status_4xx");
    Ok(())
}
