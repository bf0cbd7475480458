//! `CONNECT` of HTTP/1.1 (RFC 9110, section 9.3.6): after a 2xx the connection is the endpoint's.

use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Credentials, Destination, Refusal};

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Asks for a way to `destination`. The outer error means that the proxy spoke no more.
pub(super) async fn connect(
    stream: &mut TcpStream,
    destination: Destination<'_>,
    port: u16,
    credentials: Option<&Credentials>,
) -> io::Result<Result<(), Refusal>> {
    stream.write_all(&request(destination, port, credentials)).await?;
    let mut head = Vec::new();
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            // An endpoint of HTTP or TLS does not speak first.
            let rest = head.len() - end - 4;
            head.truncate(end);
            return Ok(judge(&String::from_utf8_lossy(&head), rest));
        }
        if head.len() > HEAD_BYTES_MAX {
            return Ok(Err(Refusal::Useless(format!("answered CONNECT with more than {HEAD_BYTES_MAX} bytes"))));
        }
    }
}

fn request(destination: Destination<'_>, port: u16, credentials: Option<&Credentials>) -> Vec<u8> {
    let authority = match destination {
        Destination::Address(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        Destination::Address(IpAddr::V4(address)) => format!("{address}:{port}"),
        Destination::Name(name) => format!("{name}:{port}"),
    };
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(Credentials { user, password }) = credentials {
        let pair = [user.as_bytes(), b":", password.expose()].concat();
        request.extend_from_slice(format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(pair)).as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// What the head of an answer means; `rest` bytes came behind it.
fn judge(head: &str, rest: usize) -> Result<(), Refusal> {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse::<u16>().ok());
    match status {
        None => Err(Refusal::Useless("does not speak HTTP".to_owned())),
        Some(200..=299) if rest > 0 => Err(Refusal::Useless("said more than it was asked after CONNECT".to_owned())),
        Some(200..=299) => Ok(()),
        Some(407) => Err(Refusal::Useless(
            "answered 407 to CONNECT; see `proxy_user` and `proxy_password` in [egress]".to_owned(),
        )),
        Some(status) => match lines.find_map(fault_of_endpoint) {
            Some(what) => Err(Refusal::OfEndpoint(what.to_owned())),
            None => Err(Refusal::Unled(format!("answered {status} to CONNECT"))),
        },
    }
}

/// What a header says of the endpoint: `Proxy-Status` (RFC 9209) and Squid's own.
fn fault_of_endpoint(line: &str) -> Option<&'static str> {
    let (name, value) = line.split_once(':')?;
    let said = if name.eq_ignore_ascii_case("proxy-status") {
        // The proxy that is nearest to here speaks last.
        value.rsplit([';', ',']).find_map(|part| part.trim().strip_prefix("error="))?
    } else if name.eq_ignore_ascii_case("x-squid-error") {
        value.split_whitespace().next()?
    } else {
        return None;
    };
    match said {
        "connection_refused" => Some("the endpoint refuses the connection"),
        "connection_timeout" => Some("the endpoint does not answer in time"),
        "destination_ip_unroutable" | "destination_unavailable" | "connection_terminated" | "ERR_CONNECT_FAIL" => {
            Some("the endpoint can't be reached")
        }
        "dns_error" | "dns_timeout" | "destination_not_found" | "ERR_DNS_FAIL" => {
            Some("the endpoint's name leads nowhere")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn check(head: &str, expected: &str) {
        let found = match judge(&head.replace('\n', "\r\n"), 0) {
            Ok(()) => "led".to_owned(),
            Err(Refusal::Useless(what)) => format!("useless: {what}"),
            Err(Refusal::Unled(what)) => format!("unled: {what}"),
            Err(Refusal::OfEndpoint(what)) => format!("endpoint: {what}"),
        };
        assert!(found.starts_with(expected), "{found}\nfor\n{head}");
    }

    #[test]
    fn two_hundreds_lead() {
        check("HTTP/1.1 200 Connection established", "led");
        check("HTTP/1.0 200", "led");
        check("HTTP/1.1 299 \nvia: x", "led");
        assert!(judge("HTTP/1.1 200 OK", 1).is_err(), "an endpoint does not speak first");
    }

    #[test]
    fn everything_else_is_the_proxy_s_fault() {
        for status in [100, 301, 400, 403, 404, 405, 429, 500, 502, 503, 504] {
            check(&format!("HTTP/1.1 {status} No\nserver: squid"), &format!("unled: answered {status}"));
        }
        check("HTTP/1.1 407 Proxy Authentication Required", "useless: answered 407");
        for nonsense in ["", "SSH-2.0-OpenSSH", "HTTP/2 200", "HTTP/1.1", "HTTP/1.1 abc", "HTTP/1.1 2é0 "] {
            check(nonsense, "useless: does not speak HTTP");
        }
    }

    #[test]
    fn unless_it_says_that_it_is_the_endpoint_s() {
        check("HTTP/1.1 503 No\nX-Squid-Error: ERR_CONNECT_FAIL 111", "endpoint: the endpoint can't be reached");
        check("HTTP/1.1 503 No\nX-Squid-Error: ERR_CANNOT_FORWARD 0", "unled: answered 503");
        check("HTTP/1.1 502 No\nProxy-Status: envoy; error=connection_refused", "endpoint: the endpoint refuses");
        check("HTTP/1.1 502 No\nproxy-status: a; error=connection_refused, b; error=proxy_internal_error", "unled: ");
    }

    #[test]
    fn the_request_names_the_address() {
        let check = |destination, expected: &str| {
            assert_eq!(String::from_utf8(request(destination, 443, None)).unwrap(), expected);
        };
        let v6 = Destination::Address("2606:4700::1111".parse().unwrap());
        check(v6, "CONNECT [2606:4700::1111]:443 HTTP/1.1\r\nHost: [2606:4700::1111]:443\r\n\r\n");
        check(Destination::Name("a.net"), "CONNECT a.net:443 HTTP/1.1\r\nHost: a.net:443\r\n\r\n");
        let credentials = Credentials { user: "Aladdin".to_owned(), password: Secret::new("open sesame") };
        let request = request(Destination::Name("a.net"), 443, Some(&credentials));
        assert!(String::from_utf8(request).unwrap().contains("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"));
    }
}
