//! `[egress]`: which networks inside may be reached, and the proxy by which everything else is.

use ipnet::IpNet;
use url::Url;

use super::encoded;
use super::kinds::Setting;
use super::section::{Reported, Section};
use super::{EgressSettings, ProxyKind, ProxySettings};
use crate::secret::Secret;

/// The longest `proxy_user` and `proxy_password`, in bytes: what SOCKS has room for.
pub const PROXY_CREDENTIAL_BYTES_MAX: usize = 255;

const PROXY_PORT: u16 = 80;
const SOCKS_PORT: u16 = 1080;

pub(super) fn read(section: &Section<'_>) -> Result<EgressSettings, Reported> {
    let allow = section.list::<IpNet>("allow");
    let proxy = proxy(section);
    section.finish();
    Ok(EgressSettings { allow: allow?, proxy: proxy? })
}

fn proxy(section: &Section<'_>) -> Result<Option<ProxySettings>, Reported> {
    let offset = |key| section.get(key).map_or(section.offset, |value| value.span().start);
    let url = section.optional::<ProxyUrl>("proxy");
    let user = section.optional_if("proxy_user", |user: &String| fits_user(user));
    let password = section.secret("proxy_password");
    let resolves_names = section.boolean("proxy_resolves", false);
    let (url, user, password, resolves_names) = (url?, user?, password?, resolves_names?);
    let Some(ProxyUrl { kind, host, port }) = url else {
        for (key, is_there) in
            [("proxy_user", user.is_some()), ("proxy_password", password.is_some()), ("proxy_resolves", resolves_names)]
        {
            if is_there {
                return Err(section.refuse(key, offset(key), "is there without a `proxy`", "add proxy = \"http://…\""));
            }
        }
        return Ok(None);
    };
    if user.is_some() != password.is_some() {
        let (missing, help) = if user.is_some() {
            ("proxy_password", "`proxy_user` goes with `proxy_password`")
        } else {
            ("proxy_user", "`proxy_password` goes with `proxy_user`")
        };
        return Err(section.missing(missing, help));
    }
    if password.as_ref().is_some_and(|password: &Secret| password.expose().len() > PROXY_CREDENTIAL_BYTES_MAX) {
        let message = format!("is longer than {PROXY_CREDENTIAL_BYTES_MAX} bytes");
        return Err(section.refuse("proxy_password", offset("proxy_password"), message, ""));
    }
    Ok(Some(ProxySettings { kind, host, port, user, password, resolves_names }))
}

fn fits_user(user: &str) -> Result<(), String> {
    if user.len() > PROXY_CREDENTIAL_BYTES_MAX {
        return Err(format!("is longer than {PROXY_CREDENTIAL_BYTES_MAX} bytes"));
    }
    // A user name ends at the colon (RFC 7617).
    if user.contains(':') { Err("has a colon in it".to_owned()) } else { Ok(()) }
}

struct ProxyUrl {
    kind: ProxyKind,
    host: String,
    port: u16,
}

impl Setting for ProxyUrl {
    const EXPECTED: &'static str = "write \"http://proxy:3128\" or \"socks5://proxy:1080\"; who the host is to it goes into `proxy_user` and `proxy_password`";
    const PRIVATE: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        // Nothing but a host and a port stands there.
        encoded::check_bus(text).map_err(|error| error.to_string())?;
        let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
        let (kind, port) = match url.scheme() {
            "http" => (ProxyKind::Http, PROXY_PORT),
            "socks5" => (ProxyKind::Socks5, SOCKS_PORT),
            "socks5h" => return Err("is a URL of scheme socks5h; write socks5 and proxy_resolves = true".to_owned()),
            "https" => return Err("is a proxy over TLS, which is not supported".to_owned()),
            _ => return Err("is not a URL of scheme http or socks5".to_owned()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has credentials in it, which would end up in logs".to_owned());
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("has more than a host and a port".to_owned());
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("names no host")?;
        Ok(Self { kind, host: host.to_owned(), port: url.port().unwrap_or(port) })
    }

    fn show(&self) -> String {
        let scheme = match self.kind {
            ProxyKind::Http => "http",
            ProxyKind::Socks5 => "socks5",
        };
        format!("{scheme}://{}:{}", self.host, self.port)
    }
}
