//! Every signature scheme on the whole path, judged by the libraries that receivers use.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use wirehook_tests::events::{order_created, page_event};
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Received, Script};
use wirehook_tests::full;
use wirehook_tests::http_client;
use wirehook_tests::judges::{Case, Judge};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::python_verifier;
use wirehook_tests::test_host::{PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(60);

/// A secret of Standard Webhooks, and the one before it.
const WHSEC: &str = "whsec_bm9ib2R5LW1heS1zZWUtdGhlLW5ldy1zZWNyZXQ=";
const WHSEC_OLD: &str = "whsec_bm9ib2R5LW1heS1zZWUtdGhlLW9sZC1zZWNyZXQ=";
/// The ed25519 key of RFC 8032's first test, and its public key.
const WHSK: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const WHPK: &str = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const WHPK_OTHER: &str = "whpk_PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";
/// Of the schemes that take a secret as it is written.
const PLAIN: &str = "plain-secret-that-nobody-may-see";
const PLAIN_OLD: &str = "old-secret-that-nobody-may-see";

/// Every endpoint's name, and how it signs.
const ENDPOINTS: &[(&str, &str)] = &[
    ("page", "secret = { env = \"PLAIN\" }"),
    ("standard", "signature = \"standard-webhooks\"\nsecret = { env = \"WHSEC\" }"),
    (
        "rotating",
        "signature = \"standard-webhooks\"\nsecret = [{ env = \"WHSK\" }, { env = \"WHSEC\" },\
         { env = \"WHSEC_OLD\", expires = \"2999-01-01T00:00:00Z\" }]",
    ),
    (
        "expired",
        "signature = \"standard-webhooks\"\nsecret = [{ env = \"WHSEC\" },\
         { env = \"WHSEC_OLD\", expires = \"2020-01-01T00:00:00Z\" }]",
    ),
    ("stripe", "signature = \"stripe\"\nsecret = [{ env = \"PLAIN\" }, { env = \"PLAIN_OLD\" }]"),
    (
        "fraiseql",
        "signature = \"stripe\"\nsignature_header = \"X-FraiseQL-Signature-256\"\nsecret = { env = \"PLAIN\" }",
    ),
    ("github", "signature = \"github\"\nsecret = [{ env = \"PLAIN\" }, { env = \"PLAIN_OLD\" }]"),
    ("hmac", "signature = \"hmac\"\nsignature_header = \"X-Shop-Digest\"\nsecret = { file = \"shop.secret\" }"),
    ("bare", "signature = \"hmac\"\nsecret = { env = \"PLAIN\" }"),
    ("unsigned", "signature = \"none\""),
];

struct Scene {
    source: HttpPublisher,
    endpoint: FakeEndpoint,
    host: TestHost,
}

/// A host with a plugin for each of `endpoints`, which all go to one server, each to a path of its own.
async fn scene(endpoints: &[(&str, &str)], script: Script) -> Result<Scene> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(script).await?;
    let mut folder = TestHost::builder().http(source.port, "");
    for (name, signing) in endpoints {
        let url = format!("{}/{name}", endpoint.url());
        let retry = "retry = { max_attempts = 2, initial_delay = \"10ms\" }";
        folder = folder.settings(&format!("[[endpoint]]\nname = {name:?}\nurl = {url:?}\n{signing}\n{retry}"));
        let plugin = PluginFile { name: format!("to-{name}"), ..PluginFile::hostile("echo")? };
        folder = folder.plugin(plugin.subscribed("fraiseql.order.*", name));
    }
    let variables = [
        ("PLAIN", PLAIN),
        ("PLAIN_OLD", PLAIN_OLD),
        ("WHSEC", WHSEC),
        ("WHSEC_OLD", WHSEC_OLD),
        ("WHSK", WHSK),
        ("WIREHOOK_LOG", "trace"),
    ];
    for (name, value) in variables {
        folder = folder.variable(name, value);
    }
    let mut host = folder.build()?;
    host.folder.write_file("shop.secret", format!("{PLAIN}\n").as_bytes())?;
    host.start().await?;
    Ok(Scene { source, endpoint, host })
}

/// The last request of the endpoint `name`.
fn last(endpoint: &FakeEndpoint, name: &str) -> Result<Received> {
    let path = format!("/hook/{name}");
    let found = endpoint.look(|log| log.all().iter().rev().find(|request| request.path == path).cloned());
    found.with_context(|| format!("no request for {name}"))
}

/// An order whose body a careless library would not write as it came.
async fn publish(source: &HttpPublisher, number: usize) -> Result<()> {
    let entity = json!({ "id": number, "total": 129.50, "note": "Zoë 🦀 </script> \"q\" & \u{2028}" });
    let (status, text) = source.post(page_event("order", "created", number, &entity).body).await?;
    ensure!(status == 202, "the event was answered {status}: {text}");
    Ok(())
}

