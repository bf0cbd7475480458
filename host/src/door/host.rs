//! Whom a request is for: its `Host`, which a page of another site can't choose.
//!
//! A web page whose name is made to lead to this machine (DNS rebinding) reads what the machine answers, as of one origin
//! with itself. Its browser names the page's host in `Host` all the same. An address can't be rebound, nor can
//! `localhost`; other names are the operator's to list.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::request::Parts;
use http::{HeaderMap, Uri, Version, header};

/// Why a request is not for this listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WrongHost {
    /// HTTP/1.1 asks for exactly one (RFC 9112 §3.2).
    #[error("send exactly one Host header")]
    NotOne,
    /// Not what a `Host` may be.
    #[error("the Host header is not a host and a port")]
    Malformed,
    /// A name that is not in the settings.
    #[error(
        "the Host header names a host that this listener does not answer to; use its address or localhost, or add the name to `hosts` of this listener in the settings"
    )]
    Unknown,
}

/// Whether a request is for an address, for `localhost`, or for one of `names`, whatever the port.
///
/// # Errors
/// Where it is for another host, or nothing tells.
pub fn check(head: &Parts, names: &[String]) -> Result<(), WrongHost> {
    check_target(&head.uri, names)?;
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => check_one(host.to_str().map_err(|_| WrongHost::Malformed)?, names),
        // What speaks HTTP/1.0 without a Host is no browser, but may be what probes a service.
        (None, _) if head.version == Version::HTTP_10 => Ok(()),
        _ => Err(WrongHost::NotOne),
    }
}

/// A target in absolute form names a host as well, which stands above the header's (RFC 9112 §3.2.2).
fn check_target(target: &Uri, names: &[String]) -> Result<(), WrongHost> {
    target.authority().map_or(Ok(()), |authority| check_one(authority.as_str(), names))
}

fn check_one(host: &str, names: &[String]) -> Result<(), WrongHost> {
    let host = split(host).ok_or(WrongHost::Malformed)?;
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().map(drop).map_err(|_| WrongHost::Malformed);
    }
    // A name with a dot at its end is the same name (RFC 3986 §3.2.2).
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_known = host == "localhost" || host.parse::<Ipv4Addr>().is_ok() || names.contains(&host);
    if is_known { Ok(()) } else { Err(WrongHost::Unknown) }
}

/// The host of a host and a port; `None` where there is more to it, as user information.
fn split(text: &str) -> Option<&str> {
    let end = match text.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(end);
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    let is_host = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
    (is_port && is_host).then_some(host)
}

/// Whether a browser says that a page of another site has made it send this: its headers are none that a page can set.
pub fn is_cross_site(headers: &HeaderMap) -> bool {
    let of_another = |value: &http::HeaderValue| !matches!(value.as_bytes(), b"same-origin" | b"none");
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let foreign = |origin: &http::HeaderValue| {
        origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://")) != Some(own)
    };
    headers.get_all("sec-fetch-site").iter().any(of_another) || headers.get_all(header::ORIGIN).iter().any(foreign)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn checked(version: Version, target: &str, hosts: &[&str]) -> Result<(), WrongHost> {
        let request = hosts
            .iter()
            .fold(Request::builder().version(version).uri(target), |request, host| request.header("host", *host));
        check(&request.body(()).unwrap().into_parts().0, &["wirehook.internal".to_owned()])
    }

    #[test]
    fn addresses_localhost_and_listed_names_are_answered() {
        let check = |host: &str, expected: Result<(), WrongHost>| {
            assert_eq!(checked(Version::HTTP_11, "/healthz", &[host]), expected, "{host}");
        };
        for host in ["127.0.0.1", "127.0.0.1:7465", "10.1.2.3:1", "[::1]:7465", "[::1]", "[FE80::1]", "127.0.0.1."] {
            check(host, Ok(()));
        }
        for host in ["localhost", "LocalHost:80", "localhost.", "localhost.:80", "localhost:", "Wirehook.Internal.:1"] {
            check(host, Ok(()));
        }
        for host in
            ["evil.example", "evil.example:7465", "localhost.evil.example", "evil.localhost", "127.0.0.1.nip.io"]
        {
            check(host, Err(WrongHost::Unknown));
        }
        for host in ["", ":80", "localhost@evil.example", "evil@localhost", "[::1", "[::1]x", "[evil]", "a b", "h:8x"] {
            check(host, Err(WrongHost::Malformed));
        }
    }

    #[test]
    fn every_place_that_names_a_host_is_looked_at() {
        let known = "127.0.0.1:1";
        assert_eq!(checked(Version::HTTP_11, "/", &[]), Err(WrongHost::NotOne));
        assert_eq!(checked(Version::HTTP_11, "/", &[known, known]), Err(WrongHost::NotOne));
        assert_eq!(checked(Version::HTTP_11, "/", &[known, "evil.example"]), Err(WrongHost::NotOne));
        assert_eq!(checked(Version::HTTP_10, "/", &[]), Ok(()));
        assert_eq!(checked(Version::HTTP_10, "/", &["evil.example"]), Err(WrongHost::Unknown));
        assert_eq!(checked(Version::HTTP_11, "http://evil.example/healthz", &[known]), Err(WrongHost::Unknown));
        assert_eq!(checked(Version::HTTP_10, "http://evil.example/healthz", &[]), Err(WrongHost::Unknown));
        assert_eq!(checked(Version::HTTP_11, "http://localhost/healthz", &[known]), Ok(()));
        assert_eq!(checked(Version::HTTP_11, "http://localhost/healthz", &["evil.example"]), Err(WrongHost::Unknown));
    }

    #[test]
    fn a_browser_says_whose_page_it_was() {
        let check = |headers: &[(&str, &str)], expected: bool| {
            let request =
                headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
            assert_eq!(is_cross_site(request.body(()).unwrap().headers()), expected, "{headers:?}");
        };
        check(&[("host", "localhost:7466")], false);
        check(&[("host", "localhost:7466"), ("origin", "http://localhost:7466")], false);
        check(&[("host", "localhost:7466"), ("origin", "http://localhost:3000")], true);
        check(&[("host", "localhost:7466"), ("origin", "https://localhost:7466")], true);
        check(&[("origin", "null")], true);
        check(&[("origin", "https://evil.example")], true);
        check(&[("sec-fetch-site", "none")], false);
        check(&[("sec-fetch-site", "same-origin")], false);
        check(&[("sec-fetch-site", "same-site")], true);
        check(&[("sec-fetch-site", "cross-site")], true);
        check(&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], true);
    }
}
