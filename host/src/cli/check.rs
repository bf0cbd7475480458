//! `wirehook check`

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::json;
use url::Host;

use super::console::Look;
use super::failure::{Exit, Failure, Failures};
use super::plugin::state;
use super::table::{Table, maybe, plain};
use super::{Observers, Session, parts::PluginView};
use crate::clock::Timestamp;
use crate::endpoint::egress::vet;
use crate::endpoint::signature::public_key;
use crate::settings::{EndpointSettings, Loaded, SignatureScheme, SigningSecret, SourceSettings};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook check --config wirehook.toml
  wirehook check --observers fraiseql.toml

Exit code: 0 when all is well, 2 for settings, 1 for a plugin that would not run.";

pub(super) fn check(session: &mut Session<'_>, observers: &Observers) -> Result<Exit, Failures> {
    let loaded = session.load_observed(observers)?;
    for warning in &loaded.warnings {
        session.console.warning(&warning.clone().into());
    }
    let settings = &loaded.settings;
    let unreachable: Vec<_> =
        settings.endpoints.iter().filter_map(|one| unreachable(one, &settings.egress.allow)).collect();
    for warning in &unreachable {
        session.console.warning(warning);
    }
    let now = session.parts.clock().now();
    for warning in settings.endpoints.iter().flat_map(|endpoint| expired(endpoint, now)) {
        session.console.warning(&warning);
    }
    let plugins = session.parts.scan(settings)?;
    for lessened in plugins.iter().filter_map(PluginView::lessened) {
        session.console.warning(&lessened);
    }
    if session.console.json {
        print_objects(session, &loaded, &plugins)?;
    } else {
        print(session, &loaded, &plugins, unreachable.is_empty())?;
    }
    let refused: Vec<Failure> = plugins.iter().filter_map(PluginView::refusal).collect();
    if refused.is_empty() { Ok(Exit::Success) } else { Err(Failures { failures: refused, exit: Exit::Failure }) }
}

/// Where an endpoint's own URL says that egress would be refused. What a name resolves to is known at each attempt only.
fn unreachable(endpoint: &EndpointSettings, allow: &[IpNet]) -> Option<Failure> {
    let address: IpAddr = match endpoint.url.host()? {
        Host::Ipv4(address) => address.into(),
        Host::Ipv6(address) => address.into(),
        Host::Domain("localhost") => Ipv4Addr::LOCALHOST.into(),
        Host::Domain(_) => return None,
    };
    let denied = vet(address, allow).err()?;
    let message = format!("every webhook to endpoint `{}` will be refused as egress_denied: {denied}", endpoint.name);
    Some(Failure::new(message))
}

/// Its secrets that are past their end: they are in the settings and do nothing.
fn expired(endpoint: &EndpointSettings, now: Timestamp) -> Vec<Failure> {
    let secrets = (1..).zip(&endpoint.secrets).filter(|(_, secret)| !secret.signs_at(now));
    let warning = |(number, secret): (usize, &SigningSecret)| {
        let at = secret.expires_at.map(|at| format!(" on {at}")).unwrap_or_default();
        let message = format!("secret number {number} of endpoint `{}` expired{at}: it signs nothing", endpoint.name);
        Failure::new(message).help("remove it from `secret`")
    };
    secrets.map(warning).collect()
}

/// By which scheme, where its header was chosen in which, and with how many secrets where several sign.
fn signed(endpoint: &EndpointSettings, now: Timestamp) -> String {
    let mut text = endpoint.signature.name().to_owned();
    if let Some(header) = endpoint.signature.chosen_header() {
        text.push_str(&format!(" in {header}"));
    }
    let active = endpoint.secrets.iter().filter(|secret| secret.signs_at(now)).count();
    if active > 1 && endpoint.signature != SignatureScheme::None {
        let with = if endpoint.signature.carries_one() { "the first of " } else { "" };
        text.push_str(&format!(", {with}{active} secrets"));
    }
    text
}

/// What its receiver verifies with, of those secrets that only sign; nothing secret.
fn public_keys(endpoint: &EndpointSettings, now: Timestamp) -> Vec<String> {
    let active = endpoint.secrets.iter().filter(|secret| secret.signs_at(now));
    active.filter_map(|secret| public_key(&endpoint.signature, &secret.secret)).collect()
}

