//! A real nats-server with JetStream, which a test may kill and start again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::jetstream;
use tempfile::{TempDir, TempPath};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// How long a server may take until it greets.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at whether it greets.
const READY_POLL: Duration = Duration::from_millis(10);
/// Another process may take the free port before the server does.
const PORT_TRIES: usize = 5;

/// A nats-server on a free loopback port, with JetStream in a folder of its own. Dropping it kills it.
#[derive(Debug)]
pub struct NatsServer {
    child: Option<Child>,
    port: u16,
    arguments: Vec<String>,
    folder: TempDir,
    config: Option<TempPath>,
}

impl NatsServer {
    /// Starts a server and waits until it greets.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server with more arguments, such as `--user` and `--pass`.
    pub async fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("wirehook-nats-").tempdir()?;
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut server = Self { child: None, port: 0, arguments, folder, config: None };
        for _ in 1..PORT_TRIES {
            server.port = free_port()?;
            if server.restart().await.is_ok() {
                return Ok(server);
            }
        }
        server.port = free_port()?;
        server.restart().await?;
        Ok(server)
    }

    /// Starts a server with more configuration, such as its users.
    pub async fn start_configured(config: &str) -> anyhow::Result<Self> {
        let file = tempfile::Builder::new().prefix("wirehook-nats-").suffix(".conf").tempfile()?.into_temp_path();
        std::fs::write(&file, config)?;
        let mut server = Self::start_with(&["--config", &file.to_string_lossy()]).await?;
        server.config = Some(file);
        Ok(server)
    }

    /// Writes another configuration, which the next [`restart`](Self::restart) reads.
    pub fn configure(&self, config: &str) -> anyhow::Result<()> {
        let file = self.config.as_ref().context("the server was started without a configuration")?;
        Ok(std::fs::write(file, config)?)
    }

    /// A server that is down: a port nobody listens on until [`restart`](Self::restart).
    pub fn stopped() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("wirehook-nats-").tempdir()?;
        Ok(Self { child: None, port: free_port()?, arguments: Vec::new(), folder, config: None })
    }

    /// Its port of the loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `nats://127.0.0.1:{port}`
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// `tls://127.0.0.1:{port}`
    pub fn tls_url(&self) -> String {
        format!("tls://127.0.0.1:{}", self.port)
    }

    /// SIGKILL; nothing is flushed. Returns once the process is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM: the server writes down where its consumers are. Returns once the process is gone.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // SAFETY: a signal to a child that was not waited for, whose number nobody else can have.
        #[allow(unsafe_code, reason = "the standard library sends no other signal than SIGKILL")]
        let told = unsafe { libc::kill(libc::pid_t::try_from(child.id())?, libc::SIGTERM) };
        anyhow::ensure!(told == 0, "nats-server could not be told to stop");
        child.wait()?;
        Ok(())
    }

    /// Starts it again, after a kill if it still runs, on the same port and store; returns once it greets.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let log = self.folder.path().join("nats-server.log");
        let child = Command::new(executable())
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string(), "--jetstream", "--store_dir"])
            .arg(self.folder.path().join("store"))
            .arg("--log")
            .arg(&log)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nats-server could not be started; install it: apt-get install nats-server")?;
        self.child = Some(child);
        if tokio::time::timeout(READY_DEADLINE, self.greeted()).await.is_ok_and(|greeted| greeted.is_ok()) {
            return Ok(());
        }
        self.kill();
        bail!("nats-server on port {} did not greet: {}", self.port, std::fs::read_to_string(log).unwrap_or_default())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("nats-server.log")).unwrap_or_default()
    }

    /// Where its streams and consumers are, each in a folder `streams/{stream}` and `streams/{stream}/obs/{consumer}` below
    /// it; to be changed only while the server is down.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// A client of this server, where it asks for no credentials.
    pub async fn client(&self) -> anyhow::Result<async_nats::Client> {
        async_nats::connect(self.url()).await.context("the test's own client could not connect")
    }

    /// Creates a stream kept in files, with an hour in which a message id is not taken twice.
    pub async fn create_stream(&self, name: &str, subjects: &[&str]) -> anyhow::Result<jetstream::stream::Stream> {
        let config = jetstream::stream::Config {
            name: name.to_owned(),
            subjects: subjects.iter().map(ToString::to_string).collect(),
            duplicate_window: Duration::from_secs(3600),
            ..Default::default()
        };
        let context = jetstream::new(self.client().await?);
        context.create_stream(config).await.with_context(|| format!("stream `{name}` could not be created"))
    }

    /// Waits for the first bytes of `INFO`; fails when the process has ended.
    async fn greeted(&mut self) -> anyhow::Result<()> {
        loop {
            let Some(child) = &mut self.child else { bail!("not started") };
            if let Some(status) = child.try_wait()? {
                bail!("ended: {status}");
            }
            if let Ok(mut stream) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await {
                let mut greeting = [0; 4];
                if stream.read_exact(&mut greeting).await.is_ok() && &greeting == b"INFO" {
                    return Ok(());
                }
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// On the path, or where Debian puts it: `/usr/sbin` is on nobody's path but root's.
fn executable() -> PathBuf {
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).map(|folder| folder.join("nats-server")).collect::<Vec<_>>())
        .unwrap_or_default();
    let debian = PathBuf::from("/usr/sbin/nats-server");
    on_path.into_iter().chain([debian]).find(|file| file.is_file()).unwrap_or_else(|| "nats-server".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_server_comes_back_with_its_streams() -> anyhow::Result<()> {
        let mut server = NatsServer::start().await?;
        let url = server.url();
        server.create_stream("kept", &["kept.>"]).await?;
        server.kill();
        assert!(server.client().await.is_err());
        server.restart().await?;
        assert_eq!(server.url(), url);
        let context = jetstream::new(server.client().await?);
        assert_eq!(context.get_stream("kept").await?.cached_info().config.name, "kept");
        Ok(())
    }
}
