//! A request as it stood on the wire, in a file.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Why a file holds no request.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RawError {
    /// Nothing between headers and body.
    #[error("there is no empty line between its headers and its body")]
    NoBody,
    /// Neither a header nor the first line.
    #[error("its line {0} is no header")]
    Header(usize),
    /// The body is not there as it was signed.
    #[error("its body is in chunks or compressed; save it as it is when decoded")]
    Encoded,
}

/// Reads a request's headers and body; whether its first line is there does not matter. Lines end with CR LF or LF.
///
/// # Errors
/// When it is no request, or its body is encoded.
pub fn raw_request(request: &[u8]) -> Result<(HeaderMap, Vec<u8>), RawError> {
    let mut headers = HeaderMap::new();
    let mut left = request;
    let mut number = 0;
    loop {
        let end = left.iter().position(|byte| *byte == b'\n').ok_or(RawError::NoBody)?;
        let line = left[..end].strip_suffix(b"\r").unwrap_or(&left[..end]);
        left = &left[end + 1..];
        number += 1;
        if line.is_empty() {
            break;
        }
        match header(line) {
            Some((name, value)) => drop(headers.append(name, value)),
            None if number == 1 => {}
            None => return Err(RawError::Header(number)),
        }
    }
    let identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    let is_encoded = ["transfer-encoding", "content-encoding"]
        .iter()
        .any(|name| headers.get(*name).is_some_and(|value| !identity(value)));
    if is_encoded { Err(RawError::Encoded) } else { Ok((headers, left.to_vec())) }
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Expected<'a> = (&'a [(&'a str, &'a str)], &'a str);

    fn check(request: &str, expected: Result<Expected<'_>, RawError>) {
        let found = raw_request(request.as_bytes());
        let expected = expected.map(|(headers, body)| {
            let header = |(name, value): &(&str, &str)| {
                (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
            };
            (headers.iter().map(header).collect::<HeaderMap>(), body.as_bytes().to_vec())
        });
        assert_eq!(found, expected, "{request:?}");
    }

    #[test]
    fn requests_in_files() {
        let headers: &[_] = &[("host", "h"), ("x-timestamp", "1")];
        check("POST /hooks HTTP/1.1\r\nHost: h\r\nX-Timestamp:1\r\n\r\n{}\n", Ok((headers, "{}\n")));
        check("Host: h\nX-Timestamp: 1\n\n{\n\n}", Ok((headers, "{\n\n}")));
        check("\n{}", Ok((&[], "{}")));
        check("Host: h\n{}", Err(RawError::NoBody));
        check("POST / HTTP/1.1\nHost: h\nnonsense\n\n{}", Err(RawError::Header(3)));
        check("Transfer-Encoding: chunked\n\n2\n{}\n0\n", Err(RawError::Encoded));
        check("Content-Encoding: gzip\n\n{}", Err(RawError::Encoded));
        check("Content-Encoding: identity\n\n{}", Ok((&[("content-encoding", "identity")], "{}")));
    }
}