fn case(endpoint: &FakeEndpoint, name: &str, verifier: &'static str, secret: &str) -> Result<Case> {
    let header = match name {
        "fraiseql" => Some("x-fraiseql-signature-256"),
        "stripe" => Some("stripe-signature"),
        "hmac" => Some("x-shop-digest"),
        _ => None,
    };
    Ok(Case { verifier, request: last(endpoint, name)?, secret: secret.to_owned(), header })
}

/// A secret of the same kind, which signed nothing.
fn other(case: &Case) -> String {
    match case.secret.as_str() {
        WHPK => WHPK_OTHER.to_owned(),
        secret if secret.starts_with("whsec_") => format!("whsec_{}", STANDARD.encode([7; 32])),
        _ => "another secret".to_owned(),
    }
}

#[tokio::test]
async fn receivers_own_libraries_accept_every_scheme() -> Result<()> {
    let Scene { source, endpoint, host } = scene(ENDPOINTS, Script::ok()).await?;
    publish(&source, 1).await?;
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() == ENDPOINTS.len()).await?;

    let of = |name, verifier, secret| case(&endpoint, name, verifier, secret);
    let standard = [
        of("standard", "standardwebhooks", WHSEC)?,
        of("rotating", "standardwebhooks", WHSEC)?,
        of("rotating", "standardwebhooks", WHSEC_OLD)?,
        of("expired", "standardwebhooks", WHSEC)?,
    ];
    Judge::Python.accepts_all(&standard, other).await?;
    let others = [
        of("rotating", "ed25519", WHPK)?,
        of("stripe", "stripe", PLAIN)?,
        of("stripe", "stripe", PLAIN_OLD)?,
        of("fraiseql", "stripe", PLAIN)?,
        of("github", "github", PLAIN)?,
    ];
    Judge::Node.accepts_all(&[&standard[..], &others[..]].concat(), other).await?;
    python_verifier::accept_all(&[last(&endpoint, "page")?], PLAIN).await?;

    // What signs nothing any more, or was never to sign.
    let not_signed = [of("expired", "standardwebhooks", WHSEC_OLD)?, of("github", "github", PLAIN_OLD)?];
    for verdict in Judge::Node.verdicts(&not_signed).await? {
        ensure!(verdict != "ok", "a secret that signs nothing did sign");
    }
    let unsigned = last(&endpoint, "unsigned")?;
    ensure!(unsigned.webhook_id().starts_with("msg_"), "{unsigned:?}");
    ensure!(!unsigned.headers.iter().any(|(name, _)| name.contains("signature")), "{unsigned:?}");

    // `wirehook verify` says the same of each.
    for (name, variable) in [
        ("page", "PLAIN"),
        ("standard", "WHSEC"),
        ("stripe", "PLAIN_OLD"),
        ("fraiseql", "PLAIN"),
        ("github", "PLAIN"),
        ("bare", "PLAIN"),
    ] {
        verify(&host, &last(&endpoint, name)?, &["--secret-env", variable], None, 0).await?;
        verify(&host, &last(&endpoint, name)?, &["--endpoint", name], None, 0).await?;
    }
    let shop = ["--scheme", "hmac", "--signature-header", "X-Shop-Digest", "--secret-file", "shop.secret"];
    verify(&host, &last(&endpoint, "hmac")?, &shop, None, 0).await?;
    host.expect_all_accounted().await
}

/// Runs `wirehook verify` on a request, with another body where there is one; returns what it printed.
async fn verify(host: &TestHost, request: &Received, how: &[&str], body: Option<&[u8]>, code: i32) -> Result<String> {
    let headers: Vec<_> = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let headers = headers.iter().flat_map(|header| ["-H", header.as_str()]);
    let arguments: Vec<_> = ["verify", "-"].into_iter().chain(how.iter().copied()).chain(headers).collect();
    let output = host.folder.run_with_input(&arguments, body.unwrap_or(&request.body)).await?.expect_code(code)?;
    Ok(output.stdout)
}

