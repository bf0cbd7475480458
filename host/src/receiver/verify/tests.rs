use http::HeaderValue;
use ring::signature::Ed25519KeyPair;

use super::*;

const SECONDS: i64 = 1_767_225_600;
const NOW: Timestamp = Timestamp(SECONDS * 1000);
const BODY: &str = r#"{"a": [1, 2], "b": "x, \"y\": z"}"#;
const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair =
        |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    pairs.iter().map(pair).collect()
}

/// Written a third time: neither by the signer nor by the verifier.
fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    ring::hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
}

fn hex_of(secret: &str, message: &str) -> String {
    hex::encode(hmac(secret.as_bytes(), message))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn stripe() -> SignatureScheme {
    SignatureScheme::Stripe { header: SignatureScheme::STRIPE_HEADER }
}

fn bare() -> SignatureScheme {
    SignatureScheme::Hmac { header: SignatureScheme::HMAC_HEADER }
}

/// A request of the page's scheme, signed with `secret` over `message`.
fn page(secret: &str, message: &str) -> HeaderMap {
    let signature = format!("sha256={}", hex_of(secret, message));
    headers(&[("x-signature", &signature), ("x-timestamp", &SECONDS.to_string())])
}

fn judged(scheme: &SignatureScheme, headers: &HeaderMap, body: &str, secret: &str) -> Result<(), VerifyError> {
    verify(scheme, headers, body.as_bytes(), &[Secret::new(secret)], NOW)
}

#[test]
fn the_schemes_own_vectors_verify() {
    // The page's send_signed_webhook.
    let signature = "sha256=f92006a5fc1185ea8f1c3abb0324fc43b64b380c25979f2b53ca26863e4fd4bc";
    let request = headers(&[("x-signature", signature), ("x-timestamp", "1767225600")]);
    assert_eq!(judged(&SignatureScheme::Fraiseql, &request, r#"{"event":"order.created"}"#, "whsec"), Ok(()));
    // GitHub's documentation.
    let digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let request = headers(&[("x-hub-signature-256", &format!("sha256={digest}")), ("x-signature", digest)]);
    for scheme in [SignatureScheme::Github, bare()] {
        assert_eq!(judged(&scheme, &request, "Hello, World!", "It's a Secret to Everybody"), Ok(()));
    }
    // The libraries of Standard Webhooks; the ed25519 signature is node's.
    let v1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let v1a = "v1a,fldxM4gAKugP6nnt1hdz3sgGfZ6d99nzrMFnZOELIxbzEHoVmAb2ADpkJK7zgPePmPsle0zV9jSeGlHFG2NVAw==";
    let at = Timestamp(1_614_265_330_000);
    let check = |signatures: &str, secret: &str, expected: Result<(), VerifyError>| {
        let request = headers(&[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signatures),
        ]);
        let scheme = SignatureScheme::StandardWebhooks;
        let found = verify(&scheme, &request, br#"{"test": 2432232314}"#, &[Secret::new(secret)], at);
        assert_eq!(found, expected, "{signatures} by {secret}");
    };
    let public = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let secret = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    let version = |version| Err(VerifyError::Version { header: HeaderName::from_static("webhook-signature"), version });
    check(v1, WHSEC, Ok(()));
    check(v1, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Ok(()));
    check(v1a, public, Ok(()));
    check(v1a, secret, Ok(()));
    check(&format!("v2,AAAA {v1a} {v1}"), WHSEC, Ok(()));
    check(v1, public, version("v1a"));
    check(v1a, WHSEC, version("v1"));
    check(v1a, "whpk_AAAA", Err(VerifyError::Secret(UnusableSecret::NotEd25519)));
    check(v1, "whsec_?", Err(VerifyError::Secret(UnusableSecret::NotStandard)));
    check(v1, "", Err(VerifyError::Secret(UnusableSecret::Empty)));
    let other = base64(&[7; 24]);
    check(v1, &format!("whsec_{other}"), Err(VerifyError::Mismatch(Vec::new())));
    check(&v1a.replace("fldx", "fldy"), public, Err(VerifyError::Mismatch(Vec::new())));
}

#[test]
fn one_of_several_signatures_and_one_of_several_secrets_will_do() {
    let message = format!("{SECONDS}.{BODY}");
    let signature = format!("t={SECONDS},v1={},v0=00,v1={}", hex_of("new", &message), hex_of("old", &message));
    let request = headers(&[("stripe-signature", &signature)]);
    for secret in ["new", "old"] {
        assert_eq!(judged(&stripe(), &request, BODY, secret), Ok(()));
    }
    assert_eq!(judged(&stripe(), &request, BODY, "older"), Err(VerifyError::Mismatch(Vec::new())));
    let secrets = [Secret::new("newest"), Secret::new("old")];
    assert_eq!(verify(&stripe(), &request, BODY.as_bytes(), &secrets, NOW), Ok(()));
    assert_eq!(verify(&stripe(), &request, BODY.as_bytes(), &[], NOW), Err(VerifyError::Secret(UnusableSecret::Empty)));
}

#[test]
fn missing_and_malformed_headers() {
    let check = |scheme: &SignatureScheme, pairs: &[(&str, &str)], expected: &str| {
        let error = judged(scheme, &headers(pairs), BODY, "s").unwrap_err();
        assert_eq!(error.to_string(), expected, "{pairs:?}");
    };
    let good = format!("sha256={}", hex_of("s", &format!("{SECONDS}.{BODY}")));
    let bare_hex = &good["sha256=".len()..];
    let page = SignatureScheme::Fraiseql;
    check(&page, &[("x-timestamp", "1")], "the header `x-signature` is missing");
    check(&page, &[("x-signature", &good)], "the header `x-timestamp` is missing");
    let of_stripe = "the header `x-signature` is missing; the request looks like one of the scheme stripe";
    check(&page, &[("stripe-signature", "t=1,v1=00")], of_stripe);
    for timestamp in ["", "now", "1767225600.5", " 1767225600", "99999999999999999999"] {
        let text = "`x-timestamp` is not Unix seconds in decimal digits";
        check(&page, &[("x-signature", &good), ("x-timestamp", timestamp)], text);
    }
    let text = "`x-timestamp` is in milliseconds, and has to be in seconds";
    check(&page, &[("x-signature", &good), ("x-timestamp", "1767225600000")], text);
    let upper = format!("sha256={}", bare_hex.to_uppercase());
    for signature in ["", "sha256=", "sha256=00", &upper, &format!("{good}00")] {
        let text = "`x-signature` is not `sha256=` and 64 lower-case hex digits";
        check(&page, &[("x-signature", signature), ("x-timestamp", "1")], text);
    }
    let text =
        "`x-signature` is not `sha256=` and 64 lower-case hex digits; the request looks like one of the scheme hmac";
    check(&page, &[("x-signature", bare_hex), ("x-timestamp", "1")], text);
    let text = "`x-signature` is not 64 lower-case hex digits; the request looks like one of the scheme fraiseql";
    check(&bare(), &[("x-signature", &good)], text);
    let stripe_format =
        "`stripe-signature` is not `t=`, Unix seconds, and `,v1=` with 64 lower-case hex digits, once for each secret";
    for signature in ["t=1", "v1=00", &format!("v1={bare_hex}")] {
        check(&stripe(), &[("stripe-signature", signature)], stripe_format);
    }
    for signature in ["v1", "v2,AAAA", "v1,?", ""] {
        let text = "`webhook-signature` is not `v1,` or `v1a,` with base64, separated by spaces";
        check(&SignatureScheme::StandardWebhooks, &[("webhook-signature", signature)], text);
    }
    check(&SignatureScheme::None, &[], "the scheme none signs nothing");
}

#[test]
fn five_minutes_either_way() {
    let signed = page("s", &format!("{SECONDS}.{BODY}"));
    let check = |now_ms: i64, secret: &str, expected: Result<(), &str>| {
        let found =
            verify(&SignatureScheme::Fraiseql, &signed, BODY.as_bytes(), &[Secret::new(secret)], Timestamp(now_ms));
        assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{now_ms}");
    };
    check((SECONDS + 300) * 1000, "s", Ok(()));
    check((SECONDS - 300) * 1000, "s", Ok(()));
    let right = "the signature itself is right: the clocks are apart, or the request is an old one";
    let behind = format!("`x-timestamp` is 300 s behind this clock, more than 300 s; {right}");
    check((SECONDS + 300) * 1000 + 1, "s", Err(&behind));
    let ahead = format!("`x-timestamp` is 301 s ahead of this clock, more than 300 s; {right}");
    check((SECONDS - 301) * 1000, "s", Err(&ahead));
    let wrong = "`x-timestamp` is 400 s behind this clock, more than 300 s; nor does the signature match: \
                 the secret is another one, or the body is not the one that was signed";
    check((SECONDS + 400) * 1000, "t", Err(wrong));
    let far = page("s", &format!("-9223372036854775808.{BODY}"));
    let far = HeaderMap::from_iter([
        (HeaderName::from_static("x-signature"), far["x-signature"].clone()),
        (HeaderName::from_static("x-timestamp"), HeaderValue::from_static("-9223372036854775808")),
    ]);
    assert!(matches!(judged(&SignatureScheme::Fraiseql, &far, BODY, "s"), Err(VerifyError::Stale { .. })));
}

fn check_hints(scheme: &SignatureScheme, headers: &HeaderMap, body: &str, secret: &str, expected: &[Hint]) {
    assert_eq!(judged(scheme, headers, body, secret), Err(VerifyError::Mismatch(expected.to_vec())), "{body} {secret}");
}

#[test]
fn what_was_signed_instead_is_found() {
    let fraiseql = SignatureScheme::Fraiseql;
    let timed = |body: &str| format!("{SECONDS}.{body}");
    let check = |signed: &HeaderMap, body: &str, expected: &[Hint]| check_hints(&fraiseql, signed, body, "s", expected);
    check(&page("other", &timed(BODY)), BODY, &[]);
    check(&page("s", &timed("{\"a\":1}")), "{\"a\":2}", &[]);
    check(&page("s", BODY), BODY, &[Hint::BodyAlone]);
    let compact = r#"{"a":[1,2],"b":"x, \"y\": z"}"#;
    check(&page("s", &timed(compact)), BODY, &[Hint::Reserialised]);
    check(&page("s", &timed(BODY)), compact, &[Hint::Reserialised]);
    check(&page("s", &timed(r#"{"b":1,"a":"é"}"#)), r#"{"b": 1, "a": "\u00e9"}"#, &[Hint::Reserialised]);
    check(&page("s", &timed(BODY)), &format!("{BODY}\n"), &[Hint::BodyTrimmed]);
    check(&page("s", &timed(&format!("{BODY}\n"))), BODY, &[Hint::BodyTrimmed]);
    check(&page("s", &timed("a\r\nb")), "a\nb", &[Hint::LineEnds]);
    check(&page("s", &timed("a\nb")), "a\r\nb", &[Hint::LineEnds]);
    check(&page("s\n", &timed(BODY)), BODY, &[Hint::SecretNewline]);
    check_hints(&fraiseql, &page("s", &timed(BODY)), BODY, "s\n", &[Hint::SecretTrimmed]);
    check_hints(&fraiseql, &page("s", &timed(compact)), BODY, " s", &[Hint::SecretTrimmed, Hint::Reserialised]);
    let large = "x".repeat(HINT_BODY_BYTES_MAX + 1);
    check(&page("s", &large), &large, &[]);
}

#[test]
fn a_secret_that_was_decoded_or_was_not_is_found() {
    let decoded = hex::decode("31f290f6bf06298aab4f08d43c3f082cf648a362da2da4b0").unwrap();
    let message = format!("{SECONDS}.{BODY}");
    let of_key = |key: &[u8]| {
        let signature = format!("t={SECONDS},v1={}", hex::encode(hmac(key, &message)));
        headers(&[("stripe-signature", &signature)])
    };
    check_hints(&stripe(), &of_key(&decoded), BODY, WHSEC, &[Hint::SecretDecoded]);
    check_hints(&stripe(), &of_key(&WHSEC.as_bytes()["whsec_".len()..]), BODY, WHSEC, &[Hint::SecretUnprefixed]);
    let standard = |key: &[u8], message: &str| {
        let signature = format!("v1,{}", base64(&hmac(key, message)));
        let time = SECONDS.to_string();
        headers(&[("webhook-id", "msg_1"), ("webhook-timestamp", &time), ("webhook-signature", &signature)])
    };
    let scheme = SignatureScheme::StandardWebhooks;
    let whole = format!("msg_1.{message}");
    assert_eq!(judged(&scheme, &standard(&decoded, &whole), BODY, WHSEC), Ok(()));
    check_hints(&scheme, &standard(WHSEC.as_bytes(), &whole), BODY, WHSEC, &[Hint::SecretVerbatim]);
    let text = &WHSEC.as_bytes()["whsec_".len()..];
    check_hints(&scheme, &standard(text, &whole), BODY, WHSEC, &[Hint::SecretNotDecoded]);
    check_hints(&scheme, &standard(&decoded, &message), BODY, WHSEC, &[Hint::WithoutId]);
    check_hints(&scheme, &standard(&decoded, BODY), BODY, WHSEC, &[Hint::BodyAlone]);
    check_hints(&scheme, &standard(WHSEC.as_bytes(), BODY), BODY, WHSEC, &[Hint::SecretVerbatim, Hint::BodyAlone]);
}

#[test]
fn ed25519_is_explained_too() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public = format!("whpk_{}", base64(ring::signature::KeyPair::public_key(&pair).as_ref()));
    let signature = format!("v1a,{}", base64(pair.sign(format!("msg_1.{SECONDS}.{{\"a\":1}}").as_bytes()).as_ref()));
    let time = SECONDS.to_string();
    let request = headers(&[("webhook-id", "msg_1"), ("webhook-timestamp", &time), ("webhook-signature", &signature)]);
    let scheme = SignatureScheme::StandardWebhooks;
    assert_eq!(judged(&scheme, &request, "{\"a\":1}", &public), Ok(()));
    check_hints(&scheme, &request, "{\"a\": 1}", &public, &[Hint::Reserialised]);
}

#[test]
fn a_timestamp_before_a_body_that_stands_alone_is_found() {
    let digest = hex_of("s", &format!("{SECONDS}.{BODY}"));
    let request =
        headers(&[("x-hub-signature-256", &format!("sha256={digest}")), ("x-timestamp", &SECONDS.to_string())]);
    check_hints(&SignatureScheme::Github, &request, BODY, "s", &[Hint::Timed]);
}

#[test]
fn a_scheme_is_known_by_its_headers() {
    let check = |pairs: &[(&str, &str)], expected: Option<&str>| {
        let found = scheme_of(&headers(pairs));
        assert_eq!(found.as_ref().map(SignatureScheme::name), expected, "{pairs:?}");
    };
    check(&[("x-signature", "00")], Some("hmac"));
    check(&[("x-signature", "sha256=00")], Some("fraiseql"));
    check(&[("x-signature", "00"), ("x-timestamp", "1")], Some("fraiseql"));
    check(&[("webhook-signature", "v1,")], Some("standard-webhooks"));
    check(&[("stripe-signature", "")], Some("stripe"));
    check(&[("X-FraiseQL-Signature-256", "")], Some("stripe"));
    check(&[("x-hub-signature-256", "")], Some("github"));
    check(&[("webhook-id", "msg_1")], None);
}
