//! What is no fault of the endpoint's costs its deliveries nothing: they wait, through restarts too, and are delivered.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wirehook::settings::ProxyKind;
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::fake_proxy::{FakeProxy, Lead};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{HostFolderBuilder, PluginFile, TestHost};
use wirehook_tests::{port, wait};

const DEADLINE: Duration = Duration::from_secs(90);

/// The first failure that counts is the last.
const ONE_ATTEMPT: &str = "[endpoint.retry]\nmax_attempts = 1";

struct Scene {
    source: HttpPublisher,
    endpoint: FakeEndpoint,
    host: TestHost,
}

/// An endpoint whose deliveries die of the first failure that is charged to them.
async fn scene(settings: impl FnOnce(HostFolderBuilder, &FakeEndpoint) -> HostFolderBuilder) -> Result<Scene> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let builder = TestHost::builder().http(source.port, "");
    let mut host = settings(builder, &endpoint)
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;
    Ok(Scene { source, endpoint, host })
}

/// What `status` says of a part.
async fn detail(host: &TestHost, part: &str) -> Result<String> {
    let status = host.json(&["status"]).await?.object()?;
    let parts = status["host"]["parts"].as_array().context("a running host has parts")?;
    let found = parts.iter().find(|one| one["name"] == part);
    Ok(found.map_or_else(String::new, |found| found["detail"].as_str().unwrap_or_default().to_owned()))
}

async fn wait_detail(host: &TestHost, part: &str, expected: impl Fn(&str) -> bool) -> Result<String> {
    wait::until(&format!("{part} to say so"), DEADLINE, async || {
        let detail = detail(host, part).await?;
        Ok(expected(&detail).then_some(detail))
    })
    .await
}

/// Every delivery took exactly one attempt, and none died.
async fn expect_one_attempt_each(host: &TestHost, endpoint: &FakeEndpoint, count: usize) -> Result<()> {
    let requests = endpoint.requests();
    assert_eq!(requests.len(), count, "nothing was sent twice");
    for request in requests {
        let delivery = host.wait_delivery(request.webhook_id(), "delivered", DEADLINE).await?;
        assert_eq!(
            (&delivery["attempts"], delivery["attempts_made"].as_array().map(Vec::len)),
            (&Value::from(1), Some(1))
        );
    }
    assert_eq!(host.dead_letters().await?.len(), 0);
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_proxy_that_is_down_costs_no_delivery_an_attempt() -> Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port::free()?));
    let egress = format!("proxy = \"http://{address}\"");
    let Scene { source, endpoint, mut host } =
        scene(|builder, endpoint| builder.egress(&egress).endpoint("orders", endpoint, ONE_ATTEMPT)).await?;
    source.publish_orders(0..40).await?;
    let said = wait_detail(&host, "egress proxy", |detail| !detail.is_empty()).await?;
    assert_eq!(said, format!("the proxy http://{address} can't be reached: connection refused"));
    let shown = host.command(&["status"]).await?.expect_code(0)?.stdout;
    ensure!(shown.contains(&format!("egress proxy: down; {said}\n")), "{shown}");
    let said = wait_detail(&host, "endpoint orders", |detail| !detail.is_empty()).await?;
    assert!(said.starts_with("deliveries wait: the proxy "), "{said}");
    assert_eq!(host.readiness().await?.0, 200, "events are accepted all the same");
    host.wait_metric("wirehook_attempts_total", "outcome=\"deferred\"", 1.0, DEADLINE).await?;

    // What is known of a delivery survives: nothing was spent, so nothing is missing.
    host.kill9().await?;
    host.start().await?;
    wait_detail(&host, "egress proxy", |detail| !detail.is_empty()).await?;
    ensure!(endpoint.requests().is_empty(), "the endpoint was reached past the proxy");

    let proxy = FakeProxy::on(address, ProxyKind::Http, Lead::There, false).await;
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() == 40).await?;
    assert!(proxy.targets().iter().all(|target| endpoint.url().contains(target.as_str())), "{:?}", proxy.targets());
    expect_one_attempt_each(&host, &endpoint, 40).await?;
    assert_eq!((detail(&host, "egress proxy").await?, detail(&host, "endpoint orders").await?), Default::default());
    assert!(host.metric("wirehook_attempts_total", "outcome=\"retrying\"").await? < 1.0);
    Ok(())
}

