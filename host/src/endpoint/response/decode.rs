//! Pure: a compressed body's beginning, as text that can be read. Nobody asks for compression; some servers do it all the same.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// The beginning of a body that was sent in the content coding `coding`, `max` bytes of it at most. What can't be decoded is named
/// in its place: it might hold anything, secrets too.
pub(super) fn decoded(coding: &str, body: &Bytes, max: usize) -> Bytes {
    let coding = coding.trim().to_ascii_lowercase();
    let decoded = match coding.as_str() {
        "" | "identity" => return body.clone(),
        _ if body.is_empty() => return body.clone(),
        "gzip" | "x-gzip" => beginning(MultiGzDecoder::new(&body[..]), max),
        // Some servers leave out what zlib wraps around it.
        "deflate" => Some(beginning(ZlibDecoder::new(&body[..]), max))
            .filter(Option::is_some)
            .unwrap_or_else(|| beginning(DeflateDecoder::new(&body[..]), max)),
        _ => None,
    };
    let shown = coding.chars().filter(|char| char.is_ascii_graphic()).take(32).collect::<String>();
    decoded.unwrap_or_else(|| format!("(the body is compressed with `{shown}` and not shown)").into())
}

/// What comes out until the input, or the room, ends; `None` where nothing does.
fn beginning(mut decoder: impl Read, max: usize) -> Option<Bytes> {
    let mut decoded = vec![0; max];
    let mut filled = 0;
    while let Ok(count) = decoder.read(&mut decoded[filled..]) {
        if count == 0 {
            break;
        }
        filled += count;
    }
    decoded.truncate(filled);
    Some(decoded).filter(|decoded| !decoded.is_empty()).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(text: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap().into()
    }

    #[test]
    fn what_is_compressed_is_shown() {
        let text = b"{\"error\":\"the order has no customer\"}";
        assert_eq!(decoded("gzip", &gzip(text), 4096), &text[..]);
        assert_eq!(decoded("X-GZIP ", &gzip(text), 9), &text[..9]);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(text).unwrap();
        assert_eq!(decoded("deflate", &zlib.finish().unwrap().into(), 4096), &text[..]);
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        raw.write_all(text).unwrap();
        assert_eq!(decoded("deflate", &raw.finish().unwrap().into(), 4096), &text[..]);
        assert_eq!(decoded("identity", &Bytes::from_static(text), 4096), &text[..]);
    }

    #[test]
    fn a_beginning_is_enough_and_a_bomb_is_none() {
        let bomb = gzip(&vec![b'x'; 50_000_000]);
        assert_eq!(decoded("gzip", &bomb, 4096), vec![b'x'; 4096]);
        let text: String = (0..2_000).map(|number| format!("{number} ")).collect();
        let whole = gzip(text.as_bytes());
        let half = decoded("gzip", &whole.slice(..whole.len() / 2), 1024);
        assert!(half.len() > 100 && text.as_bytes().starts_with(&half));
    }

    #[test]
    fn what_can_not_be_decoded_is_named() {
        let body = Bytes::from_static(b"\x1b\x23secret");
        assert_eq!(decoded("br", &body, 4096), "(the body is compressed with `br` and not shown)");
        assert_eq!(decoded("gzip, br\u{7}", &body, 4096), "(the body is compressed with `gzip,br` and not shown)");
        assert_eq!(decoded("gzip", &body, 4096), "(the body is compressed with `gzip` and not shown)");
        assert_eq!(decoded("br", &Bytes::new(), 4096), "");
    }
}
