//! TLS of every endpoint: rustls on ring, the machine's own trusted roots and the endpoint's authority, its certificate.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, SignatureScheme, WantsVerifier};
use rustls_platform_verifier::{BuilderVerifierExt, Verifier};

use crate::settings::TlsSettings;
use crate::sync::lock;
use crate::tls::{TlsError, certificates};

use super::connection::HTTP_2;

/// TLS sessions of one endpoint with an authority of its own that are kept to be resumed.
const SESSIONS_MAX: usize = 32;

/// Trusts what the machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded where it is Linux).
///
/// # Errors
///
/// When the machine trusts nothing at all.
pub(super) fn trusting_the_machine() -> Result<ClientConfig, rustls::Error> {
    let config = builder().with_platform_verifier()?.with_no_client_auth();
    Ok(with_protocols(config))
}

/// Trusts `roots` alone; with none, it serves where no endpoint is `https` and the machine's roots need not be read.
pub fn trusting_only(roots: RootCertStore) -> ClientConfig {
    with_protocols(builder().with_root_certificates(roots).with_no_client_auth())
}

/// `shared`, with what one endpoint has of its own.
pub(super) fn of_endpoint(shared: &ClientConfig, settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
    let mut config = match &settings.ca {
        None => shared.clone(),
        Some(path) => {
            let verifier = Verifier::new_with_extra_roots(certificates("ca", path)?, provider())
                .map_err(|error| TlsError::Refused(error.to_string()))?;
            // What `dangerous` warns of is a verifier that does not verify.
            let builder = builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
            with_protocols(builder.with_no_client_auth())
        }
    };
    if settings.ca.is_some() {
        // A session that is resumed is trusted as it was when it began, so it is not for others.
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    }
    if let (Some(cert), Some(key)) = (&settings.cert, &settings.key) {
        config.client_auth_cert_resolver = Identity::read(cert.clone(), key.clone())?;
        // And it speaks for whom it was begun by: a renewed certificate would not be seen.
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

/// Whether the files of an endpoint's TLS can be used.
///
/// # Errors
///
/// What is wrong with which.
pub(crate) fn check(settings: &TlsSettings) -> Result<(), TlsError> {
    if let Some(path) = &settings.ca {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("ca", path)? {
            roots.add(certificate).map_err(|error| TlsError::Refused(format!("`tls.ca`: {error}")))?;
        }
    }
    if let (Some(cert), Some(key)) = (&settings.cert, &settings.key) {
        certified(cert, key)?;
    }
    Ok(())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

// The provider is named here, so that nothing depends on one having been installed for the process.
fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.2 and 1.3")
}

fn with_protocols(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
    config
}

/// How long until the files of a certificate are looked at again.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// Who the host is: a certificate and its key, read again when their files change. That is done on a thread of its own, for a
/// disk may hang, and with it whoever reads: handshakes take what was read last and wait for nothing.
#[derive(Debug)]
struct Identity {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    certified: Arc<CertifiedKey>,
    stamp: Stamp,
}

/// When two files were written, as far as the file system says.
type Stamp = [Option<SystemTime>; 2];

impl Identity {
    fn read(cert: PathBuf, key: PathBuf) -> Result<Arc<Self>, TlsError> {
        let stamp = stamp(&cert, &key);
        let current = Current { certified: certified(&cert, &key)?, stamp };
        let identity = Arc::new(Self { cert, key, current: Mutex::new(current) });
        let weak = Arc::downgrade(&identity);
        let keep_reading = move || {
            while let Some(identity) = weak.upgrade() {
                identity.look();
                drop(identity);
                std::thread::park_timeout(READ_INTERVAL);
            }
        };
        let started = std::thread::Builder::new().name("client-certificate".to_owned()).spawn(keep_reading);
        started.map_err(|error| {
            TlsError::Refused(format!("no thread can be started to read `tls.cert` again: {error}"))
        })?;
        Ok(identity)
    }

    /// Reads the files again where they have changed. Files that can't be used leave the certificate before in force:
    /// whoever renews them may have written one and not yet the other.
    fn look(&self) {
        let stamp = stamp(&self.cert, &self.key);
        if stamp == lock(&self.current).stamp {
            return;
        }
        let certified = certified(&self.cert, &self.key);
        let mut current = lock(&self.current);
        current.stamp = stamp;
        match certified {
            Ok(certified) => {
                tracing::info!(path = %self.cert.display(), "the client certificate was read again");
                current.certified = certified;
            }
            Err(error) => tracing::warn!(%error, "the changed client certificate can't be used; the one before is"),
        }
    }

    /// The certificate that was read last.
    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&lock(&self.current).certified)
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn stamp(cert: &Path, key: &Path) -> Stamp {
    [cert, key].map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
}

fn certified(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let private = PrivateKeyDer::from_pem_file(key);
    let private = private.map_err(|error| TlsError::File { key: "key", path: key.to_owned(), error })?;
    let refused = |error: rustls::Error| TlsError::Refused(format!("`tls.cert` and `tls.key`: {error}"));
    let certified = CertifiedKey::from_der(certificates("cert", cert)?, private, &provider()).map_err(refused)?;
    Ok(Arc::new(certified))
}
