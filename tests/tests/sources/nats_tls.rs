//! TLS to a server with an authority of its own, which asks for a certificate.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use wirehook::settings::{NatsConnection, SourceKind, TlsSettings};
use wirehook::source::nats::connect;
use wirehook_tests::nats_server::NatsServer;

use crate::fake_inbox::{FakeInbox, Mode, Running};
use crate::jetstream::{build, connection};

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

    /// A server that takes only clients of the same authority.
    async fn server(&self) -> anyhow::Result<NatsServer> {
        let file = |name: &str| format!("{:?}", self.path(name));
        let (cert, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
        let config = format!("tls {{ cert_file: {cert}, key_file: {key}, ca_file: {ca}, verify: true }}");
        NatsServer::start_configured(&config).await
    }

    fn all(&self) -> TlsSettings {
        TlsSettings {
            ca: Some(self.path("ca.pem")),
            cert: Some(self.path("client.pem")),
            key: Some(self.path("client.key")),
        }
    }
}

fn start(connection: &NatsConnection, inbox: &Arc<FakeInbox>) -> Running {
    let kind = SourceKind::Nats {
        connection: connection.clone(),
        subjects: vec!["e.>".to_owned()],
        queue_group: "wirehook-bus".to_owned(),
    };
    Running::start(build(kind), inbox)
}

async fn refusal(connection: &NatsConnection) -> anyhow::Result<String> {
    let source = start(connection, &FakeInbox::new(Mode::Accept));
    let status = source.until("an error", |status| status.last_error.is_some()).await;
    assert!(!status.connected);
    source.drained().await?;
    Ok(status.last_error.context("an error")?.to_string())
}

#[tokio::test]
async fn client_and_server_show_their_certificates() -> anyhow::Result<()> {
    let certificates = Certificates::new()?;
    let server = certificates.server().await?;
    for url in [server.tls_url(), server.url()] {
        let connection = NatsConnection { url: url.parse()?, tls: certificates.all(), ..connection(&server) };
        let inbox = FakeInbox::new(Mode::Accept);
        let source = start(&connection, &inbox);
        source.connected().await;
        let client = connect::connect(&connection, connect::options(&connection).await?).await?;
        client.publish("e.a", "1".into()).await?;
        client.flush().await?;
        inbox.until("the event", |seen| seen.accepted.len() == 1).await;
        source.drained().await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_missing_for_tls_is_named() -> anyhow::Result<()> {
    let certificates = Certificates::new()?;
    let server = certificates.server().await?;
    let with =
        |url: String, tls: TlsSettings| anyhow::Ok(NatsConnection { url: url.parse()?, tls, ..connection(&server) });
    let without_ca = TlsSettings { ca: None, ..certificates.all() };
    let error = refusal(&with(server.tls_url(), without_ca.clone())?).await?;
    assert!(error.contains("invalid peer certificate: ") && error.contains("; set `tls.ca` to"), "{error}");
    let error = refusal(&with(server.url(), without_ca)?).await?;
    assert!(error.contains("; set `tls.ca` to"), "{error}");
    let without_client = TlsSettings { cert: None, key: None, ..certificates.all() };
    let error = refusal(&with(server.tls_url(), without_client)?).await?;
    assert!(error.ends_with("; set `tls.cert` and `tls.key` to a certificate that the server takes"), "{error}");
    let plain = NatsServer::start().await?;
    let error = refusal(&with(plain.tls_url(), certificates.all())?).await?;
    assert!(error.ends_with("; the server seems to speak no TLS; then `url` is to be nats://…"), "{error}");
    let other_name = server.tls_url().replace("127.0.0.1", "localhost");
    let error = refusal(&with(other_name, certificates.all())?).await?;
    assert!(error.ends_with("; `url` has to name the server as its certificate does"), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_authority_that_comes_late_is_waited_for() -> anyhow::Result<()> {
    let certificates = Certificates::new()?;
    let server = certificates.server().await?;
    let late = certificates.path("late.pem");
    let tls = TlsSettings { ca: Some(late.clone()), ..certificates.all() };
    let connection = NatsConnection { url: server.tls_url().parse()?, tls, ..connection(&server) };
    let source = start(&connection, &FakeInbox::new(Mode::Accept));
    let named = |late: &Path| format!("`tls.ca`: {} can't be read", late.display());
    let status = source.until("an error", |status| status.last_error.is_some()).await;
    assert!(status.last_error.is_some_and(|error| error.starts_with(&named(&late))));
    std::fs::copy(certificates.path("ca.pem"), &late)?;
    source.connected().await;
    source.drained().await?;
    Ok(())
}
