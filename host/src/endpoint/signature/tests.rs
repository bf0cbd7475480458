use super::*;

const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// The seed of RFC 8032's first test, and the same with its public key behind it.
const WHSK: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const WHSK_64: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==";
const V1: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const V1A: &str = "v1a,fldxM4gAKugP6nnt1hdz3sgGfZ6d99nzrMFnZOELIxbzEHoVmAb2ADpkJK7zgPePmPsle0zV9jSeGlHFG2NVAw==";

fn signer(scheme: SignatureScheme, secrets: &[&str]) -> Result<Signer, SignerError> {
    let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(secret).into()).collect();
    Signer::new(scheme, &secrets)
}

/// The headers of a webhook `msg_p5jXN8AQM9LWM0D4loKWxJek`, in their order.
fn signed(scheme: SignatureScheme, secrets: &[&str], seconds: i64, body: &str) -> Vec<(String, String)> {
    let mut headers = HeaderMap::new();
    let signer = signer(scheme, secrets).unwrap();
    signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", Timestamp(seconds * 1000 + 999), body.as_bytes(), &mut headers);
    headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

fn check(scheme: SignatureScheme, secrets: &[&str], seconds: i64, body: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(signed(scheme, secrets, seconds, body), expected);
}

#[test]
fn fraiseql_signs_as_the_page_does() {
    // hmac.new(b"whsec", b"1767225600." + body, hashlib.sha256).hexdigest()
    let expected = [
        ("x-signature", "sha256=f92006a5fc1185ea8f1c3abb0324fc43b64b380c25979f2b53ca26863e4fd4bc"),
        ("x-timestamp", "1767225600"),
    ];
    check(SignatureScheme::Fraiseql, &["whsec"], 1_767_225_600, r#"{"event":"order.created"}"#, &expected);
    check(SignatureScheme::Fraiseql, &["whsec", "old"], 1_767_225_600, r#"{"event":"order.created"}"#, &expected);
}

/// The vector that the libraries of Standard Webhooks share; that of ed25519 was made by node's crypto.
#[test]
fn standard_webhooks_signs_with_every_secret() {
    let check = |secrets: &[&str], expected: &str| {
        let expected = [("webhook-timestamp", "1614265330"), ("webhook-signature", expected)];
        check(SignatureScheme::StandardWebhooks, secrets, 1_614_265_330, r#"{"test": 2432232314}"#, &expected);
    };
    check(&[WHSEC], V1);
    check(&[WHSK], V1A);
    check(&[WHSK_64], V1A);
    check(&[WHSK, WHSEC], &format!("{V1A} {V1}"));
    check(&[WHSEC, WHSK], &format!("{V1} {V1A}"));
}

#[test]
fn stripe_signs_with_every_secret_as_it_is_written() {
    // printf '1492774577.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_new
    let (new, old) = (
        "0ff2f5a68c790e641710ef579f8bab873bd43994ccf50908722ddbee71686a50",
        "0747100650652ef72323d15ecf021fcf28463e6c3f46c75d091a00c9fbb46a37",
    );
    let stripe = |header| SignatureScheme::Stripe { header };
    let body = r#"{"id":"evt_1"}"#;
    let expected = format!("t=1492774577,v1={new},v1={old}");
    let secrets = ["whsec_new", "whsec_old"];
    check(
        stripe(SignatureScheme::STRIPE_HEADER),
        &secrets,
        1_492_774_577,
        body,
        &[("stripe-signature", expected.as_str())],
    );
    let own = HeaderName::from_static("x-fraiseql-signature-256");
    let expected = format!("t=1492774577,v1={new}");
    check(stripe(own), &secrets[..1], 1_492_774_577, body, &[("x-fraiseql-signature-256", expected.as_str())]);
}

/// The vector of GitHub's documentation.
#[test]
fn github_and_hmac_sign_the_body_alone() {
    let (secret, body) = ("It's a Secret to Everybody", "Hello, World!");
    let digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    for seconds in [1, 2] {
        let expected = format!("sha256={digest}");
        let expected = [("x-hub-signature-256", expected.as_str())];
        check(SignatureScheme::Github, &[secret, "old"], seconds, body, &expected);
        let hmac = |header| SignatureScheme::Hmac { header };
        check(hmac(SignatureScheme::HMAC_HEADER), &[secret, "old"], seconds, body, &[("x-signature", digest)]);
        check(hmac(HeaderName::from_static("x-shop")), &[secret], seconds, body, &[("x-shop", digest)]);
    }
}

#[test]
fn each_attempt_signs_its_own_time() {
    for (scheme, secret) in [
        (SignatureScheme::Fraiseql, "s"),
        (SignatureScheme::StandardWebhooks, WHSEC),
        (SignatureScheme::Stripe { header: SignatureScheme::STRIPE_HEADER }, "s"),
    ] {
        assert_ne!(signed(scheme.clone(), &[secret], 1, "{}"), signed(scheme, &[secret], 2, "{}"));
    }
}

#[test]
fn an_expired_secret_does_not_sign() {
    let until = |secret: &str, seconds: i64| SigningSecret {
        expires_at: Some(Timestamp(seconds * 1000)),
        ..SigningSecret::from(Secret::new(secret))
    };
    let secrets = [Secret::new("new").into(), until("old", 100), until("older", 50)];
    let signer = Signer::new(SignatureScheme::Stripe { header: SignatureScheme::STRIPE_HEADER }, &secrets).unwrap();
    for (ms, signatures) in [(49_999, 3), (50_000, 2), (99_999, 2), (100_000, 1), (i64::MAX, 1)] {
        let mut headers = HeaderMap::new();
        signer.sign("msg_1", Timestamp(ms), b"{}", &mut headers);
        assert_eq!(headers["stripe-signature"].to_str().unwrap().matches("v1=").count(), signatures, "at {ms}");
    }
}

#[test]
fn a_secret_is_replaced_in_its_place() {
    let signer = signer(SignatureScheme::StandardWebhooks, &[WHSK, WHSK_64]).unwrap();
    signer.replace(1, &Secret::new(WHSEC)).unwrap();
    assert_eq!(signer.replace(0, &Secret::new("whsec_c2hvcnQ=?")), Err(InvalidSecret::Base64));
    signer.replace(7, &Secret::new(WHSEC)).unwrap();
    let mut headers = HeaderMap::new();
    let body = br#"{"test": 2432232314}"#;
    signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", Timestamp(1_614_265_330_000), body, &mut headers);
    assert_eq!(headers[WEBHOOK_SIGNATURE], format!("{V1A} {V1}"));
}

#[test]
fn only_the_scheme_none_is_built_without_a_secret() {
    assert!(matches!(signer(SignatureScheme::Fraiseql, &[]), Err(SignerError::NoSecret)));
    assert!(signer(SignatureScheme::Fraiseql, &[""]).is_err());
    check(SignatureScheme::None, &[], 1, "{}", &[]);
    check(SignatureScheme::None, &["s"], 1, "{}", &[]);
}

#[test]
fn standard_webhooks_takes_its_own_secrets_only() {
    let check = |secret: &str, expected: Result<(), InvalidSecret>| {
        assert_eq!(check_secret(&SignatureScheme::StandardWebhooks, &Secret::new(secret)), expected, "{secret}");
        let verbatim = check_secret(&SignatureScheme::Github, &Secret::new(secret));
        assert_eq!(verbatim.is_ok(), !secret.is_empty(), "{secret}");
    };
    let whsec = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
    let whsk = |bytes: usize| format!("whsk_{}", STANDARD.encode(vec![7; bytes]));
    check("", Err(InvalidSecret::Empty));
    check("a secret", Err(InvalidSecret::Prefix));
    check("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Ok(()));
    check("v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Ok(()));
    check("whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", Err(InvalidSecret::PublicKey));
    check("whsec_not base64!", Err(InvalidSecret::Base64));
    check(&format!("{WHSEC}\n"), Ok(()));
    check("whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", Ok(()));
    check("whsk_nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", Ok(()));
    check(&whsec(5), Ok(()));
    check(&whsec(72), Ok(()));
    check(&whsk(31), Err(InvalidSecret::Ed25519));
    check(&whsk(32), Ok(()));
    check(&whsk(33), Err(InvalidSecret::Ed25519));
    // 64 bytes of which the last are not the public key of the first.
    check(&whsk(64), Err(InvalidSecret::Ed25519));
    check(WHSK_64, Ok(()));
}

#[test]
fn a_signing_key_has_a_public_one() {
    let public = |secret: &str| public_key(&SignatureScheme::StandardWebhooks, &Secret::new(secret));
    for secret in [WHSK, WHSK_64] {
        assert_eq!(public(secret).as_deref(), Some("whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="));
    }
    assert_eq!((public(WHSEC), public("nonsense")), (None, None));
    assert_eq!(public_key(&SignatureScheme::Github, &Secret::new(WHSK)), None);
}

#[test]
fn the_chosen_header_is_reserved() {
    let shop = SignatureScheme::Hmac { header: HeaderName::from_static("x-shop") };
    let signer = signer(shop, &["s"]).unwrap();
    assert!(signer.reserves("X-Shop") && !signer.reserves("x-other"));
}

fn schemes() -> Vec<SignatureScheme> {
    let own = |name| HeaderName::from_static(name);
    vec![
        SignatureScheme::Fraiseql,
        SignatureScheme::StandardWebhooks,
        SignatureScheme::Stripe { header: SignatureScheme::STRIPE_HEADER },
        SignatureScheme::Stripe { header: own("x-fraiseql-signature-256") },
        SignatureScheme::Github,
        SignatureScheme::Hmac { header: own("x-shop") },
    ]
}

proptest::proptest! {
    /// Signer and verifier were written apart: what one signs the other accepts, by every secret that signs and by no other,
    /// and for no other byte.
    #[test]
    fn a_receiver_accepts_what_was_sent_and_nothing_else(
        scheme in proptest::sample::select(schemes()),
        keys in proptest::collection::vec(proptest::collection::vec(1_u8.., 32), 2..4),
        seconds in 0_i64..100_000_000_000,
        body in proptest::collection::vec(0_u8.., 1..64),
        touched: proptest::sample::Index,
    ) {
        let written = |key: &Vec<u8>| match scheme {
            SignatureScheme::StandardWebhooks => Secret::new(format!("whsec_{}", STANDARD.encode(key))),
            _ => Secret::new(key),
        };
        let (last, active) = keys.split_last().unwrap();
        let secrets: Vec<_> = active.iter().map(written).collect();
        let signing: Vec<_> = secrets.iter().cloned().map(SigningSecret::from).collect();
        let now = Timestamp(seconds * 1000);
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", value("msg_1"));
        Signer::new(scheme.clone(), &signing).unwrap().sign("msg_1", now, &body, &mut headers);

        let by = |secret: &Secret, body: &[u8]| crate::receiver::verify(&scheme, &headers, body, std::slice::from_ref(secret), now);
        let carried = if scheme.carries_one() { 1 } else { secrets.len() };
        for secret in &secrets[..carried] {
            proptest::prop_assert_eq!(by(secret, &body), Ok(()));
        }
        proptest::prop_assert!(active.contains(last) || by(&written(last), &body).is_err());
        let mut other = body.clone();
        *touched.get_mut(&mut other) ^= 1;
        proptest::prop_assert!(by(&secrets[0], &other).is_err());
    }
}
