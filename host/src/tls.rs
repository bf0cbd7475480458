//! The one cryptography provider of every TLS connection.

use std::sync::Once;

/// Makes *ring* the process's rustls provider. Call it before the first client is built; more calls change nothing.
pub fn install_provider() {
    static INSTALLED: Once = Once::new();
    // An error means that the program around this library installed one already, which is as good.
    INSTALLED.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}
