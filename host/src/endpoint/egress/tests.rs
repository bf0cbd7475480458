use proptest::prelude::*;

use super::*;

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|net| net.parse().unwrap()).collect()
}

/// `expected` is the network an address is refused for, or `ok`.
fn check_with(allow: &[&str], address: &str, expected: &str) {
    let found = match vet(address.parse().unwrap(), &nets(allow)) {
        Ok(()) => "ok".to_owned(),
        Err(denied) => denied.network.to_string(),
    };
    assert_eq!(found, expected, "{address} with allow {allow:?}");
}

fn check(address: &str, expected: &str) {
    check_with(&[], address, expected);
}

#[test]
fn public_addresses_pass() {
    for address in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450:4001::1",
        "2001:4860:4860::8888",
        "2001:200::1",
        "2003::1",
        "2620:4f:8000::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "2a00::5efe:8.8.8.8",
    ] {
        check(address, "ok");
    }
}

#[test]
fn ipv4_inside_is_refused() {
    check("0.0.0.0", "0.0.0.0/8");
    check("0.255.255.255", "0.0.0.0/8");
    check("10.0.0.0", "10.0.0.0/8");
    check("10.255.255.255", "10.0.0.0/8");
    check("100.64.0.0", "100.64.0.0/10");
    check("100.100.100.200", "100.64.0.0/10");
    check("100.127.255.255", "100.64.0.0/10");
    check("127.0.0.1", "127.0.0.0/8");
    check("127.255.255.254", "127.0.0.0/8");
    check("168.63.129.16", "168.63.129.16/32");
    check("169.254.169.254", "169.254.0.0/16");
    check("172.16.0.0", "172.16.0.0/12");
    check("172.31.255.255", "172.16.0.0/12");
    check("192.0.0.192", "192.0.0.0/24");
    check("192.0.2.1", "192.0.2.0/24");
    check("192.88.99.1", "192.88.99.0/24");
    check("192.168.0.0", "192.168.0.0/16");
    check("192.168.255.255", "192.168.0.0/16");
    check("198.18.0.0", "198.18.0.0/15");
    check("198.19.255.255", "198.18.0.0/15");
    check("198.51.100.7", "198.51.100.0/24");
    check("203.0.113.7", "203.0.113.0/24");
    check("224.0.0.1", "224.0.0.0/4");
    check("239.255.255.255", "224.0.0.0/4");
    check("240.0.0.1", "240.0.0.0/4");
    check("255.255.255.254", "240.0.0.0/4");
    check("255.255.255.255", "255.255.255.255/32");
}

#[test]
fn ipv6_inside_is_refused() {
    check("::", "::/128");
    check("::1", "::1/128");
    check("fc00::1", "fc00::/7");
    check("fd00:ec2::254", "fc00::/7");
    check("fe80::1", "fe80::/10");
    check("febf::1", "fe80::/10");
    check("fec0::1", "fec0::/10");
    check("ff02::1", "ff00::/8");
    check("2001:db8::1", "2001:db8::/32");
    check("3fff:fff::1", "3fff::/20");
    check("2001::1", "2001::/32");
    check("2001:2::1", "2001::/23");
    check("2001:10::1", "2001::/23");
    check("2001:20::1", "2001::/23");
    check("100::1", "100::/64");
    check("5f00::1", "5f00::/16");
    check("4000::1", "::/0");
    check("200::1", "::/0");
}

#[test]
fn ipv4_within_ipv6_is_decoded() {
    check("::ffff:127.0.0.1", "127.0.0.0/8");
    check("::ffff:a9fe:a9fe", "169.254.0.0/16");
    check("::127.0.0.1", "::/96");
    check("::8.8.8.8", "::/96");
    check("::ffff:0:127.0.0.1", "::ffff:0:0:0/96");
    check("64:ff9b::10.0.0.1", "10.0.0.0/8");
    check("64:ff9b:1::8.8.8.8", "64:ff9b:1::/48");
    check("2002:7f00:1::1", "127.0.0.0/8");
    check("2002:a9fe:a9fe::", "169.254.0.0/16");
    check("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::/32");
    check("2a00::5efe:192.168.0.1", "192.168.0.0/16");
    check("2a00::200:5efe:10.1.2.3", "10.0.0.0/8");
    check("2002:808:808::5efe:10.1.2.3", "10.0.0.0/8");
    check("fe80::5efe:8.8.8.8", "fe80::/10");
}

#[test]
fn allow_opens_what_it_names_and_no_more() {
    check_with(&["127.0.0.0/8"], "127.0.0.1", "ok");
    check_with(&["127.0.0.0/8"], "::ffff:127.0.0.1", "ok");
    check_with(&["10.0.0.0/8"], "64:ff9b::10.0.0.1", "ok");
    check_with(&["127.0.0.0/8"], "::1", "::1/128");
    check_with(&["127.0.0.0/8"], "10.0.0.1", "10.0.0.0/8");
    check_with(&["127.0.0.0/8"], "::127.0.0.1", "::/96");
    check_with(&["::1/128"], "::1", "ok");
    check_with(&["::1/128"], "127.0.0.1", "127.0.0.0/8");
    check_with(&["10.1.2.3/32"], "10.1.2.4", "10.0.0.0/8");
    check_with(&["fd00::/8"], "fd00::1", "ok");
    check_with(&["64:ff9b:1::/48"], "64:ff9b:1::10.0.0.1", "ok");
}

#[test]
fn the_refusal_says_what_to_do() {
    let denied = vet("169.254.169.254".parse().unwrap(), &[]).unwrap_err().to_string();
    for part in ["169.254.169.254", "169.254.0.0/16", "metadata", "`[egress] allow`"] {
        assert!(denied.contains(part), "{denied}");
    }
}

