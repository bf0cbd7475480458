//! Pure: a secret of Standard Webhooks, as people hold it: one reading for who signs and for who verifies.
//!
//! What decodes in one way alone is taken, however it was copied: with the version that a dashboard writes before it, without its
//! prefix, in the alphabet of URLs, without padding, on several lines. [`oddities`] says what is hardly meant.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The least bytes of an HMAC key by the specification; a shorter one is taken where its prefix says that it is one.
pub(crate) const HMAC_KEY_BYTES_MIN: usize = 24;
/// The most bytes of an HMAC key by the specification; a longer one is taken all the same.
pub(crate) const HMAC_KEY_BYTES_MAX: usize = 64;

const HMAC_PREFIX: &[u8] = b"whsec_";
const ED25519_PREFIX: &[u8] = b"whsk_";
const ED25519_PUBLIC_PREFIX: &[u8] = b"whpk_";
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_OF_URLS: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What a secret is, decoded.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Standard {
    /// `whsec_`: the key of an HMAC.
    Hmac(Vec<u8>),
    /// `whsk_`: what signs by ed25519.
    Signing(Vec<u8>),
    /// `whpk_`: what verifies that.
    Public(Vec<u8>),
}

/// Why a secret can't be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unreadable {
    /// There is nothing in it.
    Empty,
    /// It has no prefix, and is not surely base64 either.
    Prefix,
    /// What stands behind its prefix is no base64.
    Base64,
}

/// What is hardly meant in a secret, as a predicate. The secret is never told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Oddity {
    ByteOrderMark,
    BlankAround,
    LineBreak,
    Nul,
    OtherControl,
    NoPrefix,
    Short(usize),
    Long(usize),
}

/// Reads `written`.
pub(crate) fn read(written: &[u8]) -> Result<Standard, Unreadable> {
    let text = bare(written);
    if text.is_empty() {
        return Err(Unreadable::Empty);
    }
    let text = without_version(&text);
    if let Some(text) = text.strip_prefix(HMAC_PREFIX) {
        return decode(text).filter(|key| !key.is_empty()).map(Standard::Hmac).ok_or(Unreadable::Base64);
    }
    if let Some(text) = text.strip_prefix(ED25519_PREFIX) {
        return decode(text).map(Standard::Signing).ok_or(Unreadable::Base64);
    }
    if let Some(text) = text.strip_prefix(ED25519_PUBLIC_PREFIX) {
        return decode(text).map(Standard::Public).ok_or(Unreadable::Base64);
    }
    // A short one may be a word that only looks like base64.
    decode(text).filter(|key| key.len() >= HMAC_KEY_BYTES_MIN).map(Standard::Hmac).ok_or(Unreadable::Prefix)
}

/// What is odd in any secret: it is used byte for byte, so that what nobody sees counts.
pub(crate) fn oddities(written: &[u8]) -> Vec<Oddity> {
    let text = written.strip_prefix(BYTE_ORDER_MARK).unwrap_or(written);
    let is_line_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let is_other = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t' | 0);
    let found = [
        (text.len() < written.len(), Oddity::ByteOrderMark),
        (text.trim_ascii().len() < text.len(), Oddity::BlankAround),
        (text.trim_ascii().iter().any(is_line_break), Oddity::LineBreak),
        (text.contains(&0), Oddity::Nul),
        (text.iter().any(is_other), Oddity::OtherControl),
    ];
    found.into_iter().filter(|(is_odd, _)| *is_odd).map(|(_, oddity)| oddity).collect()
}

/// What is odd in one of Standard Webhooks beside that.
pub(crate) fn standard_oddities(written: &[u8]) -> Vec<Oddity> {
    let mut found = oddities(written);
    if let Ok(Standard::Hmac(key)) = read(written) {
        let text = bare(written);
        found.extend((!without_version(&text).starts_with(HMAC_PREFIX)).then_some(Oddity::NoPrefix));
        found.extend((key.len() < HMAC_KEY_BYTES_MIN).then_some(Oddity::Short(key.len())));
        found.extend((key.len() > HMAC_KEY_BYTES_MAX).then_some(Oddity::Long(key.len())));
    }
    found
}

/// Without what is around it, and without the white space in it: base64 has none.
fn bare(written: &[u8]) -> Vec<u8> {
    let text = written.strip_prefix(BYTE_ORDER_MARK).unwrap_or(written);
    text.iter().copied().filter(|byte| !byte.is_ascii_whitespace() && *byte != 0).collect()
}

/// Some dashboards write which signature it makes before it.
fn without_version(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"v1,").or_else(|| text.strip_prefix(b"v1a,")).unwrap_or(text)
}

