//! The one cryptography provider of every TLS connection, and the TLS of connections to buses.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::settings::TlsSettings;

/// Makes *ring* the process's rustls provider. Call it before the first client is built; more calls change nothing.
pub fn install_provider() {
    static INSTALLED: Once = Once::new();
    // An error means that the program around this library installed one already, which is as good.
    INSTALLED.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// Why a connection's TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or is no PEM.
    #[error("`tls.{key}`: {} can't be read: {error}", path.display())]
    File {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: pem::Error,
    },
    /// A file has no certificate in it.
    #[error("`tls.{key}`: {} has no certificate in it; it is to be PEM", path.display())]
    Empty {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// What the files hold is refused.
    #[error("TLS can't be set up: {0}")]
    Refused(String),
}

/// How a bus's server is verified, and what it is shown: the system's authorities unless `settings` name others.
///
/// # Errors
///
/// When a file can't be read, or its content is refused.
pub fn client_config(settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
    install_provider();
    let refused = |error: &dyn std::fmt::Display| TlsError::Refused(error.to_string());
    let builder = ClientConfig::builder();
    let builder = match &settings.ca {
        None => builder.with_platform_verifier().map_err(|error| refused(&error))?,
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates("ca", path)? {
                roots.add(certificate).map_err(|error| refused(&error))?;
            }
            let verifier = WebPkiServerVerifier::builder(Arc::new(roots)).build().map_err(|error| refused(&error))?;
            builder.with_webpki_verifier(verifier)
        }
    };
    match (&settings.cert, &settings.key) {
        (Some(cert), Some(path)) => {
            let key = PrivateKeyDer::from_pem_file(path);
            let key = key.map_err(|error| TlsError::File { key: "key", path: path.clone(), error })?;
            builder.with_client_auth_cert(certificates("cert", cert)?, key).map_err(|error| refused(&error))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// The TLS library's own error, where it is behind `error`.
pub(crate) fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // The system's error passes over what it holds when it is asked for its source.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = held.map(|held| held as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

/// What to change where a handshake with a bus's server failed, as a clause. Never to do without verification.
pub(crate) fn advice(error: &rustls::Error) -> Option<&'static str> {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate_advice(error),
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired | AlertDescription::CertificateRevoked) => {
            Some("the server refuses the certificate of `tls.cert`, which has expired or was revoked: renew it")
        }
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::HandshakeFailure,
        ) => Some("set `tls.cert` and `tls.key` to a certificate that the server takes"),
        _ => None,
    }
}

fn certificate_advice(error: &CertificateError) -> Option<&'static str> {
    Some(match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it there and have the server load it; if it is valid, this \
             machine's clock is wrong"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: check this machine's clock, and when the certificate begins"
        }
        CertificateError::Revoked => "the server's certificate was revoked: install another one there",
        CertificateError::UnknownIssuer => "set `tls.ca` to the authority that the server's certificate comes from",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "`url` has to name the server as its certificate does"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not made for servers: issue one with the extended key usage serverAuth"
        }
        error if error.to_string().contains("CaUsedAsEndEntity") => {
            "the server shows an authority's own certificate: issue it one that is no authority's (CA:FALSE), and name \
             the authority as `tls.ca`"
        }
        _ => return None,
    })
}

/// The certificates of a PEM file; at least one.
pub(crate) fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error| TlsError::File { key, path: path.to_owned(), error };
    let read = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(TlsError::Empty { key, path: path.to_owned() }),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(failed(error)),
    }
}
