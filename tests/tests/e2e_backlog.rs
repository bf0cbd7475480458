//! What waits: its bounds, what it costs in memory, and what one endpoint's backlog costs the others.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use wirehook_tests::bench::{child, isolation};
use wirehook_tests::events::{self, page_event};
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::store_fill::Filling;
use wirehook_tests::test_host::{DeadLetter, PluginFile, TestHost};
use wirehook_tests::{full, store_fill};

/// For webhooks; a machine may be busy.
const DEADLINE: Duration = Duration::from_secs(120);

/// What the store's writer keeps of the file in memory at most: the one thing that grows with a small store.
const CACHE_BYTES: u64 = 32 << 20;

/// How much memory may differ for no reason.
const NOISE_BYTES: u64 = 8 << 20;

/// Webhooks that arrive before the memory is looked at: more than a lane holds.
const ARRIVED: usize = 3_000;

fn orders() -> Result<PluginFile> {
    Ok(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
}

async fn publish(source: &HttpPublisher, entity_type: &str, numbers: std::ops::Range<usize>) -> Result<()> {
    let batch = numbers.map(|number| page_event(entity_type, "created", number, &json!({"number": number})));
    let (status, text) = source.post(events::array(batch)).await?;
    ensure!(status == 202, "the events were answered {status}: {text}");
    Ok(())
}

#[tokio::test]
async fn what_is_beyond_a_backlog_is_a_dead_letter_by_name_and_no_source_waits() -> Result<()> {
    let source = HttpPublisher::new()?;
    let mut shop = FakeEndpoint::down(Script::ok())?;
    let good = FakeEndpoint::start(Script::ok()).await?;
    let retry = "[endpoint.retry]\ninitial_delay = \"200ms\"\nmultiplier = 1.0\nmax_attempts = 1000";
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("shop", &shop, &format!("[endpoint.backlog]\ncount = 50\n{retry}"))
        .endpoint("small", &shop, &format!("[endpoint.backlog]\nbytes = \"1KiB\"\n{retry}"))
        .endpoint("orders", &good, "")
        .plugin(PluginFile::hostile("echo")?.subscribed("fraiseql.flood.*", "shop"))
        .plugin(PluginFile {
            name: "small".to_owned(),
            ..PluginFile::hostile("echo")?.subscribed("fraiseql.few.*", "small")
        })
        .plugin(orders()?)
        .build()?;
    host.start().await?;
    publish(&source, "flood", 0..200).await?;
    publish(&source, "few", 0..20).await?;
    publish(&source, "order", 0..20).await?;
    good.wait_for("the other endpoint's webhooks", DEADLINE, |log| log.ids() == 20).await?;
    host.wait_runs("echo", "produced", 200, DEADLINE).await?;
    host.wait_runs("small", "produced", 20, DEADLINE).await?;
    let letters: Vec<DeadLetter> = host.json(&["dead-letters", "list", "--limit", "1000"]).await?.objects()?;
    let of = |endpoint: &str| letters.iter().filter(|letter| letter.endpoint.as_deref() == Some(endpoint)).count();
    assert_eq!(of("shop"), 150);
    assert!((1..20).contains(&of("small")), "{} of 20 had no room in 1 KiB", of("small"));
    for letter in &letters {
        ensure!(letter.reason == "backlog_full" && letter.kind == "delivery", "{letter:?}");
        let key = if letter.endpoint.as_deref() == Some("shop") { "[backlog] count" } else { "[backlog] bytes" };
        ensure!(letter.detail.contains(key), "{letter:?}");
    }
    let counted = host.metric("wirehook_dead_letters_total", "backlog_full").await?;
    assert_eq!(counted, letters.len() as f64);
    host.expect_all_accounted().await?;

    shop.listen().await?;
    shop.wait_for("what had waited", DEADLINE, |log| log.ids() == 220 - letters.len()).await?;
    host.command(&["dead-letters", "redrive", "--reason", "backlog_full", "--yes"]).await?.expect_code(0)?;
    shop.wait_for("the rest", DEADLINE, |log| log.ids() == 220).await?;
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_plugin_has_a_backlog_too() -> Result<()> {
    let source = HttpPublisher::new()?;
    let good = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("orders", &good, "")
        .plugin_settings("[plugins.backlog]\ncount = 30\n[[plugin]]\nname = \"orders\"\n[plugin.backlog]\ncount = 1000")
        .plugin(PluginFile::hostile("retry_always")?.with_sidecar(
            "subjects = [\"fraiseql.flood.*\"]\nendpoints = [\"orders\"]\n[retry]\ninitial_delay = \"1h\"\nmax_delay = \"1h\"",
        ))
        .plugin(orders()?)
        .build()?;
    host.start().await?;
    publish(&source, "flood", 0..100).await?;
    publish(&source, "order", 0..100).await?;
    good.wait_for("the other plugin's webhooks", DEADLINE, |log| log.ids() == 100).await?;
    let letters = host.wait_dead_letters(70, DEADLINE).await?;
    for letter in &letters {
        ensure!(letter.reason == "backlog_full" && letter.kind == "run", "{letter:?}");
        ensure!(letter.plugin.as_deref() == Some("retry_always"), "{letter:?}");
    }
    host.wait_runs("retry_always", "retrying", 30, DEADLINE).await?;
    host.expect_all_accounted().await
}

/// Memory of a host with `waiting` deliveries in its store, and the time from ready to the first webhook.
async fn resident_bytes(waiting: usize) -> Result<(u64, Duration)> {
    let source = HttpPublisher::new()?;
    let slow = FakeEndpoint::start(Script::always(Answer::ok().after(Duration::from_millis(2)))).await?;
    let mut host = TestHost::builder().http(source.port, "").endpoint("orders", &slow, "").plugin(orders()?).build()?;
    let filling = Instant::now();
    store_fill::waiting(&host.store_path(), &Filling::new("orders", "orders"), waiting).await?;
    let filled = filling.elapsed();
    let ready = host.start().await?;
    let started = Instant::now();
    slow.wait_for("the first webhook", DEADLINE, |log| log.ids() > 0).await?;
    let first = started.elapsed();
    slow.wait_for("more than a lane holds", DEADLINE, |log| log.ids() >= ARRIVED).await?;
    let resident = child::resident_bytes(host.pid()?)?;
    println!(
        "{waiting} waiting: filled in {filled:.1?}, ready after {ready:.2?}, first webhook {first:.2?} later, {} MiB",
        resident >> 20
    );
    host.expect_all_accounted().await?;
    host.stop().await?;
    host.forget_logs();
    Ok((resident, ready + first))
}

async fn memory_is_the_same(few: usize, many: usize) -> Result<()> {
    let (with_few, _) = resident_bytes(few).await?;
    let (with_many, first) = resident_bytes(many).await?;
    ensure!(
        with_many <= with_few + CACHE_BYTES + NOISE_BYTES,
        "{many} waiting take {} MiB, {few} take {} MiB",
        with_many >> 20,
        with_few >> 20
    );
    ensure!(first < DEADLINE, "the first webhook took {first:?}");
    Ok(())
}

#[tokio::test]
async fn a_long_backlog_takes_no_more_memory_than_a_short_one() -> Result<()> {
    memory_is_the_same(4_000, 40_000).await
}

#[tokio::test]
async fn a_million_waiting_take_no_more_memory_than_ten_thousand() -> Result<()> {
    if !full::wanted("a million deliveries that wait") {
        return Ok(());
    }
    memory_is_the_same(10_000, 1_000_000).await
}

/// Claims for a long backlog, and the commits of what comes of it, leave room for the others'.
#[tokio::test]
async fn a_long_backlog_of_one_endpoint_does_not_hold_up_another() -> Result<()> {
    /// Takes far longer to work off than the orders need.
    const BACKLOG: usize = 30_000;
    /// Published one after the other, each after the webhook of the one before.
    const ORDERS: usize = 20;
    let source = HttpPublisher::new()?;
    let (good, busy) = (FakeEndpoint::start(Script::ok()).await?, FakeEndpoint::start(Script::ok()).await?);
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("orders", &good, "")
        .endpoint("busy", &busy, "")
        .plugin(orders()?)
        .build()?;
    store_fill::waiting(&host.store_path(), &Filling::new("flood", "busy"), BACKLOG).await?;
    host.start().await?;
    busy.wait_for("the backlog to be worked off", DEADLINE, |log| log.ids() > 100).await?;
    let mut worst = Duration::ZERO;
    for number in 0..ORDERS {
        let published_at = Instant::now();
        source.publish_orders([number]).await?;
        good.wait_for("an order's webhook", DEADLINE, |log| log.ids() > number).await?;
        worst = worst.max(published_at.elapsed());
    }
    let left = BACKLOG - busy.look(|log| log.ids());
    println!("the slowest of {ORDERS} orders took {worst:.0?} beside the backlog, of which {left} were left");
    ensure!(left > BACKLOG / 4, "the backlog was almost over, which says nothing: {left} were left");
    host.expect_all_accounted().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_webhook_arrives_beside_four_bad_endpoints() -> Result<()> {
    let plan = isolation::Plan::QUICK;
    let measured = isolation::measure(&plan).await?;
    print!("{}", measured.report());
    let each = plan.fine * plan.rounds * plan.events;
    assert_eq!((measured.alone.len(), measured.beside.len()), (each, each));
    Ok(())
}

/// Guarantee 4, in figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_bad_endpoints_cost_the_others_less_than_half_of_their_time() -> Result<()> {
    if !full::wanted("a hundred endpoints, four of them bad") {
        return Ok(());
    }
    let measured = isolation::measure(&isolation::Plan::FULL).await?;
    print!("{}", measured.report());
    let factor = measured.factor(0.99);
    ensure!(factor <= 1.5, "the fine endpoints' p99 is {factor:.2} times that without the bad four");
    Ok(())
}