#[tokio::test]
async fn a_source_of_tokens_that_is_down_costs_no_delivery_an_attempt() -> Result<()> {
    let tokens = FakeEndpoint::start(Script::always(Answer::status(503))).await?;
    let auth = format!(
        "{ONE_ATTEMPT}\n[endpoint.auth]\nkind = \"oauth2\"\ntoken_url = {:?}\nclient_id = \"wirehook\"\n\
         client_secret = {{ env = \"CLIENT_SECRET\" }}",
        tokens.url()
    );
    let Scene { source, endpoint, host } = scene(|builder, endpoint| {
        builder.endpoint("orders", endpoint, &auth).variable("CLIENT_SECRET", "hunter2hunter2")
    })
    .await?;
    source.publish_orders(0..20).await?;
    let said = wait_detail(&host, "endpoint orders", |detail| !detail.is_empty()).await?;
    assert_eq!(said, "deliveries wait: no token from 127.0.0.1: it answered 503 Service Unavailable");
    tokens.set_script(Script::always(Answer::text(200, r#"{"access_token":"t0ken","expires_in":3600}"#)));
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() == 20).await?;
    assert!(endpoint.requests().iter().all(|request| request.header("authorization") == Some("Bearer t0ken")));
    expect_one_attempt_each(&host, &endpoint, 20).await?;
    assert_eq!(detail(&host, "endpoint orders").await?, "");
    // Where the host says what it was told and what it does, it says no secret.
    let shown = host.json(&["config", "show"]).await?;
    for text in [host.logs().lines().join("\n"), shown.stdout] {
        assert!(!text.contains("hunter2hunter2") && !text.contains("t0ken"), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_recorded_with_where_it_points() -> Result<()> {
    let inside = FakeEndpoint::start(Script::ok()).await?;
    let location = inside.url();
    let answer = Answer::status(307).with_header("location", &format!("{location}?token=hush"));
    let Scene { source, endpoint, host } =
        scene(|builder, endpoint| builder.endpoint("orders", endpoint, ONE_ATTEMPT)).await?;
    endpoint.set_script(Script::always(answer));
    source.publish_orders([1]).await?;
    let letters = host.wait_dead_letters(1, DEADLINE).await?;
    assert_eq!((letters[0].reason.as_str(), letters[0].last_status), ("status_3xx", Some(307)));
    assert_eq!(letters[0].detail, format!("attempt 1: 307 redirects to {location}, which is not followed"));
    let delivery = host.delivery(endpoint.requests()[0].webhook_id()).await?;
    assert_eq!(delivery["attempts_made"][0]["status"], 307);
    assert!(
        delivery["attempts_made"][0]["error"].as_str().is_some_and(|error| error.contains(&location)),
        "{delivery}"
    );
    assert_eq!(inside.requests().len(), 0);
    Ok(())
}

#[tokio::test]
async fn check_says_what_is_wrong_with_the_files_of_an_endpoint() -> Result<()> {
    let host = TestHost::builder()
        .stdin()
        .endpoint_at("orders", "https://hooks.example/", "[endpoint.tls]\ncert = \"client.pem\"\nkey = \"client.key\"")
        .build()?;
    let folder = host.folder.settings_path();
    let folder = folder.parent().context("a folder")?;
    std::fs::write(folder.join("client.pem"), "nonsense")?;
    host.command(&["check"]).await?.expect_code(2)?.expect_said(&["`tls.key`", "client.key"])?;
    Ok(())
}
