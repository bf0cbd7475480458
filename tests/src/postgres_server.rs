//! A real PostgreSQL server, which a test may kill and start again.

mod data;
pub mod pgbouncer;
mod process;

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use self::process::Owner;

/// How long a server may take until it answers; recovery after a kill is part of it.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at whether it answers.
const READY_POLL: Duration = Duration::from_millis(20);
/// Another process may take the free port before the server does.
const PORT_TRIES: usize = 5;
/// What every server is told, before what the test tells it.
const SETTINGS: &[&str] = &["listen_addresses=127.0.0.1", "max_connections=60", "shared_buffers=32MB"];

/// FraiseQL's outbox, with every column that its releases have had.
pub const OUTBOX_TABLE: &str = "core.tb_entity_change_log";
const OUTBOX: &str = include_str!("postgres_server/outbox.sql");
/// FraiseQL's trigger: the notification is the row's key and nothing else.
const OUTBOX_TRIGGER: &str = include_str!("postgres_server/outbox_trigger.sql");

/// A PostgreSQL server on a free loopback port, with data in a folder of its own and `fsync` on. Dropping it stops it.
///
/// The superuser `postgres` needs no password. Every other role needs its own (SCRAM) over TCP, and none over the Unix
/// socket in [`folder`](Self::folder).
#[derive(Debug)]
pub struct PostgresServer {
    child: Option<Child>,
    port: u16,
    arguments: Vec<String>,
    owner: Owner,
    folder: TempDir,
}

impl PostgresServer {
    /// Starts a server and waits until it answers.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server with more arguments, such as `-c` and `max_connections=5`.
    pub async fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut server = Self::stopped()?;
        server.arguments = arguments.iter().map(ToString::to_string).collect();
        for _ in 1..PORT_TRIES {
            if server.restart().await.is_ok() {
                return Ok(server);
            }
            server.port = free_port()?;
        }
        server.restart().await?;
        Ok(server)
    }

    /// A server that is down: a port nobody listens on until [`restart`](Self::restart).
    pub fn stopped() -> anyhow::Result<Self> {
        let owner = Owner::find()?;
        let folder = tempfile::Builder::new().prefix("wirehook-postgres-").tempdir()?;
        owner.give(folder.path())?;
        data::copy_template(&owner, &folder.path().join("data"))?;
        Ok(Self { child: None, port: free_port()?, arguments: Vec::new(), owner, folder })
    }

    /// `postgres://postgres@127.0.0.1:{port}/postgres`
    pub fn url(&self) -> String {
        self.url_as("postgres")
    }

    /// The same of another role.
    pub fn url_as(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/postgres", self.port)
    }

    /// The port, also while it is down.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its Unix socket is, its log and, in `data`, all it keeps.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged since it was started first.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Writes a file that only the server can read, into its data; the path, relative to which its settings name it.
    pub fn put_file(&self, name: &str, content: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join("data").join(name);
        std::fs::write(&path, content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        self.owner.give(&path)?;
        Ok(path)
    }

    /// SIGKILL to the server and every process of it; nothing is flushed. Returns once all of them are gone.
    pub fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            process::kill_with_children(child);
        }
    }

    /// Starts it again, after a kill if it still runs, on the same port and data; returns once it answers.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let log = std::fs::File::options().create(true).append(true).open(self.log_file())?;
        let mut command = self.owner.command("postgres");
        command.arg("-D").arg(self.folder.path().join("data")).args(["-p", &self.port.to_string()]);
        command.arg("-k").arg(self.folder.path());
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting])).args(&self.arguments);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("postgres could not be started; install it: apt-get install postgresql")?;
        self.child = Some(child);
        match tokio::time::timeout(READY_DEADLINE, self.answered()).await {
            Ok(Ok(())) => Ok(()),
            answered => {
                self.kill();
                bail!("postgres on port {} did not answer ({answered:?}): {}", self.port, self.log())
            }
        }
    }

    /// A client of this server as the superuser; its connection is a task of its own.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let (client, connection) =
            tokio_postgres::connect(&self.url(), NoTls).await.context("the test's own client could not connect")?;
        // The client says what is wrong when it is used next.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    /// Creates [`OUTBOX_TABLE`]. Nobody is notified of its rows.
    pub async fn create_outbox(&self) -> anyhow::Result<()> {
        self.client().await?.batch_execute(OUTBOX).await.context("the outbox could not be created")
    }

    /// From now on a row of the outbox notifies `fraiseql_events` of its key.
    pub async fn notify_of_rows(&self) -> anyhow::Result<()> {
        self.client().await?.batch_execute(OUTBOX_TRIGGER).await.context("the trigger could not be created")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("postgres.log")
    }

    /// Waits for a connection; fails when the process has ended.
    async fn answered(&mut self) -> anyhow::Result<()> {
        loop {
            let Some(child) = &mut self.child else { bail!("not started") };
            if let Some(status) = child.try_wait()? {
                bail!("ended: {status}");
            }
            if self.client().await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            process::stop(child);
        }
    }
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_server_comes_back_with_its_rows() -> anyhow::Result<()> {
        let mut server = PostgresServer::start().await?;
        server.create_outbox().await?;
        let client = server.client().await?;
        client
            .execute(
                "INSERT INTO core.tb_entity_change_log (object_type, modification_type) VALUES ('Order', 'INSERT')",
                &[],
            )
            .await?;
        server.kill();
        assert!(server.client().await.is_err());
        assert!(client.simple_query("SELECT 1").await.is_err());
        server.restart().await?;
        let row = server.client().await?.query_one("SELECT count(*) FROM core.tb_entity_change_log", &[]).await?;
        assert_eq!(row.get::<_, i64>(0), 1);
        Ok(())
    }

    #[tokio::test]
    async fn other_roles_need_their_password() -> anyhow::Result<()> {
        let server = PostgresServer::start().await?;
        server.client().await?.batch_execute("CREATE ROLE reader LOGIN PASSWORD 'right'").await?;
        let mut config: tokio_postgres::Config = server.url_as("reader").parse()?;
        assert!(config.password("wrong").connect(NoTls).await.is_err());
        assert!(config.password("right").connect(NoTls).await.is_ok());
        Ok(())
    }
}
