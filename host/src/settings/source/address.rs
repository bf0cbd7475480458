//! What every bus has: a URL without credentials, and TLS.

use url::Url;

use super::TlsSettings;
use crate::settings::bus_url::BusUrlError;
use crate::settings::encoded;
use crate::settings::section::{Reported, Section};
use crate::settings::servers::servers;

/// A bus's URL, of one of `schemes`, without a password in it.
pub(super) fn read(text: &str, schemes: &[&str], user_allowed: bool) -> Result<Url, String> {
    encoded::check_bus(text).map_err(|error| error.to_string())?;
    // Those of PostgreSQL have a form of their own.
    if !schemes.contains(&"postgres") && servers(text).len() > 1 {
        return Err(BusUrlError::Several.to_string());
    }
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
    if !schemes.contains(&url.scheme()) {
        return Err(format!("is not a URL of scheme {}", schemes.join(" or ")));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("is a URL without a host".to_owned());
    }
    if url.password().is_some() || (!user_allowed && !url.username().is_empty()) {
        return Err("has credentials in it, which would end up in logs".to_owned());
    }
    if url.fragment().is_some() || (url.query().is_some() && !user_allowed) {
        return Err("has a `?` or `#` with something behind it, which is not used".to_owned());
    }
    Ok(url)
}

/// The table `tls`.
pub(in crate::settings) fn tls(section: &Section<'_>) -> Result<TlsSettings, Reported> {
    let table = section.table("tls");
    let (ca, cert, key) =
        (table.optional::<String>("ca"), table.optional::<String>("cert"), table.optional::<String>("key"));
    table.finish();
    let path = |path: String| table.context.path(&path);
    let settings = TlsSettings { ca: ca?.map(path), cert: cert?.map(path), key: key?.map(path) };
    match (&settings.cert, &settings.key) {
        (Some(_), None) => Err(table.missing("key", "`cert` goes with `key`")),
        (None, Some(_)) => Err(table.missing("cert", "`key` goes with `cert`")),
        _ => Ok(settings),
    }
}
