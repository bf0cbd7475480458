//! From settings to a connection or a client: credentials, TLS, and what to change where a server refuses.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerError};
use nkeys::KeyPair;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use url::Url;

use super::wire::{HandshakeError, Identity, Terms, Wire};
use crate::secret::Secret;
use crate::settings::{NatsConnection, TlsSettings};
use crate::tls::{TlsError, client_config};

/// Most bytes of a credentials file that are read; a JWT and a seed are some 2 KiB.
const CREDENTIALS_BYTES_MAX: u64 = 64 * 1024;
/// Servers of a cluster that are remembered besides those of the settings.
const TOLD_MAX: usize = 32;

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
    /// None of several servers takes the client.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    All(Vec<Self>),
}

/// Connects to the first server that takes the client: those of the settings in their order, then those that they have told
/// of. `name` is what the server calls the client.
///
/// # Errors
///
/// When every server is down or refuses, or a file of the settings can't be used.
pub(in crate::source) async fn wire(
    connection: &NatsConnection,
    name: &str,
    told: &mut Vec<Url>,
) -> Result<Wire, ConnectError> {
    let identity = identity(connection).await?;
    let tls_required = is_tls_required(connection);
    let terms = Terms { name, identity: &identity, tls: &connection.tls, tls_required };
    let mut errors = Vec::new();
    let own: Vec<&Url> = connection.urls().collect();
    let others = told.iter().filter(|url| !own.contains(url));
    for url in own.iter().copied().chain(others) {
        match Wire::connect(url, &terms).await {
            Ok(wire) => {
                *told = discovered(url, &wire.info().connect_urls);
                return Ok(wire);
            }
            Err(HandshakeError::Settings(error)) => return Err(error.into()),
            // What was told of and is gone says nothing that the settings could mend.
            Err(error) if own.contains(&url) => errors.push(of_handshake(connection, url, &error)),
            Err(error) => tracing::debug!(address = %url, %error, "a server that another told of can't be reached"),
        }
    }
    match errors.len() {
        1 => Err(errors.remove(0)),
        _ => Err(ConnectError::All(errors)),
    }
}

/// Servers of the same cluster, of which a server tells; at most [`TOLD_MAX`].
fn discovered(url: &Url, addresses: &[String]) -> Vec<Url> {
    let parsed = addresses.iter().filter_map(|address| Url::parse(&format!("{}://{address}", url.scheme())).ok());
    parsed.filter(|url| url.username().is_empty() && url.password().is_none()).take(TOLD_MAX).collect()
}

async fn identity(connection: &NatsConnection) -> Result<Identity, ConnectError> {
    Ok(match connection {
        NatsConnection { user: Some(user), password, .. } => {
            Identity::User { user: user.clone(), password: password.clone().unwrap_or_else(|| Secret::new("")) }
        }
        NatsConnection { token: Some(token), .. } => Identity::Token(token.clone()),
        NatsConnection { nkey: Some(seed), .. } => {
            let key = KeyPair::from_seed(String::from_utf8_lossy(seed.expose()).trim());
            Identity::Nkey(key.map_err(|error| of_handshake(connection, &connection.url, &error.into()))?)
        }
        NatsConnection { credentials: Some(path), .. } => {
            let content = read(path).await;
            let content = content.map_err(|error| ConnectError::CredentialsFile { path: path.clone(), error })?;
            let (jwt, key) = jwt_and_key(&content)
                .map_err(|error| ConnectError::CredentialsContent { path: path.clone(), error })?;
            Identity::Jwt { jwt, key }
        }
        _ => Identity::Anonymous,
    })
}

/// What stands between the first and the second pair of lines of dashes.
fn jwt_and_key(content: &str) -> io::Result<(String, KeyPair)> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let is_fence = |line: &str| line.len() > 6 && line.starts_with("---") && line.ends_with("---");
    let is_word = |line: &str| {
        !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.=".contains(&byte))
    };
    let lines: Vec<&str> = content.lines().map(str::trim).collect();
    let fenced = lines.windows(3).filter(|it| is_fence(it[0]) && is_fence(it[2]) && is_word(it[1]) && !is_fence(it[1]));
    let mut fenced = fenced.map(|it| it[1]);
    let jwt = fenced.next().ok_or_else(|| invalid("cannot parse user JWT from the credentials file"))?;
    let seed = fenced.next().ok_or_else(|| invalid("cannot parse nkey from the credentials file"))?;
    let key = KeyPair::from_seed(seed).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((jwt.to_owned(), key))
}

