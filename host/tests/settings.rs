//! Settings files and what becomes of them. Each `tests/settings/*.toml` stands beside the `.err` it must give;
//! `UPDATE_EXPECT=1` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use wirehook::settings::{self, Environment, SettingsError, SourceKind};

fn environment() -> Environment {
    Environment::of(
        &[
            ("SET", "value-of-set"),
            ("EMPTY", ""),
            ("NOT_A_URL", "not a url"),
            ("WHPK", "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
            ("WHSEC_NOT_BASE64", "whsec_hunter2hunter2!"),
            ("WHSK_SHORT", "whsk_aHVudGVyMmh1bnRlcjI="),
            ("URL_WITH_PASSWORD", "nats://me:hunter2hunter2@bus:4222"),
        ],
        "/nowhere",
    )
}

fn refusal(name: &str, text: &str) -> String {
    match settings::parse(Path::new(name), text, &environment()) {
        Ok(_) => panic!("{name} was accepted"),
        Err(error) => format!("{error}\n"),
    }
}

#[test]
fn bad_settings_are_refused_with_the_place_and_what_to_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/settings");
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 20, "the case folder is gone");
    let mut wrong = Vec::new();
    for case in cases {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let actual = refusal(&name, &fs::read_to_string(&case).unwrap());
        let expected_file = case.with_extension("err");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&expected_file, &actual).unwrap();
        }
        let expected = fs::read_to_string(&expected_file).unwrap_or_default();
        if actual != expected {
            wrong.push(format!("== {name}\n-- expected\n{expected}-- actual\n{actual}"));
        }
        assert!(!actual.contains("hunter2hunter2"), "{name} shows a secret:\n{actual}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn example() -> settings::Loaded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/wirehook.toml");
    let variables = ["WIREHOOK_HTTP_TOKEN", "ORDERS_SECRET", "ORDERS_BEARER", "LEDGER_SECRET_NEW", "LEDGER_SECRET_OLD"];
    let variables: Vec<(&str, &str)> = variables.iter().map(|name| (*name, "s3cret")).collect();
    settings::load(Some(&path), &Environment::of(&variables, "/nowhere")).unwrap()
}

#[test]
fn the_example_says_what_the_defaults_are() {
    let example = example();
    assert_eq!(example.warnings, []);
    let nothing = settings::parse(&example.file, "", &environment()).unwrap();
    for default in &nothing.shown {
        let said = example.shown.iter().find(|shown| shown.key == default.key).unwrap();
        assert_eq!(said.value, default.value, "{}", default.key);
    }
    let endpoint = &example.settings.endpoints[0];
    assert_eq!(endpoint.retry, wirehook::delivery::RetryPolicy::default());
    assert_eq!(endpoint.headers[0].0, "authorization");
    assert_eq!(example.settings.endpoints[1].secrets.len(), 2);
    assert_eq!(example.settings.endpoints[1].retry, wirehook::delivery::RetryPolicy::page());
    assert_eq!(example.settings.store.path, example.file.with_file_name("wirehook.db"));
}

#[test]
fn the_documentation_names_every_key() {
    let page = include_str!("../docs/settings.md").to_lowercase();
    let every_kind = "\
        [[source]]\nname = 'a'\nkind = 'nats'\nurl = 'tls://h'\nsubjects = ['>']\nnkey = { env = 'S' }\n\
        [[source]]\nname = 'b'\nkind = 'nats'\nurl = 'tls://h'\nsubjects = ['>']\ncredentials = 'c'\n\
        [[source]]\nname = 'c'\nkind = 'jetstream'\nurl = 'tls://h'\nstreams = ['s']\ntoken = { env = 'S' }\n\
        [[source]]\nname = 'd'\nkind = 'redis'\nurl = 'rediss://h'\nchannels = ['c']\nuser = 'u'\npassword = { env = 'S' }\n\
        [source.tls]\nca = 'ca.pem'\ncert = 'c.pem'\nkey = 'c.key'\n\
        [[source]]\nname = 'e'\nkind = 'redis-stream'\nurl = 'redis://h'\nstreams = ['s']\n\
        [[source]]\nname = 'f'\nkind = 'postgres'\nurl = 'postgres://h'\nchannels = ['c']\n\
        [[source]]\nname = 'g'\nkind = 'postgres-outbox'\nurl = 'postgres://h'\n\
        [[source]]\nname = 'h'\nkind = 'http'\n\
        [[source]]\nname = 'i'\nkind = 'stdin'\n\
        [egress]\nproxy = 'http://p'\nproxy_user = 'u'\nproxy_password = { env = 'S' }\n\
        [[endpoint]]\nname = 'a'\nurl = 'https://h'\nsecret = { env = 'S' }\n\
        [endpoint.auth]\nkind = 'bearer'\ntoken = { env = 'S' }\n\
        [[endpoint]]\nname = 'b'\nurl = 'https://h'\nsecret = { env = 'S' }\n\
        [endpoint.auth]\nkind = 'basic'\nuser = 'u'\npassword = { env = 'S' }\n\
        [[endpoint]]\nname = 'c'\nurl = 'https://h'\nsecret = { env = 'S' }\n\
        [endpoint.auth]\nkind = 'oauth2'\ntoken_url = 'https://h'\nclient_id = 'c'\nclient_secret = { env = 'S' }\n\
        scopes = ['s']\naudience = 'a'\n";
    let every_kind = settings::parse("w.toml".as_ref(), every_kind, &Environment::of(&[("S", "s3cret")], "/")).unwrap();
    for source in &every_kind.settings.sources {
        let kind = format!("`\"{}\"`", source.kind.name());
        assert!(page.contains(&kind), "docs/settings.md does not name {kind}");
    }
    for shown in example().shown.into_iter().chain(every_kind.shown) {
        let key = shown.key.rsplit('.').next().unwrap();
        assert!(page.contains(&format!("`{key}`")), "docs/settings.md does not explain {}", shown.key);
    }
}