#[tokio::test]
async fn verify_says_why_a_real_webhook_is_refused() -> Result<()> {
    let Scene { source, endpoint, host } = scene(&ENDPOINTS[..1], Script::ok()).await?;
    publish(&source, 1).await?;
    endpoint.wait_for("the webhook", DEADLINE, |log| log.ids() == 1).await?;
    let request = last(&endpoint, "page")?;
    let value: serde_json::Value = serde_json::from_slice(&request.body)?;
    let pretty = serde_json::to_vec_pretty(&value)?;
    let by_secret = ["--secret-env", "PLAIN"];
    let said = verify(&host, &request, &by_secret, Some(&pretty), 1).await?;
    ensure!(said.contains("the body was re-serialised"), "{said}");
    let said = verify(&host, &request, &["--secret-env", "PLAIN_OLD"], None, 1).await?;
    ensure!(said.contains("the secret is another one"), "{said}");
    let late = ["--secret-env", "PLAIN", "--at", "2000-01-01T00:00:00Z", "--json"];
    let said: serde_json::Value = serde_json::from_str(&verify(&host, &request, &late, None, 1).await?)?;
    assert_eq!(
        (&said["verified"], &said["reason"], &said["scheme"]),
        (&false.into(), &"stale".into(), &"fraiseql".into())
    );
    let said = verify(&host, &request, &["--secret-env", "PLAIN", "--scheme", "github"], None, 1).await?;
    ensure!(
        said.contains("`x-hub-signature-256` is missing; the request looks like one of the scheme fraiseql"),
        "{said}"
    );
    Ok(())
}

/// In [`ENDPOINTS`], the ones that FraiseQL's receivers know.
#[tokio::test]
async fn fraiseqls_own_receivers_accept_their_schemes() -> Result<()> {
    if !full::wanted("FraiseQL's own receivers") {
        return Ok(());
    }
    let Scene { source, endpoint, host: _host } = scene(ENDPOINTS, Script::ok()).await?;
    publish(&source, 1).await?;
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() == ENDPOINTS.len()).await?;
    let cases = [
        case(&endpoint, "stripe", "stripe", PLAIN)?,
        case(&endpoint, "stripe", "stripe", PLAIN_OLD)?,
        case(&endpoint, "fraiseql", "stripe", PLAIN)?,
        case(&endpoint, "github", "github", PLAIN)?,
        case(&endpoint, "hmac", "hmac-sha256", PLAIN)?,
        case(&endpoint, "bare", "hmac-sha256", PLAIN)?,
        case(&endpoint, "standard", "standard-webhooks", WHSEC)?,
        case(&endpoint, "rotating", "standard-webhooks", WHSEC)?,
        case(&endpoint, "rotating", "standard-webhooks", WHSEC_OLD)?,
    ];
    Judge::Fraiseql.accepts_all(&cases, other).await
}

/// What signs is read again; what can't be used changes nothing and is told once.
#[tokio::test]
async fn a_secret_in_a_file_changes_while_the_host_runs() -> Result<()> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let url = format!("{}/standard", endpoint.url());
    let mut host = TestHost::builder()
        .http(source.port, "")
        .settings(&format!(
            "[[endpoint]]\nname = \"standard\"\nurl = {url:?}\n\
             signature = \"standard-webhooks\"\nsecret = {{ file = \"signing.secret\" }}"
        ))
        .plugin(PluginFile::hostile("echo")?.subscribed("fraiseql.order.*", "standard"))
        .build()?;
    host.folder.write_file("signing.secret", WHSEC_OLD.as_bytes())?;
    host.start().await?;
    let mut number = 0;
    let mut signed_with = async |secret: &'static str| -> Result<()> {
        number += 1;
        publish(&source, number).await?;
        endpoint.wait_for("the webhook", DEADLINE, |log| log.ids() == number).await?;
        Judge::Python.accepts_all(&[case(&endpoint, "standard", "standardwebhooks", secret)?], other).await
    };
    signed_with(WHSEC_OLD).await?;

    host.folder.write_file("signing.secret", format!("{WHSEC}\n").as_bytes())?;
    host.logs().wait_for("a secret has changed", DEADLINE).await?;
    signed_with(WHSEC).await?;

    host.folder.write_file("signing.secret", b"whsec_too-short")?;
    host.logs().wait_for("what is in it is not base64", DEADLINE).await?;
    signed_with(WHSEC).await?;
    host.folder.remove_file("signing.secret")?;
    host.logs().wait_for("No such file", DEADLINE).await?;
    signed_with(WHSEC).await?;
    host.folder.write_file("signing.secret", WHSEC.as_bytes())?;
    host.logs().wait_for("the secret's file is as it was", DEADLINE).await?;
    signed_with(WHSEC).await?;

    let said = host.logs().lines();
    let complaints = said.iter().filter(|line| line.contains("a secret's file can't be used")).count();
    assert_eq!(complaints, 2, "{said:#?}");
    ensure!(said.iter().all(|line| !line.contains(WHSEC) && !line.contains("too-short")), "{said:#?}");
    host.forget_logs();
    Ok(())
}

