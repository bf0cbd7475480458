//! SOCKS 5 (RFC 1928) with a user name and password (RFC 1929).

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Credentials, Destination, Refusal};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const PASSWORD: u8 = 2;
const PASSWORD_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Asks for a way to `destination`. The outer error means that the proxy spoke no more.
pub(super) async fn connect(
    stream: &mut TcpStream,
    destination: Destination<'_>,
    port: u16,
    credentials: Option<&Credentials>,
) -> io::Result<Result<(), Refusal>> {
    let useless = |what: &str| Ok(Err(Refusal::Useless(what.to_owned())));
    if let Destination::Name(name) = destination
        && name.len() > usize::from(u8::MAX)
    {
        return Ok(Err(Refusal::OfEndpoint("its name is longer than SOCKS has room for".to_owned())));
    }
    let method = if credentials.is_some() { PASSWORD } else { NO_AUTHENTICATION };
    stream.write_all(&[VERSION, 1, method]).await?;
    let [version, chosen] = read(stream).await?;
    if version != VERSION {
        return useless("does not speak SOCKS 5");
    }
    if chosen != method {
        return useless("wants another way to log in; see `proxy_user` and `proxy_password` in [egress]");
    }
    if let Some(credentials) = credentials {
        stream.write_all(&login(credentials)).await?;
        let [_, refused] = read(stream).await?;
        if refused != 0 {
            return useless("refuses `proxy_user` and `proxy_password` of [egress]");
        }
    }
    stream.write_all(&request(destination, port)).await?;
    let [_, reply, _, kind] = read(stream).await?;
    // The address it is bound to says nothing, and has to be read to its end.
    match kind {
        IPV4 => drop(read::<6>(stream).await?),
        IPV6 => drop(read::<18>(stream).await?),
        NAME => {
            let mut rest = vec![0; usize::from(stream.read_u8().await?) + 2];
            stream.read_exact(&mut rest).await?;
        }
        _ => return useless("does not speak SOCKS 5"),
    }
    Ok(judge(reply))
}

/// What a reply means (RFC 1928, section 6). The proxy tells its own faults from the endpoint's.
fn judge(reply: u8) -> Result<(), Refusal> {
    match reply {
        0 => Ok(()),
        3 => Err(Refusal::OfEndpoint("no route to the endpoint's network".to_owned())),
        4 => Err(Refusal::OfEndpoint("no route to the endpoint's host".to_owned())),
        5 => Err(Refusal::OfEndpoint("the endpoint refuses the connection".to_owned())),
        6 => Err(Refusal::OfEndpoint("the endpoint does not answer in time".to_owned())),
        2 => Err(Refusal::Unled("does not allow the connection".to_owned())),
        8 => Err(Refusal::Unled("knows no addresses of this kind".to_owned())),
        other => Err(Refusal::Unled(format!("failed with SOCKS reply {other}"))),
    }
}

fn login(Credentials { user, password }: &Credentials) -> Vec<u8> {
    // The settings keep both within 255 bytes.
    let part = |bytes: &[u8]| [&[u8::try_from(bytes.len()).unwrap_or(u8::MAX)], bytes].concat();
    [vec![PASSWORD_VERSION], part(user.as_bytes()), part(password.expose())].concat()
}

fn request(destination: Destination<'_>, port: u16) -> Vec<u8> {
    let mut request = vec![VERSION, CONNECT, 0];
    match destination {
        Destination::Address(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Destination::Address(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        Destination::Name(name) => {
            request.push(NAME);
            request.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            request.extend(name.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    request
}

async fn read<const BYTES: usize>(stream: &mut TcpStream) -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_as_the_rfc_has_them() {
        let v4 = Destination::Address("93.184.215.14".parse().unwrap());
        assert_eq!(request(v4, 443), [5, 1, 0, 1, 93, 184, 215, 14, 1, 187]);
        let v6 = request(Destination::Address("2606:4700::1111".parse().unwrap()), 80);
        assert_eq!((v6.len(), &v6[..6], &v6[20..]), (22, &[5, 1, 0, 4, 0x26, 6][..], &[0, 80][..]));
        assert_eq!(request(Destination::Name("a.net"), 443), [&[5, 1, 0, 3, 5][..], b"a.net", &[1, 187]].concat());
    }

    #[test]
    fn replies_tell_whose_fault_it_is() {
        let whose = |reply| match judge(reply) {
            Ok(()) => "none",
            Err(Refusal::OfEndpoint(_)) => "endpoint",
            Err(Refusal::Unled(_) | Refusal::Useless(_)) => "proxy",
        };
        let found = (0..=9).map(whose).collect::<Vec<_>>();
        let expected =
            ["none", "proxy", "proxy", "endpoint", "endpoint", "endpoint", "endpoint", "proxy", "proxy", "proxy"];
        assert_eq!(found, expected);
    }
}