/// Every way IPv6 has to mean an IPv4 address.
fn embeddings(inner: Ipv4Addr) -> Vec<Ipv6Addr> {
    let [a, b, c, d] = inner.octets();
    let [high, low] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    [
        [0, 0, 0, 0, 0, 0xffff, high, low],
        [0, 0, 0, 0, 0, 0, high, low],
        [0, 0, 0, 0, 0xffff, 0, high, low],
        [0x64, 0xff9b, 0, 0, 0, 0, high, low],
        [0x64, 0xff9b, 1, 0, 0, 0, high, low],
        [0x2002, high, low, 0, 0, 0, 0, 1],
        [0x2001, 0, high, low, 0, 0, !high, !low],
        [0x2a00, 1, 2, 3, 0, 0x5efe, high, low],
        [0x2a00, 1, 2, 3, 0x200, 0x5efe, high, low],
    ]
    .map(Ipv6Addr::from)
    .to_vec()
}

/// Ways to write one part of an IPv4 address: decimal, octal, hexadecimal, with zeros before it.
fn part(value: u32, way: u8) -> String {
    match way % 5 {
        0 => format!("{value}"),
        1 => format!("0{value:o}"),
        2 => format!("0x{value:x}"),
        3 => format!("0X{value:08X}"),
        _ => format!("000{value:o}"),
    }
}

/// An address as `inet_aton` reads it: in one to four parts, the last of which takes what is left.
fn written(address: Ipv4Addr, parts: usize, ways: [u8; 4], dot: bool) -> String {
    let [a, b, c, d] = address.octets().map(u32::from);
    let parts: Vec<u32> = match parts {
        1 => vec![u32::from(address)],
        2 => vec![a, b << 16 | c << 8 | d],
        3 => vec![a, b, c << 8 | d],
        _ => vec![a, b, c, d],
    };
    let text: Vec<_> = parts.iter().zip(ways).map(|(value, way)| part(*value, way)).collect();
    text.join(".") + if dot { "." } else { "" }
}

/// The address that a URL's host comes to, where it is one.
fn host_of(host: &str) -> Option<IpAddr> {
    match url::Url::parse(&format!("http://{host}:8080/")).ok()?.host()? {
        url::Host::Ipv4(address) => Some(address.into()),
        url::Host::Ipv6(address) => Some(address.into()),
        url::Host::Domain(_) => None,
    }
}

proptest! {
    /// Whatever the notation: the guard sees the address that would be connected to.
    #[test]
    fn no_notation_gets_a_refused_address_through(
        which in 0..DENIED_V4.len(),
        host in any::<u32>(),
        parts in 1..=4usize,
        ways in any::<[u8; 4]>(),
        dot in any::<bool>(),
        percent in any::<bool>(),
    ) {
        let (network, _) = DENIED_V4[which];
        let inner = Ipv4Addr::from(u32::from(network.network()) | (host & u32::from(network.hostmask())));
        let mut text = written(inner, parts, ways, dot);
        if percent {
            text = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        }
        prop_assert_eq!(host_of(&text), Some(inner.into()), "{}", text);
        prop_assert!(vet(inner.into(), &[]).is_err());
    }

    #[test]
    fn no_notation_of_an_embedding_gets_through(which in 0..DENIED_V4.len(), host in any::<u32>(), upper in any::<bool>()) {
        let (network, _) = DENIED_V4[which];
        let inner = Ipv4Addr::from(u32::from(network.network()) | (host & u32::from(network.hostmask())));
        for address in embeddings(inner) {
            let text = format!("[{address}]");
            let long = address.segments().map(|segment| format!("{segment:04x}")).join(":");
            let text = if upper { format!("[{}]", long.to_uppercase()) } else { text };
            let found = host_of(&text);
            prop_assert_eq!(found, Some(address.into()), "{}", text);
            prop_assert!(vet(address.into(), &[]).is_err(), "{}", text);
        }
    }

    #[test]
    fn no_embedding_gets_a_refused_address_through(which in 0..DENIED_V4.len(), host in any::<u32>()) {
        let (network, _) = DENIED_V4[which];
        let inner = Ipv4Addr::from(u32::from(network.network()) | (host & u32::from(network.hostmask())));
        prop_assert!(vet(inner.into(), &[]).is_err());
        for address in embeddings(inner) {
            prop_assert!(vet(address.into(), &[]).is_err(), "{address}");
        }
    }

    #[test]
    fn a_mapped_address_is_judged_as_the_one_in_it(inner in any::<u32>()) {
        let inner = Ipv4Addr::from(inner);
        let refused = |address: IpAddr| vet(address, &[]).err().map(|denied| denied.network);
        prop_assert_eq!(refused(inner.into()), refused(inner.to_ipv6_mapped().into()));
    }

    #[test]
    fn nothing_outside_global_unicast_passes_by_itself(address in any::<u128>()) {
        let address = Ipv6Addr::from(address);
        let carries_v4 = MAPPED.contains(&address) || NAT64.contains(&address);
        prop_assert!(carries_v4 || GLOBAL_UNICAST.contains(&address) || vet(address.into(), &[]).is_err());
    }

    #[test]
    fn allowed_addresses_always_pass(address in any::<u128>(), prefix in 0..=128u8) {
        let address = IpAddr::from(Ipv6Addr::from(address));
        let allow = IpNet::new(address, prefix).unwrap();
        prop_assert_eq!(vet(address, &[allow]), Ok(()));
    }
}
