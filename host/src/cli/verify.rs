//! `wirehook verify`

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::Session;
use super::console::Look;
use super::endpoints::ENDPOINTS_NONE;
use super::failure::{Exit, Failure, Failures};
use super::scheme::{secret_of_file, secret_of_variable, with_header};
use super::table::printable;
use crate::clock::Timestamp;
use crate::receiver::raw::raw_request;
use crate::receiver::{self, VerifyError};
use crate::secret::Secret;
use crate::settings::{SchemeName, SignatureScheme};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook verify --endpoint orders --request request.http
  wirehook verify --secret-env ORDERS_SECRET --request request.http --at 2026-03-02T14:00:00Z
  wirehook verify --secret-env ORDERS_SECRET body.json \\
    -H 'X-Timestamp: 1772460000' \\
    -H 'X-Signature: sha256=4f08262fc59cee1029bf862fd610cd0178916aecd5324d57c692b35dd050f7b8'

Says why a signature is not right: the clocks are apart, another secret, a body that was parsed \
and written again, a timestamp that was left out, a secret that was decoded or was not.

Exit code: 0 verified, 1 not, 2 for arguments.";

/// The largest request that is read, in bytes.
const REQUEST_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The body, byte for byte as it came, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "request", conflicts_with = "request")]
    body: Option<PathBuf>,
    /// A header of the request
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// A whole request as HTTP/1 has it, headers and body, or - for standard input
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// How it is signed: fraiseql, standard-webhooks, stripe, github or hmac [default: by its headers]
    #[arg(long, value_name = "SCHEME", value_parser = SchemeName::parse)]
    scheme: Option<SchemeName>,
    /// stripe and hmac: the header with the signature [default: Stripe-Signature, X-Signature]
    #[arg(long, value_name = "HEADER", requires = "scheme")]
    signature_header: Option<HeaderName>,
    /// An environment variable with a secret; whpk_… for ed25519. May be there several times
    #[arg(long, value_name = "NAME", required_unless_present_any = ["secret_files", "endpoint"])]
    secret_env: Vec<String>,
    /// A file with a secret; one newline at its end is not part of it
    #[arg(long = "secret-file", value_name = "FILE")]
    secret_files: Vec<PathBuf>,
    /// Take the scheme and the secrets of this endpoint of the settings
    #[arg(long, value_name = "NAME", conflicts_with_all = ["scheme", "secret_env", "secret_files"])]
    endpoint: Option<String>,
    /// Verify as of then instead of now: RFC 3339, or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
}

pub(super) fn verify(session: &mut Session<'_>, args: &VerifyArgs) -> Result<Exit, Failures> {
    let now = args.at.unwrap_or_else(|| session.parts.clock().now());
    let (mut headers, body) = match (&args.request, &args.body) {
        (Some(file), _) => {
            let request = read(file)?;
            raw_request(&request)
                .map_err(|error| Failure::new(format!("{} is no HTTP request: {error}", shown(file))).into_usage())?
        }
        (None, Some(file)) => (HeaderMap::new(), read(file)?),
        (None, None) => return Err(Failure::new("no body is named").into_usage()),
    };
    headers.extend(args.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    let (scheme, secrets) = match &args.endpoint {
        Some(name) => of_endpoint(session, name, now)?,
        None => (scheme(args, &headers)?, secrets(session, args)?),
    };
    let verdict = receiver::verify(&scheme, &headers, &body, &secrets, now);
    print(session, &scheme, &verdict)?;
    Ok(if verdict.is_ok() { Exit::Success } else { Exit::Failure })
}

fn print(
    session: &mut Session<'_>,
    scheme: &SignatureScheme,
    verdict: &Result<(), VerifyError>,
) -> std::io::Result<()> {
    let console = &mut *session.console;
    if console.json {
        let error = verdict.as_ref().err();
        let hints = error.map(|error| error.hints().iter().map(|hint| hint.code()).collect::<Vec<_>>());
        return console.object(&json!({
            "verified": verdict.is_ok(), "scheme": scheme.name(), "reason": error.map(VerifyError::code),
            "hints": hints.unwrap_or_default(), "problem": error.map(ToString::to_string),
        }));
    }
    let coloured = console.coloured();
    match verdict {
        Ok(()) => console.line(Look::Good.paint(&format!("verified, scheme {}", scheme.name()), coloured)),
        Err(error) => {
            let text = format!("not verified, scheme {}: {}", scheme.name(), printable(&error.to_string()));
            console.line(Look::Bad.paint(&text, coloured))
        }
    }
}

fn scheme(args: &VerifyArgs, headers: &HeaderMap) -> Result<SignatureScheme, Failures> {
    match args.scheme {
        Some(scheme) => with_header(scheme, args.signature_header.clone()),
        None => receiver::scheme_of(headers).ok_or_else(|| {
            let failure = Failure::new("the request has no signature's header that is known");
            failure.help("give its headers with -H, or say how it is signed with --scheme").into_usage()
        }),
    }
}

fn secrets(session: &Session<'_>, args: &VerifyArgs) -> Result<Vec<Secret>, Failures> {
    let variables = args.secret_env.iter().map(|name| secret_of_variable(session.environment, name));
    variables.chain(args.secret_files.iter().map(|file| secret_of_file(file))).collect()
}

/// The scheme of an endpoint, and those of its secrets that sign at `now`.
fn of_endpoint(
    session: &mut Session<'_>,
    name: &str,
    now: Timestamp,
) -> Result<(SignatureScheme, Vec<Secret>), Failures> {
    let settings = session.load()?.settings;
    let Some(endpoint) = settings.endpoints.into_iter().find(|endpoint| *endpoint.name == *name) else {
        return Err(Failure::unknown("endpoint", name, &session.endpoint_names()?, ENDPOINTS_NONE).into_usage());
    };
    let active = endpoint.secrets.into_iter().filter(|secret| secret.signs_at(now));
    Ok((endpoint.signature, active.map(|secret| secret.secret).collect()))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value'")?;
    let name = name.trim().parse().map_err(|_| format!("`{}` is not a header name", name.escape_debug()))?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| "its value can't be a header's".to_owned())?;
    Ok((name, value))
}

fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(Timestamp(seconds.saturating_mul(1000)));
    }
    let time: jiff::Timestamp =
        text.parse().map_err(|_| "write a time such as 2026-03-02T14:00:00Z, or Unix seconds".to_owned())?;
    Ok(Timestamp(time.as_millisecond()))
}

fn read(file: &Path) -> Result<Vec<u8>, Failures> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(REQUEST_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(REQUEST_BYTES_MAX + 1).read_to_end(&mut bytes))
    };
    match read {
        Ok(length) if length as u64 > REQUEST_BYTES_MAX => {
            Err(Failure::new(format!("{} has more than {REQUEST_BYTES_MAX} bytes", shown(file))).into_usage())
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::new(format!("{} can't be read: {error}", shown(file))).into_usage()),
    }
}

fn shown(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}
