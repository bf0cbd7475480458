//! Several servers in one URL, as the drivers of NATS and of others take them.

/// Most servers of one URL.
pub(super) const SERVERS_MAX: usize = 16;

/// Each server of `text` as a URL of its own: `nats://a,nats://b:1` and `nats://a,b:1` alike. What stands before the hosts
/// of a list, scheme and credentials, goes for each of them; what stands behind, too. At least one.
pub(super) fn servers(text: &str) -> Vec<String> {
    let mut servers = Vec::new();
    for part in parts(text) {
        let Some((scheme, rest)) = part.split_once("://") else {
            servers.push(part.to_owned());
            continue;
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // A comma in a password separates nothing.
        let (credentials, hosts) = authority
            .rsplit_once('@')
            .map_or(("", authority), |(_, hosts)| authority.split_at(authority.len() - hosts.len()));
        let hosts = hosts.split(',').map(str::trim).filter(|host| !host.is_empty());
        let before = servers.len();
        servers.extend(hosts.map(|host| format!("{scheme}://{credentials}{host}{path}")));
        if servers.len() == before {
            servers.push(part.to_owned());
        }
    }
    servers
}

/// Split where another scheme begins behind a comma.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text.trim());
    while let Some(at) = next_part(rest) {
        parts.push(rest[..at].trim());
        rest = rest[at + 1..].trim_start();
    }
    parts.push(rest);
    parts
}

fn next_part(text: &str) -> Option<usize> {
    text.match_indices(',').map(|(at, _)| at).find(|at| {
        let after = text[at + 1..].trim_start();
        after.find("://").is_some_and(|end| end > 0 && after[..end].bytes().all(|byte| byte.is_ascii_alphanumeric()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_a_url_of_its_own() {
        let check = |text: &str, expected: &[&str]| assert_eq!(servers(text), expected, "{text}");
        check("nats://a:4222", &["nats://a:4222"]);
        check("nats://a,nats://b:1", &["nats://a", "nats://b:1"]);
        check(" nats://a , tls://b:1 ", &["nats://a", "tls://b:1"]);
        check("nats://a,b:1, c", &["nats://a", "nats://b:1", "nats://c"]);
        check("nats://u:p@a,b", &["nats://u:p@a", "nats://u:p@b"]);
        check("nats://u:p,w@a,nats://u:p,w@b", &["nats://u:p,w@a", "nats://u:p,w@b"]);
        check("nats://[::1]:1,[::2]:2", &["nats://[::1]:1", "nats://[::2]:2"]);
        check("nats://a,", &["nats://a"]);
        check("", &[""]);
        check("nats://", &["nats://"]);
        check("a,b", &["a,b"]);
    }
}