/// Every secret, and whatever could be written of it.
fn needles() -> Vec<Vec<u8>> {
    let mut needles = Vec::new();
    for secret in [PLAIN, PLAIN_OLD, WHSEC, WHSEC_OLD, WHSK] {
        let text = secret.split_once('_').map_or(secret, |(_, text)| text);
        let decoded = STANDARD.decode(text).unwrap_or_default();
        for bytes in [secret.as_bytes(), text.as_bytes(), &decoded] {
            let written = [bytes.to_vec(), STANDARD.encode(bytes).into_bytes(), hex::encode(bytes).into_bytes()];
            // A short one may be anywhere.
            needles.extend(written.into_iter().filter(|needle| needle.len() >= 16));
        }
    }
    needles
}

#[tokio::test]
async fn no_secret_is_in_anything_that_the_host_wrote() -> Result<()> {
    let script = Script::by(|call| match (call.request.path.ends_with("github"), call.number) {
        (true, _) => Answer::text(400, "no"),
        (_, 1) => Answer::status(503),
        _ => Answer::ok(),
    });
    let Scene { source, endpoint, mut host } = scene(ENDPOINTS, script).await?;
    let (status, _) = source.post(order_created(1).body).await?;
    assert_eq!(status, 202);
    let dead = host.wait_dead_letters(1, DEADLINE).await?.remove(0);
    let delivered = last(&endpoint, "rotating")?.webhook_id().to_owned();
    host.wait_delivery(&delivered, "delivered", DEADLINE).await?;
    // A secret that was read again, and one that can't be used.
    let changed = format!("{PLAIN_OLD}\n");
    host.folder.write_file("shop.secret", changed.as_bytes())?;
    host.logs().wait_for("a secret has changed", DEADLINE).await?;

    let mut seen = Vec::new();
    for path in ["/metrics", "/readyz", "/healthz"] {
        let answer = http_client::new()?.get(host.folder.admin_url(path)).send().await?;
        seen.push((path.to_owned(), answer.text().await?.into_bytes()));
    }
    let letter = dead.id.to_string();
    let request = last(&endpoint, "standard")?;
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["config", "show"],
        &["config", "show", "--json"],
        &["check"],
        &["check", "--json"],
        &["plugin", "list", "--json"],
        &["deliveries", "list", "--json"],
        &["deliveries", "show", &delivered],
        &["dead-letters", "list", "--json"],
        &["dead-letters", "show", &letter],
    ] {
        let output = host.command(command).await?;
        seen.push((command.join(" "), (output.stdout + &output.stderr).into_bytes()));
    }
    for secret in ["WHSEC", "WHSK", "PLAIN"] {
        let how = ["--secret-env", secret, "--scheme", "standard-webhooks"];
        let output = host.folder.run_with_input(&[&["verify", "-"][..], &how].concat(), &request.body).await?;
        seen.push((format!("verify {secret}"), (output.stdout + &output.stderr).into_bytes()));
    }
    // Before the drain empties the log file into the database, and after.
    let mut files = host.folder.contents()?;
    host.stop().await?;
    files.extend(host.folder.contents()?);
    files.retain(|(path, _)| !path.ends_with("shop.secret"));
    seen.push(("the logs".to_owned(), host.logs().lines().join("\n").into_bytes()));
    seen.extend(files.into_iter().map(|(path, content)| (path.display().to_string(), content)));

    ensure!(
        seen.iter().any(|(place, _)| *place == host.store_path().display().to_string()),
        "the store was not looked into"
    );
    ensure!(seen.iter().any(|(_, content)| finds(content, b"<redacted> until 2999")), "`config show` says nothing");
    let needles = Needles::new(needles());
    ensure!(needles.found_in(format!("…{WHSK}").as_bytes()).is_some(), "nothing would be found");
    for (place, content) in &seen {
        if let Some(needle) = needles.found_in(content) {
            bail!("`{needle}` is in {place}");
        }
    }
    host.forget_logs();
    Ok(())
}

fn finds(content: &[u8], needle: &[u8]) -> bool {
    content.windows(needle.len()).any(|window| window == needle)
}

/// Looks for many strings at once, in megabytes.
struct Needles {
    by_beginning: HashMap<[u8; 8], Vec<Vec<u8>>>,
}

impl Needles {
    fn new(needles: Vec<Vec<u8>>) -> Self {
        let mut by_beginning: HashMap<_, Vec<_>> = HashMap::new();
        for needle in needles {
            let beginning = *needle.first_chunk().expect("needles are longer");
            by_beginning.entry(beginning).or_default().push(needle);
        }
        Self { by_beginning }
    }

    fn found_in(&self, content: &[u8]) -> Option<String> {
        let at = |position: usize| {
            let rest = &content[position..];
            let likely = self.by_beginning.get(rest.first_chunk::<8>()?)?;
            likely
                .iter()
                .find(|needle| rest.starts_with(needle))
                .map(|needle| String::from_utf8_lossy(needle).into_owned())
        };
        (0..content.len()).find_map(at)
    }
}
