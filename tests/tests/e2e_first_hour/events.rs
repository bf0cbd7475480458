//! The same event in each form that it may have, on each bus that can carry it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::{HttpPublisher, answer};
use wirehook_tests::redis_server::RedisServer;
use wirehook_tests::test_host::{PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(60);
/// Of every source: JSON that says what it is.
const FIELDS: &str = "type_field = \"type\"\ntenant_field = \"tenant\"\nid_field = \"event_id\"\ntime_field = \"at\"\n\
                      entity_id_field = \"/data/id\"\ndata_field = \"data\"\n";

/// One message for a bus.
struct Published {
    headers: Vec<(&'static str, String)>,
    body: String,
    /// The entities of the events in it.
    entities: Vec<String>,
}

/// A bus that messages can be put on.
enum Bus {
    Http(HttpPublisher),
    Nats(async_nats::Client),
    Jetstream(async_nats::jetstream::Context),
    Redis(redis::aio::MultiplexedConnection),
    RedisStream(redis::aio::MultiplexedConnection),
}

impl Bus {
    async fn publish(&mut self, message: &Published) -> Result<()> {
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in &message.headers {
            headers.insert(*name, value.as_str());
        }
        let body = Bytes::copy_from_slice(message.body.as_bytes());
        match self {
            Self::Http(web) => {
                let json = message.headers.iter().all(|(name, _)| *name != "content-type");
                let url = format!("http://127.0.0.1:{}/events", web.port);
                let mut request = wirehook_tests::http_client::new()?.post(url).body(body);
                for (name, value) in &message.headers {
                    request = request.header(*name, value);
                }
                let request = if json { request.header("content-type", "application/json") } else { request };
                let (status, text) = answer(request).await?;
                ensure!(status == 202, "{} was answered {status}: {text}", message.body);
            }
            Self::Nats(client) => {
                client.publish_with_headers("core.events", headers, body).await?;
                client.flush().await?;
            }
            Self::Jetstream(context) => {
                context.publish_with_headers("kept.events", headers, body).await?.await?;
            }
            Self::Redis(client) => {
                let () = redis::cmd("PUBLISH").arg("events").arg(&message.body).query_async(client).await?;
            }
            Self::RedisStream(client) => {
                let mut add = redis::cmd("XADD");
                add.arg("events").arg("*").arg("payload").arg(&message.body);
                for (name, value) in &message.headers {
                    add.arg(*name).arg(value);
                }
                let () = add.query_async(client).await?;
            }
        }
        Ok(())
    }

    fn has_headers(&self) -> bool {
        !matches!(self, Self::Redis(_))
    }
}

fn cloud_event(id: &str, source: &str, entity: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": source, "type": "order.created", "subject": entity,
        "time": "2026-03-02T14:00:00Z", "tenantid": "acme", "data": data(entity),
    })
}

fn data(entity: &str) -> Value {
    json!({ "id": entity, "total": 129.5 })
}

fn body(body: &Value, entities: &[&str]) -> Published {
    let entities = entities.iter().map(|entity| (*entity).to_owned()).collect();
    Published { headers: Vec::new(), body: body.to_string(), entities }
}

/// The event in each form, as a message of its own entity: `{bus}-{form}`.
fn forms(bus: &str, has_headers: bool) -> Vec<Published> {
    let entity = |form: &str| format!("{bus}-{form}");
    let (page, structured, plain) = (entity("page"), entity("structured"), entity("plain"));
    let (first, second) = (entity("batched-1"), entity("batched-2"));
    let mut forms = vec![
        body(
            &json!({
                "event": "fraiseql.order.created", "entity_type": "order", "operation": "created", "entity_id": page,
                "tenant_id": "acme", "entity": data(&page), "timestamp": "2026-03-02T14:00:00Z",
            }),
            &[&page],
        ),
        body(&cloud_event("1", bus, &structured), &[&structured]),
        body(
            &json!({
                "event_id": "p", "type": "order.created", "tenant": "acme", "at": "2026-03-02T14:00:00Z",
                "data": data(&plain),
            }),
            &[&plain],
        ),
        body(&json!([cloud_event("2", bus, &first), cloud_event("3", bus, &second)]), &[&first, &second]),
    ];
    if has_headers {
        let (declared, binary) = (entity("declared"), entity("binary"));
        let mut batch = body(&json!([cloud_event("4", bus, &declared)]), &[&declared]);
        batch.headers.push(("content-type", "application/cloudevents-batch+json".to_owned()));
        forms.push(batch);
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", "5"),
            ("ce-source", bus),
            ("ce-type", "order.created"),
            ("ce-subject", &binary),
            ("ce-time", "2026-03-02T14:00:00Z"),
            ("ce-tenantid", "acme"),
            ("content-type", "application/json"),
        ];
        forms.push(Published {
            headers: headers.map(|(name, value)| (name, value.to_owned())).to_vec(),
            body: data(&binary).to_string(),
            entities: vec![binary],
        });
    }
    forms
}

