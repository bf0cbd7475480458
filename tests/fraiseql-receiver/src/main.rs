//! Judges webhooks as FraiseQL's receivers do. Reads JSON lines, each with `judge`, which is a scheme of FraiseQL's, `headers`,
//! `body_base64`, `secret` and `header`; prints `ok`, or why not, for each.

use std::collections::BTreeMap;
use std::io::BufRead;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fraiseql_webhooks::scheme::CredentialLocation;
use fraiseql_webhooks::{InboundRequest, SchemeConfig, SchemeContext, build_scheme};
use serde::Deserialize;

#[derive(Deserialize)]
struct Request {
    judge: String,
    headers: BTreeMap<String, String>,
    body_base64: String,
    secret: String,
    header: Option<String>,
}

/// As far as a timestamp may be away, as FraiseQL's server has it.
const TOLERANCE_SECONDS: u64 = 300;

/// Where FraiseQL's verifier of Stripe's scheme looks, and nowhere else.
const STRIPE_HEADER: &str = "stripe-signature";

fn main() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?).context("a request")?;
        println!("{}", judge(request)?);
    }
    Ok(())
}

fn judge(mut request: Request) -> Result<String> {
    let mut config = SchemeConfig::none();
    match (request.judge.as_str(), request.header) {
        ("stripe", Some(header)) => {
            let signature = request.headers.remove(&header).with_context(|| format!("there is no {header}"))?;
            request.headers.insert(STRIPE_HEADER.to_owned(), signature);
        }
        (_, Some(header)) => config.credential = Some(CredentialLocation::Header(header)),
        (_, None) => {}
    }
    let scheme = build_scheme(&request.judge, &config, &SchemeContext::with_tolerance(TOLERANCE_SECONDS));
    let scheme = scheme.map_err(|error| anyhow!("FraiseQL has no {}: {error}", request.judge))?;
    let body = STANDARD.decode(&request.body_base64)?;
    Ok(match scheme.verify(&InboundRequest::new(&request.headers, &body, None), &request.secret) {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{}: {error}", request.judge),
    })
}
