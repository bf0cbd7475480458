//! Pure: whether a URL lies within one that the operator allows.

use url::Url;

/// Whether `url` is `prefix` or lies below it: the same scheme, host and port, and a path that goes on where the prefix's
/// ends, in whole segments. A path that would climb out again where a server decodes it is outside.
pub(super) fn lies_within(prefix: &Url, url: &Url) -> bool {
    prefix.scheme() == url.scheme()
        && prefix.host() == url.host()
        && prefix.port_or_known_default() == url.port_or_known_default()
        && url.path().strip_prefix(prefix.path()).is_some_and(|rest| {
            (prefix.path().ends_with('/') || rest.is_empty() || rest.starts_with('/')) && !climbs(url.path())
        })
}

/// Whether a segment of the path is `..` for whoever decodes it, once or several times.
fn climbs(path: &str) -> bool {
    let mut decoded = path.to_owned();
    loop {
        let once = [("%25", "%"), ("%2e", "."), ("%2E", "."), ("%2f", "/"), ("%2F", "/"), ("%5c", "\\"), ("%5C", "\\")]
            .iter()
            .fold(decoded.clone(), |path, (encoded, plain)| path.replace(encoded, plain));
        // Each round but the last makes it shorter.
        if once == decoded {
            return decoded.split(['/', '\\']).any(|segment| segment == ".." || segment.starts_with("..;"));
        }
        decoded = once;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(prefix: &str, url: &str, expected: bool) {
        let parsed = |text: &str| Url::parse(text).unwrap();
        assert_eq!(lies_within(&parsed(prefix), &parsed(url)), expected, "{url} in {prefix}");
    }

    #[test]
    fn the_same_origin_and_whole_segments() {
        check("https://api.example.com", "https://api.example.com/anything?at=all", true);
        check("https://api.example.com", "https://API.example.com:443/", true);
        check("https://api.example.com", "http://api.example.com/", false);
        check("https://api.example.com", "https://api.example.com:8443/", false);
        check("https://api.example.com", "https://api.example.com.evil.net/", false);
        check("https://api.example.com", "https://api.example.com@evil.net/", false);
        check("https://api.example.com", "https://api.example.com./", false);
        check("https://a.net/v1", "https://a.net/v1", true);
        check("https://a.net/v1", "https://a.net/v1/rates", true);
        check("https://a.net/v1", "https://a.net/v10", false);
        check("https://a.net/v1/", "https://a.net/v1", false);
        check("https://a.net/v1/", "https://a.net/v1/rates", true);
        check("http://[::1]:8080/", "http://[0:0:0:0:0:0:0:1]:8080/x", true);
    }

    #[test]
    fn no_way_up() {
        for url in [
            "https://a.net/v1/../admin",
            "https://a.net/v1/%2e%2e/admin",
            "https://a.net/v1/..%2fadmin",
            "https://a.net/v1/..%5Cadmin",
            "https://a.net/v1/%252e%252e%252fadmin",
            "https://a.net/v1/..;/admin",
            "https://a.net/v1\\..\\admin",
        ] {
            check("https://a.net/v1", url, false);
        }
        check("https://a.net/v1", "https://a.net/v1/group%2Fname/a..b", true);
    }

    proptest! {
        #[test]
        fn what_a_server_makes_of_it_never_leaves_the_prefix(tail in "[/\\\\.%a-e0-9;]{0,24}") {
            let (prefix, url) = (Url::parse("https://a.net/v1/").unwrap(), Url::parse(&format!("https://a.net/v1/{tail}")));
            let Ok(url) = url else { return Ok(()) };
            if lies_within(&prefix, &url) {
                let decoded = percent_encoding::percent_decode_str(url.path()).decode_utf8_lossy().replace('\\', "/");
                let reached = Url::parse(&format!("https://a.net{decoded}")).unwrap();
                prop_assert!(reached.path().starts_with("/v1/"), "{url} reaches {reached}");
            }
        }
    }
}
