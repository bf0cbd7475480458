//! One event to several endpoints: the example `fanout`, on the whole path.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wirehook_tests::events::{entity_id, page_event};
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

/// For webhooks; a machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

fn bodies(endpoint: &FakeEndpoint) -> Result<Vec<Value>> {
    let mut bodies: Vec<String> =
        endpoint.requests().iter().map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect();
    bodies.sort();
    Ok(bodies.iter().map(|body| serde_json::from_str(body)).collect::<Result<_, _>>()?)
}

#[tokio::test]
async fn an_order_reaches_each_endpoint_with_what_it_wants() -> Result<()> {
    let source = HttpPublisher::new()?;
    let (crm, warehouse, billing) = (
        FakeEndpoint::start(Script::ok()).await?,
        FakeEndpoint::start(Script::ok()).await?,
        FakeEndpoint::start(Script::ok()).await?,
    );
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("crm", &crm, "")
        .endpoint("warehouse", &warehouse, "")
        .endpoint("billing", &billing, "")
        .plugin(PluginFile::example("fanout")?)
        .build()?;
    host.start().await?;
    let paid = json!({"status": "paid", "currency": "CHF", "total": 129.5, "customer_email": "ada@example.com", "lines": [
        {"id": "l1", "sku": "chair", "quantity": 2},
        {"id": "l2", "sku": "e-book", "quantity": 1, "digital": true},
        {"id": "l3", "sku": "table", "quantity": 1},
    ]});
    let foreign = json!({"status": "paid", "currency": "USD", "total": 1});
    for (number, entity) in [paid, foreign].iter().enumerate() {
        let (status, text) = source.post(page_event("order", "created", number, entity).body).await?;
        ensure!(status == 202, "the event was answered {status}: {text}");
    }
    crm.wait_for("both orders", DEADLINE, |log| log.ids() == 2).await?;
    warehouse.wait_for("both lines", DEADLINE, |log| log.ids() == 2).await?;
    billing.wait_for("the bill", DEADLINE, |log| log.ids() == 1).await?;
    for endpoint in [&crm, &warehouse, &billing] {
        endpoint.expect_all_signed()?;
    }
    let order = entity_id(0);
    let line = |id: &str, sku: &str, quantity: u32| json!({"order_id": order, "line_id": id, "sku": sku, "quantity": quantity});
    assert_eq!(bodies(&warehouse)?, [line("l1", "chair", 2), line("l3", "table", 1)]);
    assert_eq!(bodies(&billing)?, [json!({"order_id": order, "currency": "CHF", "total": 129.5})]);
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.expect_all_accounted().await
}
