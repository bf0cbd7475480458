//! `Idempotency-Key`: what makes a repeated request the same events.

use http::HeaderMap;

use super::refusal::Refusal;

/// The header.
pub(super) const NAME: &str = "idempotency-key";
/// The longest key, in bytes.
const BYTES_MAX: usize = 256;
/// What stands between a request's key and the position of an event in it: no key has it, so that the key of no request
/// is that of another one's event.
const ELEMENT_MARK: char = '§';

/// The request's key.
///
/// # Errors
///
/// 400 where it is not one that can be told from others: it would be dropped, and the repeat taken for a new event.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(NAME).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refused = |what: &str| Err(Refusal::idempotency_key(what));
    if values.next().is_some() {
        return refused("is there more than once");
    }
    match value.to_str() {
        Ok("") => refused("is empty"),
        Ok(key) if key.len() > BYTES_MAX => refused(&format!("has more than {BYTES_MAX} bytes")),
        Ok(key) if key.contains(|c: char| c.is_ascii_control()) => refused("has a control character"),
        Ok(key) => Ok(Some(key)),
        Err(_) => refused("has a character beyond ASCII"),
    }
}

/// The key of an event of an array, from 0.
pub(super) fn of_element(key: &str, index: usize) -> String {
    format!("{key}{ELEMENT_MARK}{index}")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_can_be_told_from_others_is_a_key() {
        let check = |values: &[&[u8]], expected: Result<Option<&str>, &str>| {
            let values = values.iter().map(|value| HeaderValue::from_bytes(value).unwrap());
            let headers: HeaderMap = values.map(|value| (http::HeaderName::from_static(NAME), value)).collect();
            match (of(&headers), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(refusal), Err(expected)) => assert!(refusal.error.contains(expected), "{}", refusal.error),
                (found, _) => panic!("{:?}, not {expected:?}", found.map_err(|refusal| refusal.error)),
            }
        };
        check(&[], Ok(None));
        check(&[b"order 17"], Ok(Some("order 17")));
        check(&["a".repeat(256).as_bytes()], Ok(Some(&"a".repeat(256))));
        check(&["a".repeat(257).as_bytes()], Err("more than 256 bytes"));
        check(&[b""], Err("empty"));
        check(&[b"a", b"a"], Err("more than once"));
        check(&["Größe".as_bytes()], Err("beyond ASCII"));
        check(&[b"a\xff"], Err("beyond ASCII"));
        check(&[b"a\tb"], Err("control"));
    }
}
