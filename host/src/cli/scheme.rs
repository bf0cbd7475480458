//! `--scheme` and `--signature-header`, and the secrets that go with them.

use std::path::Path;

use clap::Args;
use http::HeaderName;

use super::failure::{Failure, Failures};
use crate::secret::Secret;
use crate::settings::value::{VALUE_FILE_BYTES_MAX, read_value_file};
use crate::settings::{Environment, SchemeName, SignatureScheme};

/// How webhooks are signed.
#[derive(Debug, Args)]
pub(super) struct SchemeArgs {
    /// How webhooks are signed: fraiseql, standard-webhooks, stripe, github, hmac or none
    #[arg(long, value_name = "SCHEME", value_parser = SchemeName::parse, default_value = "fraiseql")]
    scheme: SchemeName,
    /// stripe and hmac: the header with the signature [default: Stripe-Signature, X-Signature]
    #[arg(long, value_name = "HEADER")]
    signature_header: Option<HeaderName>,
}

impl SchemeArgs {
    pub(super) fn scheme(self) -> Result<SignatureScheme, Failures> {
        with_header(self.scheme, self.signature_header)
    }
}

pub(super) fn with_header(scheme: SchemeName, header: Option<HeaderName>) -> Result<SignatureScheme, Failures> {
    scheme.with_header(header).ok_or_else(|| {
        let failure =
            Failure::new(format!("--signature-header is there, and the scheme {scheme} has headers of its own"));
        failure.help("leave it out, or choose --scheme stripe or hmac").into_usage()
    })
}

pub(super) fn secret_of_variable(environment: &Environment, name: &str) -> Result<Secret, Failures> {
    let value = environment.variable(name).and_then(|value| value.into_string().ok()).unwrap_or_default();
    if value.is_empty() {
        let failure = Failure::new(format!("--secret-env names the variable {name}, which holds no secret"));
        return Err(failure.help(format!("set {name} to the endpoint's secret")).into_usage());
    }
    Ok(Secret::new(value))
}

pub(super) fn secret_of_file(file: &Path) -> Result<Secret, Failures> {
    let value = read_value_file(file).map_err(|error| {
        Failure::new(format!("the secret's file {} can't be read: {error}", file.display()))
            .help(format!("--secret-file takes a file of at most {VALUE_FILE_BYTES_MAX} bytes of UTF-8 text"))
            .into_usage()
    })?;
    if value.is_empty() {
        return Err(Failure::new(format!("the secret's file {} is empty", file.display())).into_usage());
    }
    Ok(Secret::new(value))
}
