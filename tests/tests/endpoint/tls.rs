use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use wirehook::delivery::AttemptResult::Status;
use wirehook::endpoint::{Lookup, Network, tls};
use wirehook_tests::raw_endpoint::{endpoint_on, settings};

use crate::{attempt, transport};

pub(crate) const CA: &[u8] = include_bytes!("../../fixtures/tls/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("../../fixtures/tls/server.pem");
const KEY: &[u8] = include_bytes!("../../fixtures/tls/server.key");

/// Every name is this machine.
struct Here;

impl Lookup for Here {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
    }
}

pub(crate) fn trusting(roots: &[&[u8]]) -> Network {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from_pem_slice(root).expect("a certificate")).expect("a root");
    }
    Network { lookup: Arc::new(Here), tls: Some(tls::trusting_only(store)) }
}

struct Server {
    address: SocketAddr,
    versions: mpsc::UnboundedReceiver<Version>,
    _serving: JoinSet<()>,
}

/// An https server for `hooks.test` that speaks `protocol` alone, as ALPN names it.
async fn serve(protocol: &'static str) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (sender, versions) = mpsc::unbounded_channel();
    let acceptor = TlsAcceptor::from(Arc::new(server_config(protocol)));
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let sender = sender.clone();
            let service = service_fn(move |request: hyper::Request<_>| {
                sender.send(request.version()).expect("the test listens");
                async { Ok::<_, io::Error>(Response::new(Full::new(Bytes::from_static(b"done")))) }
            });
            let stream = TokioIo::new(stream);
            let _ = if protocol == "h2" {
                hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
            } else {
                hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
            };
        }
    });
    Server { address, versions, _serving: serving }
}

pub(crate) fn server_config(protocol: &str) -> ServerConfig {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(KEY).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together");
    config.alpn_protocols = vec![protocol.into()];
    config
}

async fn check(protocol: &'static str, expected: Version) {
    let mut server = serve(protocol).await;
    let url = format!("https://hooks.test:{}/", server.address.port());
    let endpoint = endpoint_on(trusting(&[CA]), settings(&url), &["127.0.0.0/8"]);
    for _ in 0..2 {
        let outcome = attempt(&endpoint).await;
        assert_eq!((outcome.result, outcome.response), (Status(200), Bytes::from_static(b"done")));
        assert_eq!(server.versions.recv().await, Some(expected));
    }
}

#[tokio::test]
async fn https_speaks_http_1() {
    check("http/1.1", Version::HTTP_11).await;
}

#[tokio::test]
async fn https_speaks_http_2() {
    check("h2", Version::HTTP_2).await;
}

/// What an attempt says of a server that must not be trusted.
async fn check_refused(network: Network, host: &str, expected: &str) {
    let mut server = serve("http/1.1").await;
    let url = format!("https://{host}:{}/?token=hush", server.address.port());
    let outcome = attempt(&endpoint_on(network, settings(&url), &["127.0.0.0/8"])).await;
    let text = transport(&outcome);
    assert!(text.starts_with("TLS failed: invalid peer certificate"), "{text}");
    assert!(text.contains(expected) && !text.contains("hush"), "{text}");
    assert!(server.versions.try_recv().is_err(), "no request may have been sent");
}

#[tokio::test]
async fn an_unknown_issuer_is_not_trusted() {
    check_refused(trusting(&[]), "hooks.test", "UnknownIssuer").await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_trusted() {
    check_refused(trusting(&[CA]), "other.test", "not valid for name \"other.test\"").await;
}
