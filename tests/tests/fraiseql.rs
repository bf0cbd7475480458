//! What FraiseQL's own crates publish arrives as webhooks, one for each change, whichever of its publishers it came by.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream;
use serde_json::{Value, json};
use tokio_postgres::Client;
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::fraiseql::{self, Bridge};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::postgres_server::PostgresServer;
use wirehook_tests::test_host::{HostFolderBuilder, PluginFile, TestHost};
use wirehook_tests::{full, wait};

const DEADLINE: Duration = Duration::from_secs(60);

/// As short as a server allows: FraiseQL's second publication of a change has to reach the stream.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);

const STREAM: &str = "fraiseql";
const TENANT: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const ORDER: &str = "bbbbbbbb-0000-4000-8000-000000000001";
const INVOICE: &str = "cccccccc-0000-4000-8000-000000000001";

/// A table of an application, and on it FraiseQL's capture of writes that went past it, as its generator installs it.
const APPLICATION: &str = "
    CREATE TABLE tb_order (id UUID PRIMARY KEY, tenant_id UUID, status TEXT);
    CREATE TRIGGER captured_ins AFTER INSERT ON tb_order REFERENCING NEW TABLE AS new_table
        FOR EACH STATEMENT EXECUTE FUNCTION core.fn_entity_change_log_capture('Order', 'id', 'tenant_id', 'true');
    CREATE TRIGGER captured_upd AFTER UPDATE ON tb_order REFERENCING OLD TABLE AS old_table NEW TABLE AS new_table
        FOR EACH STATEMENT EXECUTE FUNCTION core.fn_entity_change_log_capture('Order', 'id', 'tenant_id', 'true');
    CREATE TRIGGER captured_del AFTER DELETE ON tb_order REFERENCING OLD TABLE AS old_table
        FOR EACH STATEMENT EXECUTE FUNCTION core.fn_entity_change_log_capture('Order', 'id', 'tenant_id', 'true');";

/// An outbox row as FraiseQL's mutation executor writes it, every column given.
const MUTATION: &str = "
    INSERT INTO core.tb_entity_change_log
        (object_type, modification_type, object_id, tenant_id, fk_customer_org, fk_contact, object_data,
         updated_fields, cascade, duration_ms, started_at, commit_time, actor_type, acting_for, schema_version,
         trace_id, trace_context, change_status, extra_metadata)
    VALUES ('InvoiceLine', 'INSERT', 'cccccccc-0000-4000-8000-000000000001', NULL, 7, 42, '{\"total\": 129.50}',
         '{total}', '{}', 3, now(), clock_timestamp(), 'ai_agent', 'dddddddd-0000-4000-8000-000000000001', '12',
         '0af7651916cd43dd8448eb211c80319c',
         '{\"traceparent\": \"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}', 'success', '{}')";

/// What is left of every change once it was published: an entity of its own, whose webhook says that all before it
/// were read.
const LAST: &str = "
    INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_id)
    VALUES ('Last', 'CUSTOM', gen_random_uuid())";

#[tokio::test]
async fn a_drained_outbox_row_is_one_webhook_however_often_it_is_published() -> Result<()> {
    if !full::wanted("FraiseQL's DrainWorker") {
        return Ok(());
    }
    let (postgres, client) = changes().await?;
    let nats = NatsServer::start().await?;
    create_stream(&nats).await?;
    let (endpoint, mut host) = started(|host| host.jetstream(&nats, STREAM)).await?;

    let template = "fraiseql.{tenant_id}.{table}";
    let ticks = fraiseql::drain(&postgres, &nats, STREAM, template, 2).await?;
    let ticked = |published: u64| json!({ "enqueued": published, "published": published, "dead": 0 });
    assert_eq!(ticks, [ticked(4), ticked(0)]);
    let first = webhooks(&endpoint, 4).await?;
    let subjects = ["fraiseql.invoice_line.created", "fraiseql.order.created", "fraiseql.order.deleted"];
    assert_eq!(first.keys().filter(|subject| subjects.contains(&subject.as_str())).count(), 3, "{first:#?}");
    check_changes(&first);
    let updated = &first["fraiseql.order.updated"]["attributes"];
    assert_eq!(updated["format"], "change_event");
    assert_eq!(updated["raw_subject"], format!("fraiseql.{TENANT}.Order"));
    assert_eq!(updated["header.nats-msg-id"], format!("Order:{}", updated["seq"].as_str().context("a seq")?));
    assert_eq!(first["fraiseql.invoice_line.created"]["attributes"]["raw_subject"], "fraiseql._none_.InvoiceLine");

    // A worker that died before it recorded its publications, until the server keeps all of them a second time.
    wait::until("every change to be in the stream twice", DEADLINE, async || {
        client.execute("DELETE FROM core.tb_cdc_sink_state", &[]).await?;
        fraiseql::drain(&postgres, &nats, STREAM, template, 1).await?;
        Ok((messages(&nats).await? >= 8).then_some(()))
    })
    .await?;
    client.execute(LAST, &[]).await?;
    fraiseql::drain(&postgres, &nats, STREAM, template, 1).await?;
    check_nothing_more(&endpoint, &mut host, 5).await
}

