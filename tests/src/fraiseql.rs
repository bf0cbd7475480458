//! FraiseQL's own publishers, each a command of the program that `tests/fraiseql` is.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::artifacts;
use crate::nats_server::NatsServer;
use crate::postgres_server::PostgresServer;

/// How long one run may take: connecting, publishing a handful of events, ending.
const RUN_DEADLINE: Duration = Duration::from_secs(60);

/// What FraiseQL wants to be told before it uses a server on loopback without TLS.
const DEVELOPMENT: [(&str, &str); 3] = [
    ("FRAISEQL_ENV", "development"),
    ("FRAISEQL_NATS_ALLOW_PLAINTEXT", "true"),
    ("FRAISEQL_OBSERVERS_ALLOW_INSECURE", "true"),
];

/// The tables, functions and policies of FraiseQL's own migrations, in a server that has none of them.
pub async fn migrate(postgres: &PostgresServer) -> Result<()> {
    let ddl = finish(command(&["ddl"], None, None)?.spawn()?).await?;
    postgres.client().await?.batch_execute(&ddl).await.context("FraiseQL's migrations")
}

/// Drains the outbox into `stream` as `[cdc_outbound]` does, `ticks` times; what each did is a line of JSON.
pub async fn drain(
    postgres: &PostgresServer,
    nats: &NatsServer,
    stream: &str,
    template: &str,
    ticks: u32,
) -> Result<Vec<serde_json::Value>> {
    let arguments = ["cdc-drain", stream, template, &ticks.to_string()];
    let printed = finish(command(&arguments, Some(postgres), Some(nats))?.spawn()?).await?;
    printed.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Publishes these `EntityEvent`s through `NatsTransport`, which creates the stream where there is none.
pub async fn publish(nats: &NatsServer, stream: &str, prefix: &str, events: &[serde_json::Value]) -> Result<()> {
    let mut child = command(&["nats-transport", stream, prefix], None, Some(nats))?.spawn()?;
    let mut stdin = child.stdin.take().context("the publisher's standard input")?;
    for event in events {
        stdin.write_all(format!("{event}\n").as_bytes()).await?;
    }
    drop(stdin);
    finish(child).await.map(drop)
}

/// `PostgresNatsBridge` at work: it publishes the outbox until it is stopped.
#[derive(Debug)]
pub struct Bridge {
    child: Child,
}

impl Bridge {
    /// Starts it; it goes on where the last one on this database ended.
    pub fn start(postgres: &PostgresServer, nats: &NatsServer, stream: &str, prefix: &str) -> Result<Self> {
        let child = command(&["nats-bridge", stream, prefix], Some(postgres), Some(nats))?.spawn()?;
        Ok(Self { child })
    }

    /// Lets it end in its own way.
    pub async fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        finish(self.child).await.map(drop)
    }
}

fn command(arguments: &[&str], postgres: Option<&PostgresServer>, nats: Option<&NatsServer>) -> Result<Command> {
    let mut command = Command::new(artifacts::fraiseql_publishers()?);
    // FraiseQL takes a pod for production, whatever it is told.
    command.args(arguments).envs(DEVELOPMENT).env_remove("KUBERNETES_SERVICE_HOST").env_remove("FRAISEQL_PROFILE");
    if let Some(postgres) = postgres {
        command.env("DATABASE_URL", postgres.url());
    }
    if let Some(nats) = nats {
        command.env("NATS_URL", nats.url());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

/// Waits for a clean end, and returns what was printed.
async fn finish(child: Child) -> Result<String> {
    let output = tokio::time::timeout(RUN_DEADLINE, child.wait_with_output()).await;
    let Ok(output) = output else { bail!("FraiseQL's publisher runs on after {RUN_DEADLINE:?}") };
    let output = output?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "FraiseQL's publisher ended with {}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
