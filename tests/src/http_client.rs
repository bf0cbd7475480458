//! One way to make an HTTP client.

use std::time::Duration;

use anyhow::Result;

/// For a whole exchange with a server on loopback.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client that keeps connections, follows nothing and gives up after 30 s.
pub fn new() -> Result<reqwest::Client> {
    // An error means that another test of this process was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().timeout(TIMEOUT).no_proxy();
    Ok(builder.redirect(reqwest::redirect::Policy::none()).build()?)
}
