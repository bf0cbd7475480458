//! The ways in, and what is said where there is none.

use std::path::Path;

use wirehook_tests::postgres_server::PostgresServer;

use super::{connection, create_reader, listening, listening_on, notify};
use crate::fake_inbox::{FakeInbox, Mode, Running, eventually};

#[tokio::test]
async fn a_server_that_comes_up_later_is_joined() -> anyhow::Result<()> {
    let mut server = PostgresServer::stopped()?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(listening(&server), &inbox);
    let down = source.until("an error", |status| status.last_error.is_some()).await.last_error.unwrap();
    assert!(down.contains(&format!("can't connect to {}", server.url())) && down.contains("refused"), "{down}");
    server.restart().await?;
    source.connected().await;
    assert_eq!(source.state.status().reconnects, 0);
    notify(&server.client().await?, "{}").await?;
    inbox.until("the event", |seen| seen.accepted.len() == 1).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_login_says_what_to_change() -> anyhow::Result<()> {
    let server = PostgresServer::start().await?;
    let client = server.client().await?;
    create_reader(&client).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let check = async |url: String, password: Option<&str>, expected: &[&str]| {
        let source = Running::start(listening_on(connection(&url, password), &["fraiseql_events"]), &inbox);
        let status = source.until("an error", |status| status.last_error.is_some()).await;
        let error = status.last_error.unwrap();
        for expected in expected {
            assert!(error.contains(expected), "{expected:?} is not in: {error}");
        }
        assert!(!status.connected && !error.contains("sesame"), "{error}");
        source.drained().await
    };
    let reader = server.url_as("reader");
    let refused = ["password authentication failed for user \"reader\"", "28P01", "set the role's `password`", &reader];
    check(reader.clone(), Some("close sesame"), &refused).await?;
    check(reader.clone(), None, &["asks for a password", "set `password`"]).await?;
    let unknown = format!("{}/nowhere", server.url().trim_end_matches("/postgres"));
    check(unknown, None, &["database \"nowhere\" does not exist", "3D000", "set the database in `url`"]).await?;
    check(format!("{}?sslmode=require", server.url()), None, &["does not support TLS", "sslmode=disable"]).await?;
    check(format!("{}?nonsense=1", server.url()), None, &["`url`", "unknown option `nonsense`"]).await?;

    let source = Running::start(listening_on(connection(&reader, Some("new")), &["fraiseql_events"]), &inbox);
    source.until("an error", |status| status.last_error.is_some()).await;
    client.batch_execute("ALTER ROLE reader PASSWORD 'new'").await?;
    assert_eq!(source.connected().await.last_error, None);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_full_server_is_joined_when_others_go() -> anyhow::Result<()> {
    let server = PostgresServer::start_with(&["-c", "max_connections=6"]).await?;
    create_reader(&server.client().await?).await?;
    let mut config: tokio_postgres::Config = server.url_as("reader").parse()?;
    let mut others = Vec::new();
    while let Ok((client, connection)) = config.password("open sesame").connect(tokio_postgres::NoTls).await {
        tokio::spawn(connection);
        others.push(client);
    }
    let inbox = FakeInbox::new(Mode::Accept);
    let reader = connection(&server.url_as("reader"), Some("open sesame"));
    let source = Running::start(listening_on(reader, &["fraiseql_events"]), &inbox);
    let full = |error: &str| error.contains("53300") && error.contains("max_connections");
    source.until("it is full", |status| status.last_error.as_deref().is_some_and(full)).await;
    drop(others);
    source.connected().await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_unix_socket_is_a_way_in() -> anyhow::Result<()> {
    let server = PostgresServer::start().await?;
    create_reader(&server.client().await?).await?;
    let url = format!("{}?host={}", server.url_as("reader"), server.folder().display());
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(listening_on(connection(&url, None), &["fraiseql_events"]), &inbox);
    source.connected().await;
    notify(&server.client().await?, "{}").await?;
    inbox.until("the event", |seen| seen.accepted.len() == 1).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn tls_is_verified() -> anyhow::Result<()> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls");
    let server = PostgresServer::start().await?;
    server.put_file("server.crt", &std::fs::read(fixtures.join("server.pem"))?)?;
    server.put_file("server.key", &std::fs::read(fixtures.join("server.key"))?)?;
    let client = server.client().await?;
    client.batch_execute("ALTER SYSTEM SET ssl = on").await?;
    client.batch_execute("SELECT pg_reload_conf()").await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let at = |host: &str, query: &str| {
        format!("postgres://postgres@{host}:{}/postgres?hostaddr=127.0.0.1{query}", server.port())
    };
    let source = |url: &str, ca: bool| {
        let mut connection = connection(url, None);
        connection.tls.ca = ca.then(|| fixtures.join("ca.pem"));
        Running::start(listening_on(connection, &["fraiseql_events"]), &inbox)
    };
    let encrypted = async || -> anyhow::Result<bool> {
        let row = client
            .query_one(
                "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'wirehook-bus'",
                &[],
            )
            .await?;
        Ok(row.get(0))
    };
    let gone = async || {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wirehook-bus'";
        (client.query_one(count, &[]).await.ok()?.get::<_, i64>(0) == 0).then_some(())
    };
    for (query, ca, expected) in
        [("&sslmode=verify-full", true, true), ("", true, true), ("&sslmode=disable", false, false)]
    {
        let source = source(&at("hooks.test", query), ca);
        source.connected().await;
        assert_eq!(encrypted().await?, expected, "{query}");
        source.drained().await?;
        eventually("the session is gone", gone).await;
    }
    for (host, ca, advice) in [("hooks.test", false, "`tls.ca`"), ("other.test", true, "`url` has to name the server")]
    {
        let source = source(&at(host, "&sslmode=require"), ca);
        let status = source.until("an error", |status| status.last_error.is_some()).await;
        let error = status.last_error.unwrap();
        assert!(!status.connected && error.contains("certificate") && error.contains(advice), "{error}");
        assert!(!error.contains("sslmode=disable"), "{error}");
        source.drained().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_expired_certificate_is_to_be_renewed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate()?;
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.self_signed(&authority_key)?.pem())?;
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?;
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = rcgen::KeyPair::generate()?;
    let server = PostgresServer::start().await?;
    let certificate = params.signed_by(&key, &rcgen::Issuer::new(authority, authority_key))?;
    server.put_file("server.crt", certificate.pem().as_bytes())?;
    server.put_file("server.key", key.serialize_pem().as_bytes())?;
    let client = server.client().await?;
    client.batch_execute("ALTER SYSTEM SET ssl = on").await?;
    client.batch_execute("SELECT pg_reload_conf()").await?;
    let url = format!("postgres://postgres@localhost:{}/postgres?hostaddr=127.0.0.1", server.port());
    let mut connection = connection(&url, None);
    connection.tls.ca = Some(ca);
    let source = Running::start(listening_on(connection, &["fraiseql_events"]), &FakeInbox::new(Mode::Accept));
    let renew = |error: &str| error.contains("has expired: renew it") && !error.contains("sslmode");
    source.until("the advice", |status| status.last_error.as_deref().is_some_and(renew)).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn the_first_of_several_servers_that_answers_and_is_no_standby_is_taken() -> anyhow::Result<()> {
    let (dead, server) = (PostgresServer::stopped()?, PostgresServer::start().await?);
    // One takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let hosts =
        format!("127.0.0.1:{},127.0.0.1:{},localhost:{}", dead.port(), silent.local_addr()?.port(), server.port());
    for more in ["", "?target_session_attrs=read-write", "?hostaddr=127.0.0.1,127.0.0.1,127.0.0.1"] {
        let settings = format!(
            "[[source]]\nname = \"bus\"\nkind = \"postgres\"\nurl = \"postgres://postgres@{hosts}/postgres{more}\""
        );
        let inbox = FakeInbox::new(Mode::Accept);
        let source = Running::start(crate::fake_inbox::build(&settings)?, &inbox);
        source.connected().await;
        notify(&server.client().await?, "{}").await?;
        inbox.until("the event", |seen| seen.accepted.len() == 1).await;
        source.drained().await?;
    }
    Ok(())
}