#[tokio::test]
async fn an_entity_event_published_twice_is_one_webhook() -> Result<()> {
    if !full::wanted("FraiseQL's NatsTransport") {
        return Ok(());
    }
    let nats = NatsServer::start().await?;
    let event = |number: u32, kind: &str, data: Value, changes: Value| {
        json!({
            "id": format!("22222222-2222-4222-8222-{number:012}"), "event_type": kind, "entity_type": "Order",
            "entity_id": ORDER, "data": data, "changes": changes, "user_id": "ada", "tenant_id": TENANT,
            "timestamp": "2026-03-02T14:00:00.123456Z",
        })
    };
    // FraiseQL writes them in another order each time.
    let changed = |field: u32| (format!("field_{field}"), json!({ "old": field, "new": field + 1 }));
    let changes: Value = (0..16).map(changed).collect::<serde_json::Map<_, _>>().into();
    let events = [
        event(1, "INSERT", json!({ "id": ORDER, "status": "pending" }), Value::Null),
        event(2, "UPDATE", json!({ "id": ORDER, "status": "paid" }), changes),
        event(3, "DELETE", Value::Null, Value::Null),
    ];
    fraiseql::publish(&nats, STREAM, "entity.change", &events).await?;
    let (endpoint, mut host) = started(|host| host.jetstream(&nats, STREAM)).await?;
    let first = webhooks(&endpoint, 3).await?;
    let created = &first["fraiseql.order.created"];
    let expected = json!({
        "key": "bus/id/22222222-2222-4222-8222-000000000001", "subject": "fraiseql.order.created",
        "entity_type": "order", "operation": "created", "entity_id": ORDER, "tenant_id": TENANT,
        "timestamp": "2026-03-02T14:00:00.123456Z", "entity": { "id": ORDER, "status": "pending" }, "previous": null,
        "attempt": created["attempt"], "attributes": created["attributes"], "config": {},
    });
    assert_eq!(created, &expected);
    assert_eq!(created["attributes"]["format"], "entity_event");
    assert_eq!(created["attributes"]["raw_subject"], "entity.change.Order.INSERT");
    assert_eq!(created["attributes"]["actor"], "ada");
    assert_eq!(first["fraiseql.order.updated"]["entity"]["status"], "paid");
    assert_eq!(first["fraiseql.order.deleted"]["entity"], Value::Null);

    fraiseql::publish(&nats, STREAM, "entity.change", &events).await?;
    fraiseql::publish(&nats, STREAM, "entity.change", &[event(4, "CUSTOM", Value::Null, Value::Null)]).await?;
    assert_eq!(messages(&nats).await?, 7);
    check_nothing_more(&endpoint, &mut host, 4).await
}