fn is_tls_required(connection: &NatsConnection) -> bool {
    // Who says how to verify the server does not want a server that can't be verified.
    connection.urls().any(|url| url.scheme() == "tls") || connection.tls != TlsSettings::default()
}

fn of_handshake(connection: &NatsConnection, url: &Url, error: &HandshakeError) -> ConnectError {
    const REFUSED: &str = "Authorization Violation";
    let mut words = error.to_string();
    let advice = match error {
        HandshakeError::Refused(said) if said.eq_ignore_ascii_case(REFUSED) => {
            words = "the server says: authorization violation".to_owned();
            Some(credentials_advice(connection))
        }
        // Only an nkey's seed is looked at here; a credentials file's was before.
        HandshakeError::Key(_) => Some("`nkey` is to be the seed of a user's nkey (`SU…`)".to_owned()),
        HandshakeError::Lookup(_) => Some("check the host in `url`".to_owned()),
        HandshakeError::TimedOut
        | HandshakeError::Protocol(_)
        | HandshakeError::Greeting(_)
        | HandshakeError::Ended => Some("check `url`".to_owned()),
        HandshakeError::Io(_) => Some("check `url`, and whether nats-server runs there".to_owned()),
        HandshakeError::Tls(error) => {
            error.get_ref().and_then(|error| error.downcast_ref()).and_then(tls_advice).map(str::to_owned)
        }
        HandshakeError::Refused(_) | HandshakeError::Settings(_) => None,
    };
    let advice = advice.map(|advice| format!("; {advice}")).unwrap_or_default();
    ConnectError::Refused { url: url.clone(), words, advice }
}

/// What a client of `connection` needs: its credentials and its TLS. Reads their files.
///
/// # Errors
///
/// When a file can't be read, or is not what it should be.
pub async fn options(connection: &NatsConnection) -> Result<ConnectOptions, ConnectError> {
    let mut options = ConnectOptions::new();
    if is_tls_required(connection) {
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
    // The client would try those in any order; the first is the one that a source reads from.
    let connected =
        options.retain_servers_order().connect(connection.urls().map(Url::as_str).collect::<Vec<_>>()).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_has_a_jwt_and_a_seed() {
        let seed = KeyPair::new_user().seed().unwrap();
        let check = |content: &str, expected: Result<&str, &str>| {
            let found = jwt_and_key(content).map(|(jwt, _)| jwt).map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        let (begin, end) = ("-----BEGIN NATS USER JWT-----", "------END NATS USER JWT------");
        let (begin_seed, end_seed) = ("-----BEGIN USER NKEY SEED-----", "------END USER NKEY SEED------");
        let whole = format!("{begin}\nabc.d-e_f=\n{end}\n\n* keep it *\n\n{begin_seed}\n{seed}\n{end_seed}\n");
        check(&whole, Ok("abc.d-e_f="));
        check(&whole.replace('\n', "\r\n"), Ok("abc.d-e_f="));
        check("", Err("cannot parse user JWT from the credentials file"));
        check(&format!("{begin}\nabc\n{end}\n"), Err("cannot parse nkey from the credentials file"));
        assert!(jwt_and_key(&whole.replace(&seed, "SUAB")).is_err());
    }

    #[test]
    fn servers_of_a_cluster_are_remembered() {
        let told = ["10.0.0.1:4222".to_owned(), "[::1]:1".to_owned(), "u:p@h:1".to_owned(), "h h".to_owned()];
        let found = discovered(&"tls://a".parse().unwrap(), &told);
        assert_eq!(found.iter().map(Url::as_str).collect::<Vec<_>>(), ["tls://10.0.0.1:4222", "tls://[::1]:1"]);
    }
}