fn span(endpoint: &EndpointSettings) -> String {
    let span = endpoint.retry.span();
    // Nobody waits for the milliseconds of hours.
    let shown = if span < Duration::from_mins(1) { span.as_millis() } else { u128::from(span.as_secs()) * 1000 };
    let shown = Duration::from_millis(u64::try_from(shown).unwrap_or(u64::MAX));
    format!("{} attempts over {}", endpoint.retry.max_attempts, humantime::format_duration(shown))
}

fn print(session: &mut Session<'_>, loaded: &Loaded, plugins: &[PluginView], reachable: bool) -> std::io::Result<()> {
    let now = session.parts.clock().now();
    let cleaning = session.parts.cleaning(loaded.settings.plugins.memory_reset);
    let console = &mut *session.console;
    console.line(format_args!("settings  {}", loaded.file.display()))?;
    console.line(format_args!("store     {}", loaded.settings.store.path.display()))?;
    console.line(format_args!("plugins   {}", loaded.settings.plugins.dir.display()))?;
    console.line(format_args!("memory    reset between events, for a host in this cgroup: {cleaning}"))?;
    let mut table = Table::new(&["source", "kind"]);
    for SourceSettings { name, kind, .. } in &loaded.settings.sources {
        table.row(vec![plain(name), plain(kind.name())]);
    }
    section(console, &table)?;
    let mut table = Table::new(&["endpoint", "host", "signed", "tried"]);
    for endpoint in &loaded.settings.endpoints {
        let (host, signed) = (maybe(endpoint.url.host_str()), plain(signed(endpoint, now)));
        table.row(vec![plain(&endpoint.name), host, signed, plain(span(endpoint))]);
    }
    section(console, &table)?;
    for endpoint in &loaded.settings.endpoints {
        for key in public_keys(endpoint, now) {
            console.line(format_args!("the receiver of {} verifies with {key}", endpoint.name))?;
        }
    }
    let mut table = Table::new(&["plugin", "state", "subjects"]);
    for plugin in plugins {
        table.row(vec![plain(&plugin.name), state(plugin), plain(plugin.subjects.join(" "))]);
    }
    section(console, &table)?;
    if reachable && loaded.warnings.is_empty() && plugins.iter().all(|plugin| plugin.ok) {
        let coloured = console.coloured();
        console.line("")?;
        console.line(Look::Good.paint("all is well", coloured))?;
    }
    Ok(())
}

fn section(console: &mut super::Console, table: &Table) -> std::io::Result<()> {
    console.line("")?;
    table.print(console)
}

fn print_objects(session: &mut Session<'_>, loaded: &Loaded, plugins: &[PluginView]) -> std::io::Result<()> {
    let now = session.parts.clock().now();
    let cleaning = session.parts.cleaning(loaded.settings.plugins.memory_reset);
    let console = &mut *session.console;
    console.object(&json!({
        "kind": "settings", "file": loaded.file, "store": loaded.settings.store.path, "cleaning": cleaning,
        "warnings": loaded.warnings.iter().map(|warning| &warning.message).collect::<Vec<_>>(),
    }))?;
    for source in &loaded.settings.sources {
        console.object(&json!({ "kind": "source", "name": source.name, "bus": source.kind.name() }))?;
    }
    for endpoint in &loaded.settings.endpoints {
        let active = endpoint.secrets.iter().filter(|secret| secret.signs_at(now)).count();
        console.object(&json!({
            "kind": "endpoint", "name": endpoint.name, "host": endpoint.url.host_str(),
            "signature": endpoint.signature.name(),
            "signature_header": endpoint.signature.chosen_header().map(http::HeaderName::as_str),
            "secrets": endpoint.secrets.len(), "secrets_active": active, "public_keys": public_keys(endpoint, now),
            "max_attempts": endpoint.retry.max_attempts, "span_s": endpoint.retry.span().as_secs_f64(),
        }))?;
    }
    for plugin in plugins {
        let mut object = json!({ "kind": "plugin" });
        if let (Some(object), serde_json::Value::Object(fields)) =
            (object.as_object_mut(), serde_json::to_value(plugin)?)
        {
            object.extend(fields);
        }
        console.object(&object)?;
    }
    Ok(())
}
