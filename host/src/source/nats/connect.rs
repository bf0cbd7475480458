//! From settings to a client: credentials, TLS, and what to change where a server refuses.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerError};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use url::Url;

use crate::secret::Secret;
use crate::settings::{NatsConnection, TlsSettings};
use crate::tls::{TlsError, client_config};

/// Most bytes of a credentials file that are read; a JWT and a seed are some 2 KiB.
const CREDENTIALS_BYTES_MAX: u64 = 64 * 1024;

/// Why there is no connection. No message has a secret in it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file is missing, or this process may not read it.
    #[error("`credentials`: {} can't be read: {error}", path.display())]
    CredentialsFile {
        /// The setting.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The file is no credentials file.
    #[error("`credentials`: {} is no credentials file: {error}; it has a JWT and an nkey's seed", path.display())]
    CredentialsContent {
        /// The setting.
        path: PathBuf,
        /// What it lacks.
        #[source]
        error: io::Error,
    },
    /// A file of `tls` can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server is down, or refuses.
    #[error("can't connect to {url}: {words}{advice}")]
    Refused {
        /// Where to.
        url: Url,
        /// The server's words, or the system's.
        words: String,
        /// What to change, after `; `; empty where nobody can tell.
        advice: String,
    },
}

/// What a client of `connection` needs: its credentials and its TLS. Reads their files.
///
/// # Errors
///
/// When a file can't be read, or is not what it should be.
pub async fn options(connection: &NatsConnection) -> Result<ConnectOptions, ConnectError> {
    let mut options = ConnectOptions::new();
    let is_tls = connection.url.scheme() == "tls";
    if is_tls || connection.tls != TlsSettings::default() {
        // Who says how to verify the server does not want a server that can't be verified.
        options = options.tls_client_config(client_config(&connection.tls)?).require_tls(true);
    }
    let text = |secret: &Secret| String::from_utf8_lossy(secret.expose()).into_owned();
    Ok(match connection {
        NatsConnection { user: Some(user), password, .. } => {
            options.user_and_password(user.clone(), password.as_ref().map(text).unwrap_or_default())
        }
        NatsConnection { token: Some(token), .. } => options.token(text(token)),
        NatsConnection { nkey: Some(seed), .. } => options.nkey(text(seed).trim().to_owned()),
        NatsConnection { credentials: Some(path), .. } => {
            let content = read(path).await;
            let content = content.map_err(|error| ConnectError::CredentialsFile { path: path.clone(), error })?;
            let options = options.credentials(&content);
            options.map_err(|error| ConnectError::CredentialsContent { path: path.clone(), error })?
        }
        _ => options,
    })
}

/// Connects once, with `options` of [`options`].
///
/// # Errors
///
/// When the server is down, or refuses.
pub async fn connect(connection: &NatsConnection, options: ConnectOptions) -> Result<Client, ConnectError> {
    let connected = options.connect(connection.url.as_str()).await;
    connected.map_err(|error| ConnectError::Refused {
        url: connection.url.clone(),
        words: words(&error),
        advice: advice(connection, &error).map(|advice| format!("; {advice}")).unwrap_or_default(),
    })
}

async fn read(path: &Path) -> io::Result<String> {
    let mut content = String::new();
    File::open(path).await?.take(CREDENTIALS_BYTES_MAX).read_to_string(&mut content).await?;
    Ok(content)
}

fn words(error: &async_nats::ConnectError) -> String {
    match error.source() {
        Some(source) if source.is::<ServerError>() => {
            format!("the server says: {}", source.to_string().trim_start_matches("nats: "))
        }
        Some(source) => source.to_string(),
        None => error.kind().to_string(),
    }
}

/// What to change in the settings.
fn advice(connection: &NatsConnection, error: &async_nats::ConnectError) -> Option<String> {
    let fixed = |advice: &str| Some(advice.to_owned());
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => Some(credentials_advice(connection)),
        // Only an nkey is signed with here; what a credentials file holds was looked at before.
        ConnectErrorKind::Authentication => fixed("`nkey` is to be the seed of a user's nkey (`SU…`)"),
        ConnectErrorKind::Dns => fixed("check the host in `url`"),
        ConnectErrorKind::ServerParse | ConnectErrorKind::TimedOut => fixed("check `url`"),
        ConnectErrorKind::Tls | ConnectErrorKind::MaxReconnects => None,
        ConnectErrorKind::Io => match tls_error(error) {
            Some(error) => tls_advice(error).and_then(fixed),
            None if error.source().is_some_and(|source| source.is::<io::Error>()) => {
                fixed("check `url`, and whether nats-server runs there")
            }
            None => None,
        },
    }
}

fn credentials_advice(connection: &NatsConnection) -> String {
    match connection {
        NatsConnection { user: Some(_), .. } => "check `user` and `password`".to_owned(),
        NatsConnection { token: Some(_), .. } => "check `token`".to_owned(),
        NatsConnection { nkey: Some(_), .. } => {
            "check `nkey`: the server has to know its public key as a user's".to_owned()
        }
        NatsConnection { credentials: Some(path), .. } => {
            format!("check `credentials`: the user in {} may have expired, or its account is unknown", path.display())
        }
        _ => "set `user` and `password`, `token`, `nkey`, `credentials`, or `tls.cert` and `tls.key`".to_owned(),
    }
}

/// The TLS library's own error, where a handshake failed.
fn tls_error(error: &async_nats::ConnectError) -> Option<&rustls::Error> {
    error.source()?.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

fn tls_advice(error: &rustls::Error) -> Option<&'static str> {
    match error {
        rustls::Error::InvalidMessage(_) => Some("the server seems to speak no TLS; then `url` is to be nats://…"),
        error => crate::tls::advice(error),
    }
}
