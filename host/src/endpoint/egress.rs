//! The one guard between an endpoint's URL and the network inside.
//!
//! Everything that is not globally reachable is refused (IANA's special-purpose registries, RFC 6890), in every form in
//! which IPv6 can carry an IPv4 address, unless `[egress] allow` names it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An address that webhooks may not reach.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{address} lies in {network} ({what}), which webhooks may not reach; if it is meant, add it to `[egress] allow`"
)]
pub struct Denied {
    /// The address as it was asked for.
    pub address: IpAddr,
    /// The network that it, or the IPv4 address inside it, falls in.
    pub network: IpNet,
    /// What that network is.
    pub what: &'static str,
}

/// Whether a webhook may be sent to `address`.
///
/// `allow` is matched with the address and with the IPv4 address inside it.
pub fn vet(address: IpAddr, allow: &[IpNet]) -> Result<(), Denied> {
    let found = match address {
        IpAddr::V4(v4) => denied_v4(v4, allow),
        IpAddr::V6(v6) => denied_v6(v6, allow),
    };
    found.map_or(Ok(()), |(network, what)| Err(Denied { address, network, what }))
}

type Found = (IpNet, &'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// The first that contains an address names it, so the narrow ones come first.
const DENIED_V4: &[(Ipv4Net, &str)] = &[
    (v4(0, 0, 0, 0, 8), "this network"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared by a carrier's NAT"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    // A public address that means the platform's own service inside every Azure network.
    (v4(168, 63, 129, 16, 32), "a cloud's platform service"),
    (v4(169, 254, 0, 0, 16), "link-local, where clouds keep their metadata"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "protocol assignments"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 88, 99, 0, 24), "6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "benchmarks"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// As in [`DENIED_V4`]; the last one stands for all that was never assigned.
const DENIED_V6: &[(Ipv6Net, &str)] = &[
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "IPv4-compatible"),
    (v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), "IPv4-translated"),
    // Where in it the IPv4 address stands is the network's own choice (RFC 6052), so none can be vetted.
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "local-use NAT64"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "discard-only"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "Teredo"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "protocol assignments"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation"),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "segment routing"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "unique local"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "site-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];

/// All that is assigned as globally reachable (RFC 4291).
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
/// The rest, under one name.
const EVERYTHING: Ipv6Net = v6([0, 0, 0, 0, 0, 0, 0, 0], 0);
const MAPPED: Ipv6Net = v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96);
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

fn allowed(address: IpAddr, allow: &[IpNet]) -> bool {
    allow.iter().any(|network| network.contains(&address))
}

fn denied_v4(address: Ipv4Addr, allow: &[IpNet]) -> Option<Found> {
    if allowed(address.into(), allow) {
        return None;
    }
    let (network, what) = DENIED_V4.iter().find(|(network, _)| network.contains(&address))?;
    Some(((*network).into(), what))
}

fn denied_v6(address: Ipv6Addr, allow: &[IpNet]) -> Option<Found> {
    if allowed(address.into(), allow) {
        return None;
    }
    // These two are nothing but the IPv4 address in them.
    if MAPPED.contains(&address) || NAT64.contains(&address) {
        return denied_v4(last_four(address), allow);
    }
    if let Some((network, what)) = DENIED_V6.iter().find(|(network, _)| network.contains(&address)) {
        return Some(((*network).into(), what));
    }
    if !GLOBAL_UNICAST.contains(&address) {
        return Some((EVERYTHING.into(), "not global unicast"));
    }
    tunnelled(address).into_iter().flatten().find_map(|inner| denied_v4(inner, allow))
}

/// The IPv4 addresses to which tunnels of the host may carry a packet for a global IPv6 address.
fn tunnelled(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let [_, high, low, _, identifier, isatap, ..] = address.segments();
    let six_to_four = SIX_TO_FOUR.contains(&address).then(|| joined(high, low));
    // RFC 5214: the interface identifier is 0000:5efe or 0200:5efe, then the address.
    let isatap = (matches!(identifier, 0 | 0x200) && isatap == 0x5efe).then(|| last_four(address));
    [six_to_four, isatap]
}

fn last_four(address: Ipv6Addr) -> Ipv4Addr {
    let [.., high, low] = address.segments();
    joined(high, low)
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests;
