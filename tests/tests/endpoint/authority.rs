//! An authority for the test's own certificates, and real TLS servers with them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use wirehook::endpoint::{Lookup, Network, tls};

/// Every name is this machine.
pub(crate) struct Here;

impl Lookup for Here {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
    }
}

/// An authority of the test's own, with a folder for what it gives out.
pub(crate) struct Authority {
    pub(crate) folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate with its key, in PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// What a certificate says.
#[derive(Clone, Copy)]
pub(crate) struct Says {
    pub(crate) name: &'static str,
    pub(crate) from_year: i32,
    pub(crate) until_year: i32,
}

impl Default for Says {
    fn default() -> Self {
        Self { name: "hooks.test", from_year: 2000, until_year: 2100 }
    }
}

impl Says {
    fn params(self) -> CertificateParams {
        let mut params = CertificateParams::new(vec![self.name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, self.name);
        params.not_before = date_time_ymd(self.from_year, 1, 1);
        params.not_after = date_time_ymd(self.until_year, 1, 1);
        params
    }

    /// A certificate that nobody vouches for but its owner.
    pub(crate) fn self_signed(self) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let certificate = self.params().self_signed(&key).expect("a certificate").pem();
        Issued { certificate, key: key.serialize_pem() }
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two authorities of one name would be taken for one with a bad signature.
        static AUTHORITIES: AtomicUsize = AtomicUsize::new(1);
        let number = AUTHORITIES.fetch_add(1, Ordering::SeqCst);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("it can be written");
        let certificate = certificate.der().clone();
        Self { folder, issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn issue(&self, says: Says) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let certificate = says.params().signed_by(&key, &self.issuer).expect("a certificate").pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a certificate and its key as `client.pem` and `client.key`.
    pub(crate) fn write_client(&self, issued: &Issued) {
        std::fs::write(self.path("client.pem"), &issued.certificate).expect("it can be written");
        std::fs::write(self.path("client.key"), &issued.key).expect("it can be written");
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        roots
    }

    /// A network on which this authority alone is trusted.
    pub(crate) fn network(&self) -> Network {
        Network { lookup: Arc::new(Here), tls: Some(tls::trusting_only(self.roots())) }
    }
}

/// A network on which nobody is trusted.
pub(crate) fn trusting_nobody() -> Network {
    Network { lookup: Arc::new(Here), tls: Some(tls::trusting_only(RootCertStore::empty())) }
}

/// An https server that answers with the common name of the client's certificate, or `nobody`.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

impl Server {
    /// Asks for a certificate of `clients`, where there are any.
    pub(crate) async fn start(issued: &Issued, protocol: &'static str, clients: Option<&Authority>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let acceptor = TlsAcceptor::from(Arc::new(config(issued, protocol, clients)));
        let counts = Arc::new(Counts::default());
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, acceptor, protocol, Arc::clone(&counts)));
        Self { address, counts, _serving: serving }
    }

    pub(crate) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/?token=hush", self.address.port())
    }

    /// TCP connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Requests that arrived so far.
    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }
}

fn config(issued: &Issued, protocol: &str, clients: Option<&Authority>) -> ServerConfig {
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has them");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()), provider).build().expect("roots"),
        ),
    };
    let mut config = builder.with_single_cert(vec![certificate], key).expect("they belong together");
    config.alpn_protocols = vec![protocol.into()];
    config
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, protocol: &'static str, counts: Arc<Counts>) {
    let mut serving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        counts.connections.fetch_add(1, Ordering::SeqCst);
        serving.spawn(serve(stream, acceptor.clone(), protocol, Arc::clone(&counts)));
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, protocol: &'static str, counts: Arc<Counts>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let client = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
    let said = client.map_or_else(|| "nobody".to_owned(), |certificate| name_in(&certificate));
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        counts.requests.fetch_add(1, Ordering::SeqCst);
        let said = Bytes::from(said.clone());
        async move {
            request.into_body().collect().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(Response::new(Full::new(said)))
        }
    });
    let stream = TokioIo::new(stream);
    let _ = if protocol == "h2" {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
    };
}

/// The first of the test's own names that stands in a certificate.
fn name_in(certificate: &[u8]) -> String {
    let names = ["first.client", "second.client"];
    let found = names.iter().find(|name| certificate.windows(name.len()).any(|window| window == name.as_bytes()));
    found.map_or_else(|| "somebody".to_owned(), |name| (*name).to_owned())
}
