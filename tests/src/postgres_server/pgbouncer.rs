//! A real PgBouncer in front of a real server.

use std::process::{Child, Stdio};

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::process::Owner;
use super::{PostgresServer, READY_DEADLINE};
use crate::{port, wait};

/// Another process may take the free port before PgBouncer does.
const PORT_TRIES: usize = 5;

/// A PgBouncer on a free loopback port with two server connections a role; it lets in whom it knows without a password.
/// Dropping it kills it.
#[derive(Debug)]
pub struct PgBouncer {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl PgBouncer {
    /// Starts one in `pool_mode`, for `postgres` and for `roles` with their passwords; `more` are lines of its settings.
    /// Waits until it answers.
    pub async fn start(
        server: &PostgresServer,
        pool_mode: &str,
        roles: &[(&str, &str)],
        more: &[&str],
    ) -> anyhow::Result<Self> {
        for _ in 1..PORT_TRIES {
            if let Ok(pooler) = Self::try_start(server, pool_mode, roles, more).await {
                return Ok(pooler);
            }
        }
        Self::try_start(server, pool_mode, roles, more).await
    }

    async fn try_start(
        server: &PostgresServer,
        pool_mode: &str,
        roles: &[(&str, &str)],
        more: &[&str],
    ) -> anyhow::Result<Self> {
        let owner = Owner::find()?;
        let folder = tempfile::Builder::new().prefix("wirehook-pgbouncer-").tempdir()?;
        let port = port::free()?;
        let path = |name: &str| folder.path().join(name);
        let users: Vec<_> = std::iter::once(&("postgres", ""))
            .chain(roles)
            .map(|(role, password)| format!("\"{role}\" \"{password}\"\n"))
            .collect();
        std::fs::write(path("users.txt"), users.concat())?;
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {pool_mode}\ndefault_pool_size = 2\n\
             admin_users = postgres\n{}\n",
            server.port(),
            path("users.txt").display(),
            more.join("\n")
        );
        std::fs::write(path("pgbouncer.ini"), settings)?;
        for file in [folder.path().to_owned(), path("users.txt"), path("pgbouncer.ini")] {
            owner.give(&file)?;
        }
        let log = std::fs::File::create(path("log"))?;
        let mut command = owner.command("pgbouncer");
        command.arg(path("pgbouncer.ini")).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("pgbouncer could not be started; install it: apt-get install pgbouncer")?;
        let mut pooler = Self { child, port, folder };
        let answered = wait::until("an answer of PgBouncer", READY_DEADLINE, async || pooler.answered().await).await;
        answered.with_context(|| format!("PgBouncer said: {}", pooler.log()))?;
        Ok(pooler)
    }

    /// `postgres://{role}@127.0.0.1:{port}/postgres`
    pub fn url_as(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/postgres", self.port)
    }

    /// A client through it. Statements that it prepares by name are not there in its next transaction.
    pub async fn client_as(&self, role: &str) -> anyhow::Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url_as(role), NoTls).await?;
        // The client says what is wrong when it is used next.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    async fn answered(&mut self) -> anyhow::Result<Option<()>> {
        if let Some(status) = self.child.try_wait()? {
            bail!("ended: {status}");
        }
        let Ok(client) = self.client_as("postgres").await else { return Ok(None) };
        Ok(client.simple_query("SELECT 1").await.ok().map(drop))
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