/// The bridge gives a row that it publishes again another id and another timestamp; its `seq` stays.
#[tokio::test]
async fn a_row_that_the_bridge_publishes_again_is_one_webhook() -> Result<()> {
    if !full::wanted("FraiseQL's PostgresNatsBridge") {
        return Ok(());
    }
    let (postgres, client) = changes().await?;
    let nats = NatsServer::start().await?;
    let bridge = Bridge::start(&postgres, &nats, STREAM, "fraiseql.mutation")?;
    wait::until("the bridge's stream", DEADLINE, async || Ok((messages(&nats).await? == 4).then_some(()))).await?;
    bridge.stop().await?;
    let (endpoint, mut host) = started(|host| host.jetstream(&nats, STREAM)).await?;
    let first = webhooks(&endpoint, 4).await?;
    let created = &first["fraiseql.invoice_line.created"];
    assert_eq!((&created["entity_id"], &created["entity"]), (&json!(INVOICE), &json!({ "total": 129.50 })));
    assert_eq!(created["attributes"]["raw_subject"], "fraiseql.mutation.InvoiceLine.INSERT");
    assert_eq!(created["attributes"]["actor"], "42");
    assert_eq!(created["attributes"]["actor_type"], "ai_agent");
    assert_eq!(first["fraiseql.order.updated"]["tenant_id"], TENANT);

    // A bridge that died between the server's ack and its own mark.
    client
        .batch_execute(
            "UPDATE core.tb_entity_change_log SET nats_published_at = NULL, nats_event_id = NULL;
             DELETE FROM core.tb_transport_checkpoint",
        )
        .await?;
    client.execute(&LAST.replace("CUSTOM", "INSERT"), &[]).await?;
    let bridge = Bridge::start(&postgres, &nats, STREAM, "fraiseql.mutation")?;
    check_nothing_more(&endpoint, &mut host, 5).await?;
    assert_eq!(messages(&nats).await?, 9);
    bridge.stop().await
}