#[test]
fn names_on_the_bus_follow_the_source() {
    let loaded = settings::parse(
        Path::new("/etc/wirehook/wirehook.toml"),
        "[[source]]\nname = \"bus\"\nkind = \"jetstream\"\nurl = \"nats://h:1\"\nstream = \"S\"\nstart = 2026-03-02T14:00:00Z",
        &environment(),
    )
    .unwrap();
    let SourceKind::Jetstream { durable, start, .. } = &loaded.settings.sources[0].kind else { panic!() };
    assert_eq!(durable, "wirehook-bus");
    assert_eq!(*start, settings::Start::At(wirehook::clock::Timestamp(1_772_460_000_000)));
    assert_eq!(loaded.settings.plugins.dir, Path::new("/etc/wirehook/plugins"));
    let show = |key: &str| loaded.shown.iter().find(|shown| shown.key == key).unwrap().origin.to_string();
    assert_eq!(show("source.bus.durable"), "default");
    assert_eq!(show("source.bus.stream"), "/etc/wirehook/wirehook.toml:5");
}

/// Values that are secrets are shown as such, and credentials that anybody on the way could read are warned of.
#[test]
fn credentials_are_not_shown_and_go_over_https() {
    let text = "[egress]\nproxy = 'socks5://proxy'\nproxy_user = 'me'\nproxy_password = { env = 'SET' }\n\
        [[endpoint]]\nname = 'orders'\nurl = 'http://h'\nsignature = 'none'\n\
        [endpoint.auth]\nkind = 'basic'\nuser = 'me'\npassword = { env = 'SET' }\n";
    let loaded = settings::parse(Path::new("w.toml"), text, &environment()).unwrap();
    let show = |key: &str| loaded.shown.iter().find(|shown| shown.key == key).unwrap().value.clone();
    assert_eq!(show("egress.proxy"), "socks5://proxy:1080");
    assert_eq!(show("egress.proxy_password"), "<redacted>");
    assert_eq!(show("endpoint.orders.auth.kind"), "basic");
    assert_eq!(show("endpoint.orders.auth.password"), "<redacted>");
    let warned = loaded.warnings.iter().any(|warning| warning.message.contains("go over `http`"));
    assert!(warned, "{:?}", loaded.warnings);
    assert!(!format!("{:?} {:?}", loaded.settings, loaded.shown).contains("value-of-set"));
}

#[test]
fn running_needs_a_source() {
    let loaded = settings::parse(Path::new("w.toml"), "", &environment()).unwrap();
    assert_eq!(loaded.warnings.len(), 2, "no source and no endpoint");
    assert!(loaded.for_run().unwrap_err().to_string().contains("no [[source]]"));
}

#[test]
fn the_file_is_searched_for_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = settings::find(None, &Environment::of(&[], folder.path()));
    if !Path::new(settings::load::SYSTEM_FILE).exists() {
        let Err(SettingsError::NotFound(places)) = nothing else { panic!("{nothing:?}") };
        assert_eq!(places, [folder.path().join("wirehook.toml"), "/etc/wirehook/wirehook.toml".into()]);
    }
    fs::write(folder.path().join("wirehook.toml"), "").unwrap();
    let check = |config: Option<&str>, variables: &[(&str, &str)], expected: PathBuf| {
        let environment = Environment::of(variables, folder.path());
        assert_eq!(settings::find(config.map(Path::new), &environment).unwrap(), expected);
    };
    check(None, &[], folder.path().join("wirehook.toml"));
    check(None, &[("WIREHOOK_CONFIG", "v.toml")], "v.toml".into());
    check(Some("c.toml"), &[("WIREHOOK_CONFIG", "v.toml")], "c.toml".into());
}

