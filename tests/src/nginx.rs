//! A real nginx in front of nothing: it answers every webhook itself, and writes a line for each.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::port;

/// How long it may take until it listens.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at whether it does.
const READY_POLL: Duration = Duration::from_millis(10);
/// Another process may take the free port before nginx does.
const PORT_TRIES: usize = 5;

/// An nginx on a free port of the loopback; gone when dropped.
pub struct Nginx {
    child: Child,
    port: u16,
    is_secure: bool,
    folder: TempDir,
}

/// How it listens and answers.
#[derive(Clone, Copy, Default, Debug)]
pub struct NginxOptions<'a> {
    /// With TLS, by the certificate of the fixtures, for `hooks.test`.
    pub is_secure: bool,
    /// With HTTP/2, where it is secure.
    pub http_2: bool,
    /// More lines of the `server` block.
    pub more: &'a str,
}

impl Nginx {
    /// Starts it and waits until it listens.
    pub async fn start(options: NginxOptions<'_>) -> Result<Self> {
        for _ in 1..PORT_TRIES {
            if let Ok(nginx) = Self::start_on(port::free()?, options).await {
                return Ok(nginx);
            }
        }
        Self::start_on(port::free()?, options).await
    }

    async fn start_on(port: u16, options: NginxOptions<'_>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("wirehook-nginx-").tempdir()?;
        std::fs::write(folder.path().join("nginx.conf"), configuration(port, options))?;
        let child = Command::new("nginx")
            .args(["-p", &folder.path().to_string_lossy(), "-c", "nginx.conf", "-e", "error.log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nginx could not be started; install it: apt-get install nginx-light")?;
        let mut nginx = Self { child, port, is_secure: options.is_secure, folder };
        let polls = READY_DEADLINE.as_millis() / READY_POLL.as_millis();
        for _ in 0..polls {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Ok(nginx);
            }
            if nginx.child.try_wait()?.is_some() {
                break;
            }
            tokio::time::sleep(READY_POLL).await;
        }
        bail!("nginx does not listen: {}", std::fs::read_to_string(nginx.folder.path().join("error.log"))?)
    }

    /// The URL of `path` on `host`, which has to lead to the loopback.
    pub fn url(&self, host: &str, path: &str) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{host}:{}{path}", self.port)
    }

    /// The lines of its access log: connection, number of the request on it, status, `webhook-id`.
    pub fn access_log(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(self.folder.path().join("access.log"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its one process is the child: there is no master.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(port: u16, options: NginxOptions<'_>) -> String {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls");
    let fixture = |name: &str| fixtures.join(name).display().to_string();
    let NginxOptions { is_secure, http_2, more } = options;
    let words = [if is_secure { " ssl" } else { "" }, if http_2 { " http2" } else { "" }].concat();
    let tls = if is_secure {
        format!("ssl_certificate {};\n ssl_certificate_key {};", fixture("server.pem"), fixture("server.key"))
    } else {
        String::new()
    };
    // Paths are relative to the prefix; as root, nginx would else become a user who may not write there.
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n client_body_temp_path body;\n proxy_temp_path proxy;\n fastcgi_temp_path fastcgi;\n \
         uwsgi_temp_path uwsgi;\n scgi_temp_path scgi;\n \
         log_format lines '$connection $connection_requests $status $http_webhook_id';\n access_log access.log lines;\n \
         server {{\n listen 127.0.0.1:{port}{words};\n server_name hooks.test;\n {tls}\n {more}\n location / {{ return 200 ok; }}\n }}\n}}\n"
    )
}
