//! A real redis-server that keeps what it said it has, which a test may kill and start again.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{port, wait};

/// How long a server may take until it answers.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// Another process may take the free port before the server does.
const PORT_TRIES: usize = 5;
/// Commands of one round trip of [`RedisServer::publish`] and [`RedisServer::add`].
const PIPELINE_COMMANDS: usize = 500;

/// A redis-server on a free loopback port, with an append-only file, synced at every write, in a folder of its own.
/// Dropping it kills it.
#[derive(Debug)]
pub struct RedisServer {
    child: Option<Child>,
    port: u16,
    arguments: Vec<String>,
    folder: TempDir,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server with more arguments, such as `--requirepass` with a password.
    pub async fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut server = Self::stopped()?;
        server.arguments = arguments.iter().map(ToString::to_string).collect();
        for _ in 1..PORT_TRIES {
            if server.restart().await.is_ok() {
                return Ok(server);
            }
            server.port = port::free()?;
        }
        server.restart().await?;
        Ok(server)
    }

    /// A server that is down: a port nobody listens on until [`restart`](Self::restart).
    pub fn stopped() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("wirehook-redis-").tempdir()?;
        Ok(Self { child: None, port: port::free()?, arguments: Vec::new(), folder })
    }

    /// `redis://127.0.0.1:{port}`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port, also while it is down.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// SIGKILL; nothing is flushed. Returns once the process is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, after a kill if it still runs, on the same port and folder; returns once it answers `PING`.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let log = self.folder.path().join("redis-server.log");
        let child = Command::new(executable())
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(self.folder.path())
            .arg("--logfile")
            .arg(&log)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("redis-server could not be started; install it: apt-get install redis-server")?;
        self.child = Some(child);
        let answered = wait::until("an answer to PING", READY_DEADLINE, async || self.answered().await).await;
        let Err(error) = answered else { return Ok(()) };
        self.kill();
        let log = std::fs::read_to_string(log).unwrap_or_default();
        Err(error.context(format!("redis-server on port {} did not come up: {log}", self.port)))
    }

    /// A client of this server, where it asks for no credentials.
    pub async fn client(&self) -> anyhow::Result<MultiplexedConnection> {
        let client = redis::Client::open(self.url())?;
        client.get_multiplexed_async_connection().await.context("the test's own client could not connect")
    }

    /// Publishes to a channel, in order; returns once the server has done it, with how many subscribers it had for each.
    pub async fn publish(
        &self,
        channel: &str,
        bodies: impl IntoIterator<Item = impl ToString>,
    ) -> anyhow::Result<Vec<u64>> {
        let commands = bodies.into_iter().map(|body| {
            let mut command = redis::cmd("PUBLISH");
            command.arg(channel).arg(body.to_string());
            command
        });
        self.run(commands).await
    }

    /// Adds entries with the one field `payload` to a stream, in order; returns their ids once they are kept.
    pub async fn add(
        &self,
        stream: &str,
        bodies: impl IntoIterator<Item = impl ToString>,
    ) -> anyhow::Result<Vec<String>> {
        let commands = bodies.into_iter().map(|body| {
            let mut command = redis::cmd("XADD");
            command.arg(stream).arg("*").arg("payload").arg(body.to_string());
            command
        });
        self.run(commands).await
    }

    /// Runs commands on a connection of their own, and returns the replies.
    pub async fn run<T: redis::FromRedisValue>(
        &self,
        commands: impl IntoIterator<Item = redis::Cmd>,
    ) -> anyhow::Result<Vec<T>> {
        let mut client = self.client().await?;
        let commands: Vec<_> = commands.into_iter().collect();
        let mut replies = Vec::with_capacity(commands.len());
        for commands in commands.chunks(PIPELINE_COMMANDS) {
            let mut pipeline = redis::pipe();
            for command in commands {
                pipeline.add_command(command.clone());
            }
            replies.extend(pipeline.query_async::<Vec<T>>(&mut client).await?);
        }
        Ok(replies)
    }

    /// Whether it answers `PING`, if only by asking for a password; fails when the process has ended.
    async fn answered(&mut self) -> anyhow::Result<Option<()>> {
        let Some(child) = &mut self.child else { bail!("not started") };
        if let Some(status) = child.try_wait()? {
            bail!("ended: {status}");
        }
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await else { return Ok(None) };
        let mut answer = [0; 5];
        let answered = stream.write_all(b"PING\r\n").await.is_ok() && stream.read_exact(&mut answer).await.is_ok();
        Ok((answered && [b"+PONG", b"-NOAU"].contains(&&answer)).then_some(()))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// On the path, or where Debian puts it.
fn executable() -> PathBuf {
    let debian = PathBuf::from("/usr/bin/redis-server");
    if debian.is_file() { debian } else { "redis-server".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_server_comes_back_with_its_entries() -> anyhow::Result<()> {
        let mut server = RedisServer::start().await?;
        let url = server.url();
        let ids = server.add("kept", 0..1000).await?;
        server.kill();
        assert!(server.client().await.is_err());
        server.restart().await?;
        assert_eq!(server.url(), url);
        let mut length = redis::cmd("XLEN");
        assert_eq!(server.run::<usize>([length.arg("kept").clone()]).await?, [ids.len()]);
        assert_eq!(server.publish("nobody", ["listens"]).await?, [0]);
        Ok(())
    }

    #[tokio::test]
    async fn a_server_with_a_password_is_ready_too() -> anyhow::Result<()> {
        let server = RedisServer::start_with(&["--requirepass", "right"]).await?;
        let error = server.publish("nobody", ["listens"]).await.unwrap_err();
        assert!(format!("{error:#}").contains("NOAUTH"), "{error:#}");
        Ok(())
    }
}
