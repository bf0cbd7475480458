use super::*;

fn parse(text: &str) -> Result<Manifest, String> {
    Manifest::parse(Path::new("orders.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn a_whole_sidecar() {
    let manifest = parse(
        r#"
        subjects = ["fraiseql.order.*", "audit.>"]
        endpoints = ["orders", "audit"]
        grants = []
        [config]
        currency = "EUR"
        rates = [1, 2.5, true]
        since = 2024-01-02
        nested = { a = "b" }
        [limits]
        deadline = "250ms"
        memory = "128MiB"
        [retry]
        max_attempts = 7
        initial_delay = "2s"
        multiplier = 3.0
        max_delay = "10m"
        "#,
    )
    .unwrap();
    let config: Vec<(&str, &str)> = manifest.config.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(
        config,
        [("currency", "EUR"), ("nested", r#"{"a":"b"}"#), ("rates", "[1,2.5,true]"), ("since", "2024-01-02")]
    );
    assert_eq!(manifest.subjects, ["fraiseql.order.*", "audit.>"]);
    assert_eq!(manifest.endpoints, [Arc::from("orders"), Arc::from("audit")]);
    let limits = Limits { deadline: Duration::from_millis(250), memory_bytes_max: 128 << 20, ..Limits::default() };
    assert_eq!(manifest.limits, limits);
    assert_eq!((manifest.retry.max_attempts, manifest.retry.multiplier), (7, 3.0));
    assert_eq!(manifest.retry.initial_delay, Duration::from_secs(2));
    assert_eq!(manifest.retry.max_delay, Duration::from_mins(10));
}

#[test]
fn an_empty_sidecar_is_the_default() {
    assert_eq!(parse("").unwrap(), Manifest::default());
    assert_eq!(Manifest::default().retry.max_attempts, 5);
    assert!(Manifest::default().subscribes_to("anything.at.all"));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let check = |text: &str, expected: &str| {
        let error = parse(text).expect_err(text);
        assert!(error.contains(expected), "`{text}` gave `{error}`, expected `{expected}`");
    };
    check("\nsubject = [\"a\"]", "orders.toml:2: unknown field `subject`");
    check("[limits]\n\ncpu = \"1s\"", "orders.toml:3: unknown key `cpu` in [limits]; known: `deadline`, `memory`");
    check("subjects = [\n  \"a\",\n  \"a..b\",\n]", "orders.toml:3: the subject `a..b` has an empty token");
    check("subjects = []", "orders.toml:1: 0 subjects");
    check("subjects = [\">.a\"]", "is not the whole last token");
    check("subjects = [\"a.b>\"]", "is not the whole last token");
    check("subjects = [\"a.b*\"]", "`*` within a token");
    check("subjects = [\"a b\"]", "space");
    check("\n\nendpoints = [\"a\", \"a\"]", "orders.toml:3: the endpoint `a` is named twice");
    check("grants = [\"root\"]", "unknown grant `root`");
    check("[limits]\ndeadline = \"1h\"", "orders.toml:2: deadline = \"1h\" is not between");
    check("[limits]\ndeadline = \"soon\"", "orders.toml:2: deadline = \"soon\" is not between \"5ms\" and \"10s\"");
    check("[limits]\nmemory = \"1GiB\"", "orders.toml:2: memory = \"1GiB\" is not between \"64KiB\" and \"256MiB\"");
    check("[limits]\nbody = 5", "orders.toml:2: body = 5 is an integer, not a string with a unit such as \"1MiB\"");
    check("[limits]\nwebhooks = \"5\"", "orders.toml:2: webhooks = \"5\" is a string, not an integer");
    check("[limits]\nwebhooks = 0", "orders.toml:2: webhooks = 0 is not between 1 and 256");
    check("[limits]\nreuse = true", "orders.toml:2: reuse = true is neither a string nor an integer");
    check("[retry]\nmax_attempts = 0", "orders.toml:2: max_attempts = 0");
    check("[retry]\nmultiplier = 0.5", "orders.toml:2: multiplier = 0.5");
    check("[retry]\nmultiplier = nan", "orders.toml:2: multiplier = NaN");
    check("[retry]\ninitial_delay = \"1h\"", "orders.toml:2: max_delay is shorter than initial_delay");
    check("subjects = [\"a\"\nendpoints = 1", "orders.toml:2: ");
    check(&" ".repeat(SIDECAR_BYTES_MAX + 1), "65537 bytes");
}

#[test]
fn subjects_match_as_in_nats() {
    let check = |pattern: &str, subject: &str, expected: bool| {
        assert_eq!(subject_matches(pattern, subject), expected, "{pattern} {subject}");
    };
    check(">", "a", true);
    check("a.>", "a.b.c", true);
    check("a.>", "a", false);
    check("a.*", "a.b", true);
    check("a.*", "a.b.c", false);
    check("a.*.c", "a.b.c", true);
    check("*", "a.b", false);
    check("a.b", "a.b", true);
    check("a.b", "a.bc", false);
    check("a.b", "a", false);
}

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn endpoints(ask: &[&str], granted: Option<&[&str]>, configured: &[&str]) -> Result<Vec<Arc<str>>, String> {
    let ask = Manifest { endpoints: names(ask), ..Manifest::default() };
    let ceiling = granted.map(|granted| PluginCeiling {
        name: "orders".into(),
        sha256: None,
        endpoints: names(granted),
        grants: BTreeSet::new(),
        limits: SomeLimits::default(),
        backlog: crate::settings::BacklogSettings::default(),
        http: Vec::new(),
    });
    effective(ask, ceiling.as_ref(), &SomeLimits::default(), &names(configured))
        .map(|manifest| manifest.endpoints)
        .map_err(|error| error.to_string())
}

#[test]
fn a_plugin_gets_what_it_asks_for_where_it_is_granted() {
    let check = |ask: &[&str], granted: Option<&[&str]>, configured: &[&str], expected: &[&str]| {
        assert_eq!(endpoints(ask, granted, configured).unwrap(), names(expected), "{ask:?} {granted:?} {configured:?}");
    };
    check(&[], None, &["a"], &["a"]);
    check(&["b", "a"], None, &["a", "b"], &["b", "a"]);
    check(&["a"], Some(&[]), &["a", "b"], &["a"]);
    check(&[], Some(&["b"]), &["a", "b"], &["b"]);
    check(&["b"], Some(&["a", "b"]), &["a", "b"], &["b"]);
}

#[test]
fn a_plugin_is_refused_what_is_not_granted() {
    let check = |ask: &[&str], granted: Option<&[&str]>, configured: &[&str], expected: &str| {
        let error = endpoints(ask, granted, configured).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    };
    check(&["c"], None, &["a", "b"], "`c`, which is not configured; configured: `a`, `b`");
    check(&["b"], Some(&["a"]), &["a", "b"], "does not grant; granted: `a`");
    check(&[], None, &["a", "b"], "several endpoints (`a`, `b`)");
    check(&[], None, &[], "no endpoint is configured");
    check(&[], Some(&["gone"]), &["a"], "no endpoint is configured");
}

#[test]
fn a_plugin_gets_the_grants_it_asks_for_and_is_given() {
    let ask = |sidecar: &str| Manifest::parse(Path::new("orders.toml"), sidecar);
    let ceiling = |grants: &[Grant]| PluginCeiling {
        name: "orders".into(),
        sha256: None,
        endpoints: Vec::new(),
        grants: grants.iter().copied().collect(),
        limits: SomeLimits::default(),
        backlog: crate::settings::BacklogSettings::default(),
        http: Vec::new(),
    };
    let granted = |sidecar: &str, grants: &[Grant]| {
        effective(ask(sidecar).unwrap(), Some(&ceiling(grants)), &SomeLimits::default(), &names(&["a"]))
            .map(|manifest| manifest.grants)
    };
    assert_eq!(granted("grants = [\"state\"]", &[Grant::State]).unwrap(), BTreeSet::from([Grant::State]));
    assert_eq!(granted("", &[Grant::State]).unwrap(), BTreeSet::new(), "what is not asked for is not given");
    let refused = granted("grants = [\"state\"]", &[]).unwrap_err().to_string();
    assert!(refused.contains("asks for the grant `state`") && refused.contains("grants = [\"state\"]"), "{refused}");
    let unlisted = effective(ask("grants = [\"state\"]").unwrap(), None, &SomeLimits::default(), &names(&["a"]));
    assert!(matches!(unlisted, Err(ManifestError::NotGranted { .. })));
    let unknown = ask("subjects = [\">\"]\ngrants = [\"root\"]").unwrap_err().to_string();
    assert!(unknown.contains("orders.toml:2: unknown grant `root`; known: `state`"), "{unknown}");
}

#[test]
fn of_each_limit_the_lesser_holds() {
    let limits = |text: &[(Limit, u64)]| {
        let mut limits = SomeLimits::default();
        text.iter().for_each(|(limit, value)| limits.set(*limit, *value));
        limits
    };
    let ask = parse("[limits]\nwebhooks = 50\nreuse = 100\nbody = \"2MiB\"\nheaders = 2").unwrap();
    let ceiling = PluginCeiling {
        http: Vec::new(),
        name: "orders".into(),
        sha256: None,
        endpoints: Vec::new(),
        grants: BTreeSet::new(),
        limits: limits(&[(Limit::Reuse, 10)]),
        backlog: crate::settings::BacklogSettings::default(),
    };
    let for_all = limits(&[(Limit::Reuse, 20), (Limit::Webhooks, 5), (Limit::Headers, 3)]);
    let held = effective(ask.clone(), Some(&ceiling), &for_all, &names(&["a"])).unwrap().limits;
    assert_eq!(held.events_per_instance_max, 10, "its own grant goes before the one for all");
    assert_eq!((held.webhooks_max, held.headers_max), (5, 2));
    assert_eq!(held.body_bytes_max, 1 << 20, "what nobody grants stays as it is by default");
    let unlisted = effective(ask, None, &for_all, &names(&["a"])).unwrap().limits;
    assert_eq!(unlisted.events_per_instance_max, 20);
}

#[test]
fn subjects_are_read_from_a_sidecar_that_is_wrong_elsewhere() {
    let check = |text: &str, expected: &[&str]| assert_eq!(subjects_of(text), expected, "{text}");
    check("subjects = [\"fraiseql.order.*\"]\nendpoints = 7\n[limits]\nmemory = \"9 TiB\"", &["fraiseql.order.*"]);
    check("subjects = [\"fraiseql.order.*\", \"fraiseql..x\"]", &[">"]);
    check("subjects = \"fraiseql.order.*\"", &[">"]);
    check("subjects = [", &[">"]);
    check("endpoints = [\"orders\"]", &[">"]);
}