#[test]
fn a_secret_may_expire_and_that_is_shown() {
    let text = "[[endpoint]]\nname = \"e\"\nurl = \"http://h\"\nsignature = \"stripe\"\n\
                secret = [{ env = \"SET\" }, { env = \"SET\", expires = 2026-12-01T00:00:00Z },\
                { env = \"SET\", expires = \"2026-12-01T01:00:00+02:00\" }]";
    let loaded = settings::parse(Path::new("w.toml"), text, &environment()).unwrap();
    let secrets = &loaded.settings.endpoints[0].secrets;
    let ends: Vec<_> = secrets.iter().map(|secret| secret.expires_at.map(|at| at.0)).collect();
    assert_eq!(ends, [None, Some(1_796_083_200_000), Some(1_796_079_600_000)]);
    let show = |key: &str| loaded.shown.iter().find(|shown| shown.key == key).unwrap().value.to_string();
    let expected =
        "[\"<redacted>\",\"<redacted> until 2026-12-01T00:00:00.000Z\",\"<redacted> until 2026-11-30T23:00:00.000Z\"]";
    assert_eq!(show("endpoint.e.secret"), expected);
    assert_eq!(show("endpoint.e.signature_header"), "\"stripe-signature\"");
    assert_eq!(loaded.warnings.len(), 1, "there is no source, and nothing else is said: {:?}", loaded.warnings);
}

#[test]
fn secrets_that_sign_nothing_are_told_of() {
    let check = |signature: &str, secret: &str, expected: &str| {
        let text =
            format!("[[endpoint]]\nname = \"e\"\nurl = \"http://h\"\nsignature = {signature:?}\nsecret = {secret}");
        let loaded = settings::parse(Path::new("w.toml"), &text, &environment()).unwrap();
        let said: String = loaded.warnings.iter().map(|warning| warning.message.as_str()).collect();
        assert!(said.contains(expected), "{said}");
    };
    let two = "[{ env = \"SET\" }, { env = \"SET\" }]";
    check("none", two, "`secret` in [[endpoint]] `e` signs nothing, as `signature` is \"none\"");
    for scheme in ["fraiseql", "github", "hmac"] {
        let said =
            format!("only the first `secret` in [[endpoint]] `e` signs: a request of the scheme {scheme} carries one");
        check(scheme, two, &said);
    }
}

/// What is said of the endpoint with these lines, which read what `SECRET` is; nothing of that is among it.
fn warnings(lines: &str, secret: &str) -> Vec<String> {
    let environment = Environment::of(&[("SECRET", secret)], "/nowhere");
    let text = format!("[[source]]\nname = \"s\"\nkind = \"stdin\"\n[[endpoint]]\nname = \"e\"\n{lines}");
    let loaded = settings::parse(Path::new("w.toml"), &text, &environment).unwrap_or_else(|error| panic!("{error}"));
    let said = format!("{:?}", loaded.warnings);
    assert!(secret.len() < 4 || !said.contains(secret.trim().trim_start_matches('\u{feff}')), "{said}");
    loaded.warnings.into_iter().map(|warning| warning.message).collect()
}

#[test]
fn odd_secrets_are_told_of() {
    let check = |lines: &str, secret: &str, expected: &[&str]| {
        let lines = format!("url = \"https://h\"\n{lines}");
        let said = warnings(&lines, secret);
        assert_eq!(said.len(), expected.len(), "{said:?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.contains(expected), "{said} does not say {expected}");
        }
    };
    let standard = "signature = \"standard-webhooks\"\nsecret = { env = \"SECRET\" }";
    let github = "signature = \"github\"\nsecret = { env = \"SECRET\" }";
    let bearer = "signature = \"none\"\n[endpoint.auth]\nkind = \"bearer\"\ntoken = { env = \"SECRET\" }";
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    check(standard, key, &[]);
    check(standard, &format!("v1,{key}"), &[]);
    check(standard, &key["whsec_".len()..], &["has no `whsec_` before it"]);
    check(standard, &format!("\u{feff}{key}\r\n"), &["byte order mark", "white space"]);
    check(standard, "whsec_aHVudGVyMmh1bnRlcjI=", &["14 bytes when decoded, fewer than the 24"]);
    check(standard, &format!("whsec_{}", "abcd".repeat(24)), &["72 bytes when decoded, more than the 64"]);
    for lines in [github, bearer] {
        check(lines, "s3cret-s3cret", &[]);
        check(lines, "s3cret-s3cret ", &["white space before or behind it; every byte of it counts"]);
    }
    check(github, "s3cret\0", &["NUL"]);
    check(github, "s3cret\r", &["white space"]);
    check(github, "\u{feff}s3cret", &["byte order mark"]);
}

