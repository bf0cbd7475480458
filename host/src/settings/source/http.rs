//! `kind = "http"`

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::SourceKind;
use crate::settings::host::host_names;
use crate::settings::section::{Reported, Section};

/// The default of an `http` source's `listen`.
pub const HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7466);

pub(super) fn http(section: &Section<'_>, _: Option<&Arc<str>>) -> Result<SourceKind, Reported> {
    let listen = section.or_default("listen", HTTP_LISTEN);
    let token = section.secret("token");
    let hosts = host_names(section);
    let (listen, token, hosts) = (listen?, token?, hosts?);
    if token.is_none() && !listen.ip().is_loopback() {
        let help = format!("anyone who reaches {listen} could send events: add token = {{ env = \"NAME\" }}");
        return Err(section.missing("token", &help));
    }
    Ok(SourceKind::Http { listen, token, hosts })
}