/// In one alphabet or the other; a text with characters of both is in none.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(text).or_else(|_| BASE64_OF_URLS.decode(text)).ok()
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByteOrderMark => f.write_str("begins with a byte order mark"),
            Self::BlankAround => f.write_str("has white space before or behind it"),
            Self::LineBreak => f.write_str("has a line break in it"),
            Self::Nul => f.write_str("has a NUL byte in it"),
            Self::OtherControl => f.write_str("has a control character in it"),
            Self::NoPrefix => f.write_str("has no `whsec_` before it, and is taken for base64"),
            Self::Short(bytes) => {
                write!(f, "has {bytes} bytes when decoded, fewer than the {HMAC_KEY_BYTES_MIN} of the specification")
            }
            Self::Long(bytes) => write!(
                f,
                "has {bytes} bytes when decoded, more than the {HMAC_KEY_BYTES_MAX} of the specification: some receivers refuse it"
            ),
        }
    }
}

impl fmt::Debug for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// 32 bytes whose base64 has characters that the alphabet of URLs writes differently.
    const KEY: [u8; 32] = [0xfb; 32];

    fn written() -> String {
        STANDARD.encode(KEY)
    }

    #[test]
    fn one_key_however_it_is_written() {
        let base64 = written();
        let url = base64.replace('+', "-").replace('/', "_");
        for written in [
            format!("whsec_{base64}"),
            base64.clone(),
            format!("v1,whsec_{base64}"),
            format!("whsec_{url}"),
            format!("whsec_{}", url.trim_end_matches('=')),
            format!("whsec_{}", base64.trim_end_matches('=')),
            format!("\u{feff}whsec_{base64}\r\n"),
            format!("  whsec_{base64}\0"),
            format!("whsec_{}\n{}", &base64[..20], &base64[20..]),
        ] {
            assert_eq!(read(written.as_bytes()).ok(), Some(Standard::Hmac(KEY.to_vec())), "{written:?}");
        }
        let long = format!("whsec_{}", STANDARD.encode([7; 72]));
        assert_eq!(read(long.as_bytes()).ok(), Some(Standard::Hmac(vec![7; 72])));
        assert_eq!(read(b"whsec_c2hvcnQ=").ok(), Some(Standard::Hmac(b"short".to_vec())));
    }

    #[test]
    fn what_is_in_doubt_is_refused() {
        let check = |written: &str, expected| assert_eq!(read(written.as_bytes()).err(), Some(expected), "{written:?}");
        check("", Unreadable::Empty);
        check(" \r\n", Unreadable::Empty);
        check("hunter22", Unreadable::Prefix);
        check("correct horse battery staple!", Unreadable::Prefix);
        check("whsec_", Unreadable::Base64);
        check("whsec_not base64!", Unreadable::Base64);
        check(&format!("whsec_+_{}", written()), Unreadable::Base64);
        check("whsk_?", Unreadable::Base64);
    }

    #[test]
    fn kinds_are_told_by_their_prefix() {
        let is = |prefix: &str| {
            format!("{:?}", matches!(read(format!("{prefix}{}", written()).as_bytes()), Ok(Standard::Hmac(_))))
        };
        assert_eq!((is("whsec_"), is("whsk_"), is("whpk_")), ("true".into(), "false".into(), "false".into()));
    }

    #[test]
    fn what_is_odd_is_said() {
        let check =
            |written: &str, expected: &[Oddity]| assert_eq!(oddities(written.as_bytes()), expected, "{written:?}");
        check("s3cret", &[]);
        check("two words", &[]);
        check("\u{feff}s3cret", &[Oddity::ByteOrderMark]);
        check("s3cret ", &[Oddity::BlankAround]);
        check("s3cret\r", &[Oddity::BlankAround]);
        check("one\r\ntwo", &[Oddity::LineBreak]);
        check("s3cret\0", &[Oddity::Nul]);
        check("s3\u{1b}cret", &[Oddity::OtherControl]);
        let standard = |written: String| standard_oddities(written.as_bytes());
        assert_eq!(standard(format!("whsec_{}", written())), []);
        assert_eq!(standard(format!("v1,whsec_{}", written())), []);
        assert_eq!(standard(written()), [Oddity::NoPrefix]);
        assert_eq!(standard("whsec_c2hvcnQ=".to_owned()), [Oddity::Short(5)]);
        assert_eq!(standard(format!("whsec_{}\n", STANDARD.encode([7; 72]))), [Oddity::BlankAround, Oddity::Long(72)]);
    }
}