#[test]
fn paths_that_are_not_sent_as_they_are_written_are_told_of() {
    let check = |url: &str, expected: bool| {
        let said = warnings(&format!("url = '{url}'\nsignature = \"none\""), "");
        assert_eq!(said.iter().any(|said| said.contains("is not sent as it is written")), expected, "{url}: {said:?}");
    };
    for url in [
        "https://h",
        "https://h/",
        "https://h/a%2Fb/c",
        "https://h/ä/b c?x=../y",
        "https://h/%C3%A4",
        "https://H:443/a",
    ] {
        check(url, false);
    }
    for url in ["https://h/a%2Fb/../c", "https://h/./a", "https://h/a/%2e%2E/b", "https://h/a\\b", "https://h/.."] {
        check(url, true);
    }
}

#[test]
fn a_secret_in_a_file_loses_one_newline() {
    let folder = tempfile::tempdir().unwrap();
    let check = |content: &str, expected: &[u8]| {
        fs::write(folder.path().join("secret"), content).unwrap();
        let text = "[[endpoint]]\nname = \"e\"\nurl = \"http://h\"\nsecret = { file = \"secret\" }";
        let loaded = settings::parse(&folder.path().join("w.toml"), text, &environment()).unwrap();
        assert_eq!(loaded.settings.endpoints[0].secrets[0].secret.expose(), expected);
        assert_eq!(loaded.settings.endpoints[0].secrets[0].file, Some(folder.path().join("secret")));
    };
    check("s", b"s");
    check("s\n", b"s");
    check("s\r\n", b"s");
    check("s\n\n", b"s\n");
    check(" s ", b" s ");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whether the settings are good or bad, nothing that is printed holds a secret.
    #[test]
    fn no_output_holds_a_secret(secret in "[A-Za-z0-9]{12,40}", also in prop::sample::select(vec![
        "", "bogus = 1", "[store]\npath = 3", "[limits]\nevent = \"nonsense\"", "not toml",
        "[[endpoint]]\nname = \"x\"\nurl = \"http://h\"\nsecret = \"SECRET\"",
        "[[endpoint]]\nname = \"x\"\nurl = \"http://u:SECRET@h\"\nsecret = { env = \"S\" }",
        "[[endpoint]]\nname = \"x\"\nurl = { env = \"S\" }\nsecret = { env = \"S\" }",
        "[[endpoint]]\nname = \"x\"\nurl = \"http://h/?key=SECRET\"\nsecret = { env = \"S\", default = \"SECRET\" }",
        "[[endpoint]]\nname = \"x\"\nurl = \"http://h\"\nsecret = { env = \"S\" }\ntimeout = { env = \"S\" }",
        "[[endpoint]]\nname = \"x\"\nurl = \"http://h\"\nsecret = { env = \"S\" }\nheaders = { X-Api-Key = \"SECRET\" }",
        "[[endpoint]]\nname = \"x\"\nurl = \"http://h\"\nsecret = \"SECRET",
        "[[endpoint]]\nname = \"x\"\nurl = \"http://h\"\nsecret = \"SECRET\" SECRET",
        "[[source]]\nname = \"y\"\nkind = \"nats\"\nurl = \"nats://SECRET@h\"\nsubjects = [\"a\"]",
        "[[source]]\nname = \"y\"\nkind = \"nats\"\nurl = \"nats://h\"\nsubjects = [\"a\"]\npassword = \"SECRET\"",
    ])) {
        let text = format!(
            "{}\n[[endpoint]]\nname = \"e\"\nurl = \"https://h/?key={secret}\"\nsecret = [{{ env = \"S\" }}]\n\
             headers = {{ Authorization = {{ env = \"S\" }}, X-Other = \"{secret}\" }}\n\
             [[source]]\nname = \"s\"\nkind = \"http\"\ntoken = {{ env = \"S\" }}\n\
             [[source]]\nname = \"n\"\nkind = \"nats\"\nurl = \"nats://h\"\nsubjects = [\"a\"]\nuser = \"u\"\npassword = {{ env = \"S\" }}\n",
            also.replace("SECRET", &secret),
        );
        let environment = Environment::of(&[("S", &secret)], "/nowhere");
        let printed = match settings::parse(Path::new("w.toml"), &text, &environment) {
            Ok(loaded) => {
                let shown: String = loaded.shown.iter().map(|s| format!("{} {} {}", s.key, s.value, s.origin)).collect();
                let mut settings = loaded.settings;
                // A URL is not a secret to the program; where it has a query, only `config show` hides that.
                settings.endpoints.iter_mut().for_each(|endpoint| endpoint.url.set_query(None));
                format!("{settings:?} {shown} {:?} {:?}", loaded.warnings, environment)
            }
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!printed.contains(&secret), "{printed}");
    }
}