/// The outbox read by Wirehook and the outbox drained by FraiseQL are the same events, with the same keys: moving from
/// one to the other sends nothing twice.
#[tokio::test]
async fn the_outbox_read_directly_says_what_its_drained_rows_say() -> Result<()> {
    if !full::wanted("FraiseQL's outbox beside its DrainWorker") {
        return Ok(());
    }
    let (postgres, _client) = changes().await?;
    let url = postgres.url();
    let source = format!("[[source]]\nname = \"bus\"\nkind = \"postgres-outbox\"\nurl = {url:?}\nstart = \"all\"");
    let (direct, _direct_host) = started(|host| host.settings(&source)).await?;
    let direct = webhooks(&direct, 4).await?;
    check_changes(&direct);

    let nats = NatsServer::start().await?;
    create_stream(&nats).await?;
    fraiseql::drain(&postgres, &nats, STREAM, "fraiseql.{tenant_id}.{table}", 1).await?;
    let (drained, _drained_host) = started(|host| host.jetstream(&nats, STREAM)).await?;
    for (subject, drained) in webhooks(&drained, 4).await? {
        for member in ["key", "entity_type", "operation", "entity_id", "tenant_id", "entity", "previous"] {
            assert_eq!(direct[&subject][member], drained[member], "{subject}: {member}");
        }
    }
    let row = &direct["fraiseql.invoice_line.created"]["attributes"];
    assert_eq!((&row["format"], &row["actor_type"]), (&json!("outbox"), &json!("ai_agent")));
    assert_eq!(row["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    Ok(())
}

/// Every other test uses a table of our own making.
#[tokio::test]
async fn the_tests_outbox_has_the_columns_of_fraiseqls() -> Result<()> {
    if !full::wanted("a comparison with FraiseQL's outbox") {
        return Ok(());
    }
    let (postgres, client) = changes().await?;
    let theirs = columns(&client).await?;
    client.batch_execute("DROP SCHEMA core CASCADE").await?;
    postgres.create_outbox().await?;
    assert_eq!(columns(&client).await?, theirs);
    Ok(())
}

/// A database with FraiseQL's tables, an order that was created, updated and deleted, and an invoice's line.
async fn changes() -> Result<(PostgresServer, Client)> {
    let postgres = PostgresServer::start().await?;
    fraiseql::migrate(&postgres).await?;
    let client = postgres.client().await?;
    client.batch_execute(APPLICATION).await?;
    for change in [
        format!("INSERT INTO tb_order VALUES ('{ORDER}', '{TENANT}', 'pending')"),
        "UPDATE tb_order SET status = 'paid'".to_owned(),
        "DELETE FROM tb_order".to_owned(),
        MUTATION.to_owned(),
    ] {
        client.execute(&change, &[]).await.with_context(|| change)?;
    }
    Ok((postgres, client))
}

/// What [`changes`] are as events, on every bus that carries the images before and after.
fn check_changes(webhooks: &BTreeMap<String, Value>) {
    let order = |status: &str| json!({ "id": ORDER, "tenant_id": TENANT, "status": status });
    let check = |subject: &str, entity: Value, previous: Value| {
        let event = webhooks.get(subject).unwrap_or(&Value::Null);
        let found = [&event["entity"], &event["previous"], &event["entity_id"], &event["tenant_id"]];
        assert_eq!(found, [&entity, &previous, &json!(ORDER), &json!(TENANT)], "{subject}");
        let key = format!("bus/seq/Order:{}", event["attributes"]["seq"].as_str().unwrap_or_default());
        assert_eq!(event["key"], key, "{subject}");
    };
    check("fraiseql.order.created", order("pending"), Value::Null);
    check("fraiseql.order.updated", order("paid"), order("pending"));
    check("fraiseql.order.deleted", Value::Null, order("paid"));
    let line = &webhooks["fraiseql.invoice_line.created"];
    assert_eq!((&line["entity_type"], &line["operation"]), (&json!("invoice_line"), &json!("created")));
    assert_eq!((&line["entity_id"], &line["tenant_id"]), (&json!(INVOICE), &Value::Null));
    assert_eq!((&line["entity"], &line["previous"]), (&json!({ "total": 129.50 }), &Value::Null));
    assert!(line["timestamp"].is_string(), "{line}");
}

/// A host with the source that `source` adds, whose plugin sends every event on as it got it.
async fn started(source: impl FnOnce(HostFolderBuilder) -> HostFolderBuilder) -> Result<(FakeEndpoint, TestHost)> {
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = source(TestHost::builder())
        .endpoint("all", &endpoint, "")
        .plugin(PluginFile::hostile("echo")?.subscribed("fraiseql.>", "all"))
        .build()?;
    host.start().await?;
    Ok((endpoint, host))
}

/// The first `count` webhooks' bodies, by their events' subjects.
async fn webhooks(endpoint: &FakeEndpoint, count: usize) -> Result<BTreeMap<String, Value>> {
    endpoint.wait_for(&format!("{count} webhooks"), DEADLINE, |log| log.ids() >= count).await?;
    endpoint.expect_all_signed()?;
    let mut found = BTreeMap::new();
    for request in endpoint.requests() {
        let body: Value = serde_json::from_slice(&request.body)?;
        found.insert(body["subject"].as_str().context("a subject")?.to_owned(), body);
    }
    Ok(found)
}

/// Once the last event's webhook is there: `ids` webhooks, each sent once, and nothing else came of what was published.
async fn check_nothing_more(endpoint: &FakeEndpoint, host: &mut TestHost, ids: usize) -> Result<()> {
    endpoint.wait_for("the last event's webhook", DEADLINE, |log| log.ids() >= ids).await?;
    host.stop().await?;
    endpoint.expect_all_signed()?;
    assert_eq!(endpoint.look(|log| (log.ids(), log.all().len())), (ids, ids));
    assert_eq!(host.dead_letters().await?.len(), 0, "{:#?}", host.dead_letters().await?);
    host.expect_all_accounted().await
}

async fn create_stream(nats: &NatsServer) -> Result<()> {
    let config = jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["fraiseql.>".to_owned()],
        duplicate_window: DUPLICATE_WINDOW,
        ..Default::default()
    };
    jetstream::new(nats.client().await?).create_stream(config).await?;
    Ok(())
}

/// How many messages the stream has; none where there is no stream yet.
async fn messages(nats: &NatsServer) -> Result<u64> {
    let context = jetstream::new(nats.client().await?);
    let Ok(mut stream) = context.get_stream(STREAM).await else { return Ok(0) };
    Ok(stream.info().await?.state.messages)
}

/// The outbox's columns and their types.
async fn columns(client: &Client) -> Result<BTreeMap<String, String>> {
    let rows = client
        .query(
            "SELECT column_name::text, udt_name::text FROM information_schema.columns
             WHERE table_schema = 'core' AND table_name = 'tb_entity_change_log'",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
