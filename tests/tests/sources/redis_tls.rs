//! TLS to a server with an authority of its own, which asks for a certificate.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use wirehook::settings::{RedisConnection, Start, TlsSettings};
use wirehook_tests::port;
use wirehook_tests::redis_server::RedisServer;

use crate::fake_inbox::{FakeInbox, Mode, Running};
use crate::redis::{connection, redis_source};
use crate::redis_stream::stream_source;

/// An authority, and what it has signed for the server and for the client.
struct Certificates {
    folder: TempDir,
}

impl Certificates {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate()?;
        std::fs::write(folder.path().join("ca.pem"), authority.self_signed(&authority_key)?.pem())?;
        let issuer = Issuer::new(authority, authority_key);
        for name in ["server", "client"] {
            let mut params = CertificateParams::default();
            // OpenSSL takes a certificate with the authority's own name for one that nobody else has signed.
            params.distinguished_name.push(DnType::CommonName, name);
            params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
            let key = KeyPair::generate()?;
            std::fs::write(folder.path().join(format!("{name}.pem")), params.signed_by(&key, &issuer)?.pem())?;
            std::fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem())?;
        }
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A server that takes clients of the same authority on a port of its own, beside the one without TLS.
    async fn server(&self) -> anyhow::Result<(RedisServer, RedisConnection)> {
        let port = port::free()?;
        let file = |name: &str| self.path(name).to_string_lossy().into_owned();
        let (port_text, cert, key, ca) = (port.to_string(), file("server.pem"), file("server.key"), file("ca.pem"));
        let server = RedisServer::start_with(&[
            "--tls-port",
            &port_text,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
        ])
        .await?;
        let url = format!("rediss://127.0.0.1:{port}/0").parse()?;
        let tls = TlsSettings {
            ca: Some(self.path("ca.pem")),
            cert: Some(self.path("client.pem")),
            key: Some(self.path("client.key")),
        };
        let connection = RedisConnection { url, tls, ..connection(&server) };
        Ok((server, connection))
    }
}

#[tokio::test]
async fn both_kinds_read_over_tls() -> anyhow::Result<()> {
    let certificates = Certificates::new()?;
    let (server, connection) = certificates.server().await?;
    let inboxes = [FakeInbox::new(Mode::Accept), FakeInbox::new(Mode::Accept)];
    let messages = Running::start(redis_source(connection.clone(), &["e.a"]), &inboxes[0]);
    let entries = Running::start(stream_source(connection, &["e.a"], Start::All), &inboxes[1]);
    messages.connected().await;
    entries.connected().await;
    let large = "x".repeat(1 << 20);
    server.publish("e.a", [&large]).await?;
    server.add("e.a", [&large]).await?;
    for inbox in &inboxes {
        inbox.until("a megabyte", |seen| seen.bodies().contains(&large)).await;
    }
    messages.drained().await?;
    entries.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_trusted_or_does_not_trust_is_told() -> anyhow::Result<()> {
    let certificates = Certificates::new()?;
    let (_server, connection) = certificates.server().await?;
    let check = async |tls: TlsSettings, expected: &str| {
        let inbox = FakeInbox::new(Mode::Accept);
        let connection = RedisConnection { tls, ..connection.clone() };
        let source = Running::start(redis_source(connection, &["e.a"]), &inbox);
        let status = source.until("an error", |status| status.last_error.is_some()).await;
        let error = status.last_error.context("an error")?;
        assert!(error.contains("can't connect to rediss://") && error.contains(expected), "{error}");
        source.drained().await?;
        anyhow::Ok(())
    };
    let other = Certificates::new()?;
    check(TlsSettings { ca: Some(other.path("ca.pem")), ..connection.tls.clone() }, "invalid peer certificate").await?;
    check(TlsSettings { ca: Some(other.path("absent.pem")), ..connection.tls.clone() }, "`tls.ca`").await?;
    check(TlsSettings { cert: None, key: None, ..connection.tls.clone() }, "CertificateRequired").await
}
