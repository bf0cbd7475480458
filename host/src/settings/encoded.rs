//! Whether the user and the password of a URL end where its author meant them to.
//!
//! A URL's authority ends at the first `/`, `?` or `#` (RFC 3986 §3.2). A password with one of these in it, unencoded, is
//! cut in two there: what stands before it is taken for a host and a port, and what follows for a path, which is no
//! secret and is printed. So such a text is refused before anything takes it apart.

use url::Url;

/// What the URL of a bus begins with.
const BUS_SCHEMES: [&str; 8] = ["nats", "tls", "ws", "wss", "redis", "rediss", "postgres", "postgresql"];

/// Credentials that are not percent-encoded. Never repeats the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "has an `@` behind a `/`, `?`, `#` or another `@`, so that nobody can tell where its password ends; percent-encode \
     these in a user or password (write %2F for `/`, %3F for `?`, %23 for `#`, %40 for `@`), and any other `@` too"
)]
pub struct Unencoded;

/// A URL of a bus, or a list of them with commas between. Nothing behind its host needs an `@`.
///
/// # Errors
/// When part of a user or password could be taken for something else.
pub fn check_bus(text: &str) -> Result<(), Unencoded> {
    servers(text).try_for_each(|server| {
        let (authority, rest) = authority(server, &['/', '?', '#']);
        if rest.contains('@') || authority.matches('@').count() > 1 { Err(Unencoded) } else { Ok(()) }
    })
}

/// A URL of `http` or `https`. An `@` behind the host is common there (`/@name`), and taken where what stands before it
/// can only be a host's name: whole, and without the colon that comes before a password as well as before a port.
///
/// # Errors
/// When part of a user or password could be taken for something else.
pub fn check_http(text: &str) -> Result<(), Unencoded> {
    // Here, a backslash ends the authority too (WHATWG URL §4.4).
    let (authority, rest) = authority(text, &['/', '\\', '?', '#']);
    let is_host = |host: &str| host.contains('.') || host == "localhost" || host.starts_with('[');
    let is_sure = authority.contains('@') || (is_host(authority) && !authority.contains(':'));
    let is_sure = is_sure || (authority.starts_with('[') && authority.contains(']'));
    if authority.matches('@').count() > 1 || (rest.contains('@') && !is_sure) { Err(Unencoded) } else { Ok(()) }
}

/// Reads a URL of `http` or `https`, or says as a predicate why it is none, without repeating the text.
///
/// # Errors
/// When it is no URL, or [`check_http`] refuses it.
pub fn http_url(text: &str) -> Result<Url, String> {
    check_http(text).map_err(|error| error.to_string())?;
    Url::parse(text).map_err(|error| format!("is not a URL ({error})"))
}

/// This process's arguments.
pub fn arguments() -> impl Iterator<Item = String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned())
}

/// The text without those of `arguments` that are a URL which may hold a password: for messages of others that repeat arguments.
pub fn without_credentials(text: &str, arguments: impl Iterator<Item = String>) -> String {
    arguments.fold(text.to_owned(), |text, argument| {
        let url = argument.split_once('=').map_or(
            &*argument,
            |(option, value)| {
                if option.starts_with("--") { value } else { &argument }
            },
        );
        match url.split_once("://") {
            Some((scheme, rest)) if rest.contains(['@', '?']) => text.replace(url, &format!("{scheme}://…")),
            _ => text,
        }
    })
}

/// The URLs of a list: a comma ends one where another scheme follows.
fn servers(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let ends = text.match_indices(',').map(|(at, _)| at);
        let end = ends.into_iter().find(|at| begins_with_scheme(&text[at + 1..]));
        match end {
            Some(end) => {
                rest = Some(&text[end + 1..]);
                Some(&text[..end])
            }
            None => Some(text),
        }
    })
}

fn begins_with_scheme(text: &str) -> bool {
    text.trim_start().split_once("://").is_some_and(|(scheme, _)| BUS_SCHEMES.contains(&&*scheme.to_ascii_lowercase()))
}

/// The authority, and what follows it.
fn authority<'a>(text: &'a str, ends: &[char]) -> (&'a str, &'a str) {
    // A scheme without `//` is one as well, where the scheme is `http`.
    let text = text.split_once(':').map_or(text, |(_, rest)| rest).trim_start_matches(['/', '\\']);
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_of_a_bus_ends_at_the_only_at() {
        let check = |text: &str, expected: bool| assert_eq!(check_bus(text).is_ok(), expected, "{text}");
        check("nats://h:4222", true);
        check("nats://u:pw@h:4222", true);
        check("nats://u:p%2F%40w@h", true);
        check("postgres://u@h/d?options=-c%40", true);
        check("nats://u:12/RET@h", false);
        check("nats://12/RET@h", false);
        check("nats://u:12?RET@h", false);
        check("redis://:12#RET@h/0", false);
        check("postgres://u:p@w@h/d", false);
        check("postgres:///d?host=/run&user=a@b", false);
        check("nats://u:a://b@h", false);
        check("nats://u:pw@a:1,nats://u:pw@b:2", true);
        check("nats://u:pw@a:1, tls://u:12/RET@b:2", false);
        check("nats://u:p,x/y@h", false);
        check("postgres://u:pw@a:1,b:2/d", true);
    }

    #[test]
    fn a_path_of_http_may_have_one_where_nothing_can_be_meant_otherwise() {
        let check = |text: &str, expected: bool| assert_eq!(check_http(text).is_ok(), expected, "{text}");
        check("https://example.com/@team/hook?to=a@b.c", true);
        check("https://localhost/@team", true);
        check("https://[::1]:8080/@team", true);
        check("https://example.com:8443/%40team", true);
        check("https://u:pw@example.com/@team", true);
        check("https://u:p@w@example.com/", false);
        check("https://u:12/RET@example.com/", false);
        check("https://u:12\\RET@example.com/", false);
        check("https:u:12/RET@example.com/", false);
        check("https://u:12?RET@example.com/", false);
        check("https://u:12#RET@example.com/", false);
        check("https://tok/en@example.com/", false);
    }

    #[test]
    fn credentials_are_cut_out_of_what_others_say() {
        let check = |argument: &str, text: &str, expected: &str| {
            assert_eq!(without_credentials(text, std::iter::once(argument.to_owned())), expected);
        };
        check("nats://u:1'2/RET@h", "argument 'nats://u:1'2/RET@h' found", "argument 'nats://…' found");
        check("--to=http://u:p=w@h/x", "--to=http://u:p=w@h/x\n\nUsage: a\n", "--to=http://…\n\nUsage: a\n");
        check("http://u:p=w@h/x", "'http://u:p=w@h/x'", "'http://…'");
        check("postgres://h/d?password=x&RET", "a postgres://h/d?password=x&RET", "a postgres://…");
        check("https://example.com", "'https://example.com' a@b", "'https://example.com' a@b");
    }
}
