//! Commands beside a running host, and on its store while it is down: the same answers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use wirehook_tests::artifacts;
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(60);

/// A host that delivered orders 0 to 3, and whose orders 4 and 5 are dead letters.
async fn scene() -> Result<(HttpPublisher, FakeEndpoint, TestHost)> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("orders", &endpoint, "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;
    source.publish_orders(0..4).await?;
    endpoint.wait_for("the good webhooks", DEADLINE, |log| log.ids() == 4).await?;
    for request in endpoint.requests() {
        host.wait_delivery(request.webhook_id(), "delivered", DEADLINE).await?;
    }
    endpoint.set_script(Script::always(Answer::text(422, "no such customer")));
    source.publish_orders(4..6).await?;
    host.wait_dead_letters(2, DEADLINE).await?;
    Ok((source, endpoint, host))
}

#[tokio::test]
async fn commands_answer_the_same_beside_the_host_and_while_it_is_down() -> Result<()> {
    let (_source, _endpoint, mut host) = scene().await?;
    let lists: &[&[&str]] = &[&["deliveries", "list"], &["dead-letters", "list"], &["plugin", "list"]];
    let mut beside: Vec<Vec<Value>> = Vec::new();
    for list in lists {
        beside.push(host.json(list).await?.objects()?);
    }
    assert_eq!((beside[0].len(), beside[1].len(), beside[2].len()), (6, 2, 1));
    host.stop().await?;
    for (list, beside) in lists.iter().zip(&beside) {
        let down: Vec<Value> = host.json(list).await?.objects()?;
        assert_eq!(&down, beside, "`{}` while the host is down", list.join(" "));
    }
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_redrive_while_the_host_is_down_is_delivered_at_its_next_start() -> Result<()> {
    let (_source, endpoint, mut host) = scene().await?;
    host.stop().await?;
    let dead = host.dead_letters().await?;
    for letter in &dead {
        host.command(&["dead-letters", "redrive", &letter.id.to_string()]).await?.expect_code(0)?;
    }
    endpoint.set_script(Script::ok());
    host.start().await?;
    for letter in &dead {
        let id = letter.delivery_id.as_deref().context("a delivery's dead letter has its id")?;
        endpoint.wait_for("the redriven webhook", DEADLINE, |log| log.of(id).len() == 2).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_id_is_an_error_that_names_it() -> Result<()> {
    let (_source, _endpoint, mut host) = scene().await?;
    for running in [true, false] {
        if !running {
            host.stop().await?;
        }
        host.command(&["deliveries", "show", "msg_nobody"]).await?.expect_code(1)?.expect_said(&["msg_nobody"])?;
        host.command(&["dead-letters", "redrive", "999"]).await?.expect_code(1)?.expect_said(&["999"])?;
    }
    Ok(())
}

#[tokio::test]
async fn no_secret_is_ever_shown() -> Result<()> {
    let (_source, endpoint, host) = scene().await?;
    let id = endpoint.requests()[0].webhook_id().to_owned();
    let commands: &[&[&str]] = &[&["config", "show"], &["status"], &["check"], &["deliveries", "show", &id]];
    for command in commands {
        let output = host.command(command).await?;
        let said = format!("{}{}{}", output.stdout, output.stderr, host.logs().lines().join("\n"));
        ensure!(
            !said.contains(wirehook_tests::fake_endpoint::SECRET),
            "`{}` shows the secret: {said}",
            command.join(" ")
        );
    }
    Ok(())
}

/// What stands behind the scheme where a password has a character at which a URL's authority ends.
const UNENCODED: [&str; 7] =
    ["u:12/RET@h", "u:12?RET@h", "u:12#RET@h", "u:12@RET@h", "12/RET@h", ":12/RET@h", "h?password=12&RET"];

#[tokio::test]
async fn no_part_of_a_password_that_is_not_encoded_is_shown_by_settings() -> Result<()> {
    let host = TestHost::builder().build()?;
    let settings = host.folder.read_settings()?;
    let sections = [
        ("nats", "[[source]]\nname = \"a\"\nkind = \"nats\"\nsubjects = [\"a\"]\nurl = \"URL\""),
        ("redis", "[[source]]\nname = \"a\"\nkind = \"redis\"\nchannels = [\"a\"]\nurl = \"URL\""),
        ("postgres", "[[source]]\nname = \"a\"\nkind = \"postgres\"\nurl = { env = \"NO\", default = \"URL\" }"),
        ("http", "[[source]]\nname = \"a\"\nkind = \"http\"\nlisten = \"URL\""),
        ("https", "[[endpoint]]\nname = \"a\"\nscheme = \"none\"\nurl = \"URL\""),
        ("socks5", "[egress]\nproxy = \"URL\""),
        ("nats", "[[source]]\nname = \"a\"\nkind = \"nats\"\nurl = \"URL"),
    ];
    for (scheme, section) in sections {
        for text in UNENCODED {
            let url = format!("{scheme}://{text}:1/d");
            let before = if section.starts_with("[egress]") { "" } else { &settings };
            host.folder.write_settings(&format!("{before}\n{}\n", section.replace("URL", &url)))?;
            expect_silence(&host, &["config", "show"], &url).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn no_part_of_a_password_that_is_not_encoded_is_shown_by_arguments() -> Result<()> {
    let host = TestHost::builder().build()?;
    for text in UNENCODED {
        for arguments in [
            &["dev", "--plugin", "no.wasm", "--source"][..],
            &["dev", "--plugin", "no.wasm", "--source", "-", "--forward-to"],
            &["dev", "--plugin", "no.wasm", "--source", "-", "--allow-http"],
            &["dev", "--plugin", "no.wasm"],
            &["publish", "order.created", "--source"],
            &["publish"],
        ] {
            for scheme in ["nats", "postgres", "http"] {
                let url = format!("{scheme}://{text}:1/d");
                expect_silence(&host, &[arguments, &[&url]].concat(), &url).await?;
            }
        }
        for (backend, key) in [("nats", "nats_url"), ("redis", "redis_url")] {
            let url = format!("{backend}://{text}:1/d");
            let observers = format!("[observers]\nbackend = \"{backend}\"\n{key} = \"{url}\"\n");
            host.folder.write_file("fraiseql.toml", observers.as_bytes())?;
            expect_silence(&host, &["config", "show", "--observers", "fraiseql.toml"], &url).await?;
        }
    }
    Ok(())
}

async fn expect_silence(host: &TestHost, arguments: &[&str], url: &str) -> Result<()> {
    let output = host.command(arguments).await?;
    let said = format!("{}{}", output.stdout, output.stderr);
    ensure!(!output.status.success(), "`{}` takes {url}", output.line);
    ensure!(!said.contains("RET"), "`{}` with {url} shows part of a password: {said}", output.line);
    Ok(())
}

#[tokio::test]
async fn the_store_is_for_its_owner_only() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let (_source, _endpoint, host) = scene().await?;
    let mode = std::fs::metadata(host.store_path())?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    Ok(())
}

/// What the README begins with, as it is run there but for building.
#[tokio::test]
async fn the_demo_accounts_for_every_event() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for plugin in [None, Some(artifacts::example_plugin("orders")?)] {
        let mut demo = Command::new(artifacts::host_binary()?);
        demo.args(["demo", "--json"]).env("TMPDIR", folder.path()).current_dir(folder.path());
        if let Some(plugin) = &plugin {
            demo.arg("--plugin").arg(plugin);
        }
        let output =
            tokio::time::timeout(DEADLINE, demo.kill_on_drop(true).output()).await.context("the demo goes on")??;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "with {plugin:?} it ended with {}: {said}", output.status);
        let report: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(report["accounted"] == true && report["events"] == 1000, "with {plugin:?}: {report}");
    }
    Ok(())
}
