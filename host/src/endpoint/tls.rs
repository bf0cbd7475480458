//! TLS of every endpoint: rustls on ring, the machine's own trusted roots.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_platform_verifier::BuilderVerifierExt;

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

// The provider is named here, so that nothing depends on one having been installed for the process.
fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.2 and 1.3")
}

fn with_protocols(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}