/// What the plugin was given of each entity, without what differs by bus and entity.
fn given(endpoint: &FakeEndpoint) -> Result<BTreeMap<String, Value>> {
    let mut given = BTreeMap::new();
    for received in endpoint.look(|log| log.all().to_vec()) {
        let event: Value = serde_json::from_slice(&received.body)?;
        let entity = event["entity_id"].as_str().context("an entity")?.to_owned();
        ensure!(event["entity"] == data(&entity), "{event}");
        let told = json!({
            "type": event["attributes"]["type"], "entity_type": event["entity_type"], "operation": event["operation"],
            "tenant": event["tenant_id"], "timestamp": event["timestamp"],
        });
        ensure!(given.insert(entity.clone(), told).is_none(), "{entity} came twice");
    }
    Ok(given)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_the_same_for_the_plugin_and_comes_once() -> Result<()> {
    let (nats, redis) = (NatsServer::start().await?, RedisServer::start().await?);
    nats.create_stream("EVENTS", &["kept.>"]).await?;
    let (web, endpoint) = (HttpPublisher::new()?, FakeEndpoint::start(Script::ok()).await?);
    let source = |name: &str, kind: &str, rest: String| {
        format!("[[source]]\nname = {name:?}\nkind = {kind:?}\n{rest}\n{FIELDS}")
    };
    let (nats_url, redis_url) = (nats.url(), redis.url());
    let mut host = TestHost::builder()
        .http(web.port, FIELDS)
        .settings(&source("core", "nats", format!("url = {nats_url:?}\nsubjects = [\"core.>\"]")))
        .settings(&source("kept", "jetstream", format!("url = {nats_url:?}\nstream = \"EVENTS\"\nstart = \"all\"")))
        .settings(&source("channel", "redis", format!("url = {redis_url:?}\nchannels = [\"events\"]")))
        .settings(&source(
            "entries",
            "redis-stream",
            format!("url = {redis_url:?}\nstreams = [\"events\"]\nstart = \"all\""),
        ))
        .endpoint("echo", &endpoint, "")
        .plugin(
            PluginFile::hostile("echo")?
                .with_sidecar("subjects = [\"order.created\", \"fraiseql.order.created\"]\nendpoints = [\"echo\"]\n"),
        )
        .build()?;
    host.start().await?;
    let mut buses = vec![
        ("http", Bus::Http(web)),
        ("nats", Bus::Nats(nats.client().await?)),
        ("jetstream", Bus::Jetstream(async_nats::jetstream::new(nats.client().await?))),
        ("redis", Bus::Redis(redis.client().await?)),
        ("redis-stream", Bus::RedisStream(redis.client().await?)),
    ];
    let mut entities = Vec::new();
    for (name, bus) in &mut buses {
        for form in forms(name, bus.has_headers()) {
            bus.publish(&form).await?;
            // Again, as a publisher that has heard no answer does: what says who it is comes once.
            if !form.body.contains("fraiseql.") {
                bus.publish(&form).await?;
            }
            entities.extend(form.entities);
        }
        // The same id of another producer is another event.
        let other = format!("{name}-other");
        bus.publish(&body(&cloud_event("1", "elsewhere", &other), &[&other])).await?;
        entities.push(other);
    }
    endpoint.wait_for("every event", DEADLINE, |log| log.ids() >= entities.len()).await?;
    // Until what was published twice has been looked at as well.
    let accepted = entities.len() as f64;
    host.stop().await?;
    let given = given(&endpoint)?;
    let told = json!({
        "type": "order.created", "entity_type": "order", "operation": "created", "tenant": "acme",
        "timestamp": "2026-03-02T14:00:00Z",
    });
    entities.sort();
    assert_eq!(given.keys().cloned().collect::<Vec<_>>(), entities);
    for (entity, found) in &given {
        assert_eq!(*found, told, "{entity}");
    }
    assert_eq!(given.len() as f64, accepted);
    endpoint.expect_all_signed()
}
