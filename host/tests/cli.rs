//! Commands, from their arguments to what they print and how they end.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clap::{CommandFactory, Parser};
use futures::FutureExt;
use futures::future::BoxFuture;
use wirehook::cli::parts::{
    DemoOptions, DemoReport, DevNews, DevOptions, Forwarded, ForwardedOutcome, PluginView, PublishReport,
    ReceiveOptions, Received, Routed, RunOptions, RunReport,
};
use wirehook::cli::{Cli, Console, Exit, Failure, Failures, Parts};
use wirehook::clock::{Clock, ManualClock, Timestamp};
use wirehook::dead_letter::Reason;
use wirehook::delivery::DeliveryId;
use wirehook::endpoint::TestReport;
use wirehook::logging::{LogFormat, LoggingError};
use wirehook::ops::access::{OfflineError, OpenOffline};
use wirehook::recorded::trial::Trial;
use wirehook::settings::{Environment, Settings, SourceSettings, StoreSettings};
use wirehook::store::{DeadLetterKind, Store};

mod fake;
use fake::FakeStore;
mod buses;

struct FakeParts {
    store: Arc<FakeStore>,
    plugins: Vec<PluginView>,
    run: Result<RunReport, Failures>,
    received: Vec<Received>,
    statuses: Mutex<Vec<u16>>,
    published: Mutex<Vec<Routed>>,
    tested: TestReport,
}

impl OpenOffline for FakeParts {
    fn open<'a>(&'a self, _: &'a StoreSettings) -> BoxFuture<'a, Result<Arc<dyn Store>, OfflineError>> {
        let store: Arc<dyn Store> = self.store.clone();
        async { Ok(store) }.boxed()
    }
}

impl Parts for FakeParts {
    fn begin_logging(&self, _: LogFormat, _: &str) -> Result<(), LoggingError> {
        Ok(())
    }
    fn clock(&self) -> Arc<dyn Clock> {
        ManualClock::starting_at(Timestamp(5))
    }
    fn opener(&self) -> &dyn OpenOffline {
        self
    }
    fn run(&self, _: Settings, _: RunOptions) -> BoxFuture<'_, Result<RunReport, Failures>> {
        async { self.run.clone() }.boxed()
    }
    fn receive<'a>(
        &'a self,
        options: ReceiveOptions,
        print: &'a mut (dyn FnMut(&Received) + Send),
    ) -> BoxFuture<'a, Result<(), Failures>> {
        assert!(options.secret.is_none_or(|secret| secret.expose() == b"s3cret"));
        *self.statuses.lock().unwrap() = options.statuses;
        self.received.iter().for_each(print);
        async { Ok(()) }.boxed()
    }
    fn dev<'a>(
        &'a self,
        options: DevOptions,
        print: &'a mut (dyn FnMut(&DevNews) + Send),
    ) -> BoxFuture<'a, Result<RunReport, Failures>> {
        assert_eq!(options.secret.unwrap().expose(), b"s3cret");
        print(&DevNews::Ready);
        let attempt = |outcome, status, error: Option<&str>| Forwarded {
            plugin: "orders".into(),
            endpoint: "shop".into(),
            webhook_id: "msg_1".to_owned(),
            attempt: 1,
            status,
            error: error.map(str::to_owned),
            duration: std::time::Duration::from_millis(12),
            outcome,
        };
        print(&DevNews::Attempted(attempt(ForwardedOutcome::Delivered, Some(200), None)));
        print(&DevNews::Attempted(attempt(
            ForwardedOutcome::Retried { due_at: Timestamp(1), after: std::time::Duration::from_millis(250) },
            None,
            Some("refused"),
        )));
        print(&DevNews::Attempted(attempt(ForwardedOutcome::Dead(Reason::Status4xx), Some(400), None)));
        async { self.run.clone() }.boxed()
    }
    fn demo(&self, options: DemoOptions) -> BoxFuture<'_, Result<DemoReport, Failures>> {
        async move { Ok(DemoReport { accounted: options.events == 1000 }) }.boxed()
    }
    fn publish<'a>(
        &'a self,
        _: &'a SourceSettings,
        events: Vec<Routed>,
        progress: &'a mut (dyn FnMut(&PublishReport) + Send),
    ) -> BoxFuture<'a, Result<PublishReport, Failures>> {
        let destinations = vec![events[0].destination.clone()];
        let published = events.len() as u64;
        let report = PublishReport { published, bytes: 7, unheard: Some(1), duplicates: 0, destinations };
        progress(&report);
        *self.published.lock().unwrap() = events;
        async { Ok(report) }.boxed()
    }
    fn test_endpoint<'a>(
        &'a self,
        settings: &'a Settings,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<TestReport>, Failures>> {
        let report = settings.endpoints.iter().any(|endpoint| *endpoint.name == *name).then(|| self.tested.clone());
        async { Ok(report) }.boxed()
    }
    fn inspect(&self, file: &Path, _: Option<&Settings>) -> PluginView {
        PluginView { file: file.to_owned(), ..self.plugins[0].clone() }
    }
    fn trial(&self, _: &Path) -> Result<Trial, Failure> {
        Err(Failure::new("nothing can be tried here"))
    }
    fn scan(&self, _: &Settings) -> Result<Vec<PluginView>, Failure> {
        Ok(self.plugins.clone())
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const SETTINGS: &str = "[[source]]\nname = \"in\"\nkind = \"stdin\"\n\
    [[endpoint]]\nname = \"shop\"\nurl = \"https://shop.example.com/hooks\"\nsecret = { env = \"SHOP_SECRET\" }\n";

struct Bench {
    folder: tempfile::TempDir,
    parts: FakeParts,
}

struct Ended {
    exit: Exit,
    out: String,
    err: String,
}

impl Bench {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("wirehook.toml"), settings).unwrap();
        let orders = PluginView { name: "orders".to_owned(), ok: true, ..PluginView::default() };
        let broken = PluginView {
            name: "broken".to_owned(),
            file: PathBuf::from("plugins/broken.wasm"),
            error: Some("it does not export on-event".to_owned()),
            help: Some("build it for the world subscriber".to_owned()),
            ..PluginView::default()
        };
        let received = Received {
            number: 1,
            webhook_id: Some("msg_1".to_owned()),
            verified: Some(true),
            problem: None,
            status: 503,
            attempt: 2,
            body: "{\"a\":1}".to_owned(),
        };
        let parts = FakeParts {
            store: FakeStore::with_letters(),
            plugins: vec![orders, broken],
            run: Ok(RunReport { dead_letters: 2, drained: true }),
            received: vec![received],
            statuses: Mutex::default(),
            published: Mutex::default(),
            tested: TestReport {
                endpoint: "shop".to_owned(),
                delivered: false,
                webhook_id: DeliveryId::from_stored("msg_test"),
                url: "https://shop.example.com/hooks".to_owned(),
                headers: vec![("authorization".to_owned(), "<redacted>".to_owned())],
                body: "{\"type\":\"wirehook.test\"}".to_owned(),
                status: Some(401),
                error: None,
                retry_after: None,
                response: "who are you?".to_owned(),
                duration_s: 0.25,
            },
        };
        Self { folder, parts }
    }

    async fn run(&self, arguments: &str) -> Ended {
        let cli = Cli::try_parse_from(["wirehook"].into_iter().chain(arguments.split_whitespace())).unwrap();
        let environment = Environment::of(&[("SHOP_SECRET", "s3cret")], self.folder.path());
        let (out, err) = (Buffer::default(), Buffer::default());
        let mut console = Console::of(out.clone(), err.clone());
        let exit = wirehook::cli::run(cli, &environment, &self.parts, &mut console).await;
        let ended = Ended { exit, out: out.text(), err: err.text() };
        assert!(!(ended.out.clone() + &ended.err).contains("s3cret"), "{}{}", ended.out, ended.err);
        ended
    }

    fn store(&self) -> &FakeStore {
        &self.parts.store
    }

    /// As `run`; checks the exit and gives every line of standard output as JSON.
    async fn objects(&self, arguments: &str, exit: Exit) -> Vec<serde_json::Value> {
        let ended = self.run(&format!("{arguments} --json")).await;
        assert_eq!(ended.exit, exit, "{arguments}: {}", ended.err);
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }
}

#[test]
fn the_arguments_are_consistent_and_every_command_has_an_example() {
    let mut root = Cli::command();
    root.clone().debug_assert();
    root.build();
    // What the host alone starts is hidden.
    let shown = || root.get_subcommands().filter(|command| !command.is_hide_set());
    for command in shown() {
        let help = command.get_after_help().unwrap_or_else(|| panic!("{} has no example", command.get_name()));
        assert!(help.to_string().contains(&format!("wirehook {}", command.get_name())), "{help}");
        for leaf in command.get_subcommands() {
            let name = format!("wirehook {} {}", command.get_name(), leaf.get_name());
            let help = leaf.get_after_help().unwrap_or_else(|| panic!("{name} has no example")).to_string();
            assert!(help.contains(&name), "`{name}` has no example of its own:\n{help}");
        }
    }
    let names: Vec<_> = shown().map(clap::Command::get_name).collect();
    assert_eq!(
        names,
        [
            "init",
            "run",
            "check",
            "dev",
            "publish",
            "receive",
            "verify",
            "deliveries",
            "endpoints",
            "dead-letters",
            "events",
            "trace",
            "purge",
            "plugin",
            "source",
            "status",
            "config",
            "demo",
            "completions"
        ]
    );
}

/// Words as a shell has them, as far as quotes go.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Fails where an example is no command or is wider than a terminal, or where a paragraph is broken by hand.
fn expect_examples(help: &str) {
    let is_example = |line: &str| line.starts_with("  ");
    for line in help.lines().filter(|line| is_example(line)) {
        assert!(line.chars().count() <= 98, "`{line}` would be wrapped");
    }
    for (line, next) in help.lines().zip(help.lines().skip(1)) {
        let are_prose = !line.is_empty() && !next.is_empty() && !is_example(line) && !is_example(next);
        assert!(!are_prose, "`{line}` is broken by hand");
    }
    let whole = help.replace("\\\n", " ");
    for line in whole.lines().filter(|line| is_example(line)) {
        let command = line.rsplit(" | ").next().unwrap();
        let command = command.split(" > ").next().unwrap().split(" < ").next().unwrap();
        if let Err(error) = Cli::try_parse_from(words(command)) {
            panic!("`{line}` is no command: {error}");
        }
    }
}

#[test]
fn every_example_can_be_pasted() {
    let mut root = Cli::command();
    root.build();
    let mut commands = vec![root];
    while let Some(command) = commands.pop() {
        command.get_after_help().iter().for_each(|help| expect_examples(&help.to_string()));
        commands.extend(command.get_subcommands().cloned());
    }
}

#[test]
fn what_is_missing_or_mistyped_is_named() {
    let check = |arguments: &str, parts: &[&str]| {
        let error = Cli::try_parse_from(words(arguments)).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "`{arguments}` did not say `{part}`; it said: {error}");
        }
    };
    check("wirehook dev --source -", &["--plugin <FILE>", "--watch"]);
    check("wirehook plugin new orders --lang cobol", &["rust, go, c, python, ts, js"]);
    for language in ["rust", "Golang", "TypeScript", "py"] {
        Cli::try_parse_from(["wirehook", "plugin", "new", "orders", "--lang", language]).unwrap();
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let check = |arguments: &str| {
        let error = Cli::try_parse_from(["wirehook"].into_iter().chain(arguments.split_whitespace())).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{arguments}");
    };
    check("");
    check("runn");
    check("dead-letters list --reason nonsense");
    check("dead-letters redrive --all 3");
    check("deliveries list --limit 10001");
    check("deliveries list --state asleep");
    check("dead-letters list --since yesterday");
    check("dead-letters redrive --all --rate fast");
    check("dead-letters export 17 --redact /entity");
    check("deliveries discard --all --plugin orders");
    check("deliveries move --all");
    check("purge");
    check("receive --status 99");
    check("receive --secret-env A --secret-file b");
    check("receive --count 0");
    check("receive --scheme nonsense --secret-env A");
    check("verify -");
    check("verify --secret-env A");
    check("verify - --request r --secret-env A");
    check("verify - --secret-env A --scheme nonsense");
    check("verify - --secret-env A --signature-header X");
    check("verify - --secret-env A --endpoint shop");
    check("verify - --secret-env A -H nonsense");
    check("verify - --secret-env A --at yesterday");
    check("dev --source -");
    check("dev --plugin a.wasm --source - --forward-to localhost:3000");
    check("dev --plugin a.wasm --source - --forward-to http://u:p@localhost:3000");
    check("publish");
    check("publish order.created --count 0");
    check("publish events.jsonl --raw --entity {}");
}

#[tokio::test]
async fn errors_say_where_and_what_to_do() {
    let bench = Bench::new("[store]\npaht = \"x\"\n");
    for command in ["run", "check", "status", "config show", "plugin list", "dead-letters list", "deliveries list"] {
        let ended = bench.run(command).await;
        assert_eq!(ended.exit, Exit::Usage, "{command}");
        let at = bench.folder.path().join("wirehook.toml");
        let expected =
            format!("error: unknown key `paht` in [store]\n  at {}:2:1\n  help: did you mean `path`?\n", at.display());
        assert_eq!((ended.out.as_str(), ended.err), ("", expected), "{command}");
    }
}

#[tokio::test]
async fn a_run_without_a_source_is_refused() {
    let ended = Bench::new("").run("run").await;
    assert_eq!(ended.exit, Exit::Usage);
    assert!(ended.err.starts_with("error: no [[source]] is configured"), "{}", ended.err);
}

#[tokio::test]
async fn a_run_that_was_to_end_idle_fails_for_dead_letters() {
    let bench = Bench::new(SETTINGS);
    assert_eq!(bench.run("run").await.exit, Exit::Success);
    let ended = bench.run("run --exit-when-idle").await;
    assert_eq!(ended.exit, Exit::Failure);
    assert!(
        ended.err.contains("2 dead letters came to be") && ended.err.contains("dead-letters list"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn check_reports_every_plugin_and_the_span_of_retries() {
    let mut bench = Bench::new(SETTINGS);
    let ended = bench.run("check").await;
    assert_eq!(ended.exit, Exit::Failure);
    assert!(ended.out.contains("20 attempts over"), "{}", ended.out);
    assert_eq!(
        ended.err,
        "error: plugin `broken` would not run: it does not export on-event\n  at plugins/broken.wasm\n  \
         help: build it for the world subscriber\n"
    );
    bench.parts.plugins.pop();
    let ended = bench.run("check").await;
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Success, ""));
    assert!(ended.out.ends_with("all is well\n"), "{}", ended.out);
    assert!(ended.out.contains("\nmemory    reset between events"), "{}", ended.out);
    let objects = bench.objects("check", Exit::Success).await;
    let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["settings", "source", "endpoint", "plugin"]);
}

#[tokio::test]
async fn check_says_how_each_endpoint_signs_and_which_secret_is_past_its_end() {
    let signing = "signature = \"stripe\"\nsignature_header = \"X-Shop\"\nsecret = [{ env = \"SHOP_SECRET\" }, \
                   { env = \"SHOP_SECRET\", expires = \"1970-01-01T00:00:00.006Z\" }, \
                   { env = \"SHOP_SECRET\", expires = \"1970-01-01T00:00:00.005Z\" }]";
    let mut bench = Bench::new(&SETTINGS.replace("secret = { env = \"SHOP_SECRET\" }", signing));
    bench.parts.plugins.pop();
    let ended = bench.run("check").await;
    let expected = "warning: secret number 3 of endpoint `shop` expired on 1970-01-01T00:00:00.005Z: it signs nothing\n  \
                    help: remove it from `secret`\n";
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Success, expected));
    assert!(ended.out.contains("stripe in x-shop, 2 secrets"), "{}", ended.out);
    let objects = bench.objects("check", Exit::Success).await;
    let endpoint = objects.iter().find(|object| object["kind"] == "endpoint").unwrap();
    assert_eq!((&endpoint["signature"], &endpoint["signature_header"]), (&"stripe".into(), &"x-shop".into()));
    assert_eq!((&endpoint["secrets"], &endpoint["secrets_active"]), (&3.into(), &2.into()));
}

#[tokio::test]
async fn check_prints_what_the_receiver_of_an_ed25519_signature_verifies_with() {
    let text = SETTINGS.replace("secret =", "signature = \"standard-webhooks\"\nsecret =");
    let mut bench = Bench::new(&text.replace("{ env = \"SHOP_SECRET\" }", "{ file = \"key\" }"));
    bench.parts.plugins.pop();
    std::fs::write(bench.folder.path().join("key"), "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=\n").unwrap();
    let key = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let ended = bench.run("check").await;
    assert!(ended.out.contains(&format!("the receiver of shop verifies with {key}\n")), "{}{}", ended.out, ended.err);
    let objects = bench.objects("check", Exit::Success).await;
    let endpoint = objects.iter().find(|object| object["kind"] == "endpoint").unwrap();
    assert_eq!(endpoint["public_keys"], serde_json::json!([key]));
}

/// `{}` as the page's scheme signs it at 5 ms past the epoch, with `s3cret`.
const SIGNED: &str =
    "X-Signature: sha256=4f08262fc59cee1029bf862fd610cd0178916aecd5324d57c692b35dd050f7b8\nX-Timestamp: 0\n";

#[tokio::test]
async fn verify_says_whether_a_request_is_right_and_why_not() {
    let bench = Bench::new(SETTINGS);
    let file = |name: &str, content: &str| {
        let path = bench.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let right = file("right.http", &format!("POST /hooks HTTP/1.1\r\n{SIGNED}\n{{}}"));
    let wrong = file("wrong.http", &format!("{SIGNED}\n{{ }}"));
    for how in ["--secret-env SHOP_SECRET", "--endpoint shop", "--scheme fraiseql --secret-env SHOP_SECRET"] {
        let ended = bench.run(&format!("verify --request {right} {how}")).await;
        assert_eq!((ended.exit, ended.out.as_str()), (Exit::Success, "verified, scheme fraiseql\n"), "{}", ended.err);
    }
    let objects = bench.objects(&format!("verify --request {right} --secret-env SHOP_SECRET"), Exit::Success).await;
    assert_eq!((&objects[0]["verified"], &objects[0]["problem"]), (&true.into(), &serde_json::Value::Null));

    let ended = bench.run(&format!("verify --request {wrong} --secret-env SHOP_SECRET")).await;
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Failure, ""));
    let expected = "not verified, scheme fraiseql: the signature does not match: the body was re-serialised:";
    assert!(ended.out.starts_with(expected), "{}", ended.out);
    let objects = bench.objects(&format!("verify --request {wrong} --secret-env SHOP_SECRET"), Exit::Failure).await;
    assert_eq!((&objects[0]["reason"], &objects[0]["hints"]), (&"mismatch".into(), &vec!["reserialised"].into()));
    let objects =
        bench.objects(&format!("verify --request {right} --secret-env SHOP_SECRET --at 301"), Exit::Failure).await;
    assert_eq!((&objects[0]["reason"], &objects[0]["hints"].as_array().unwrap().len()), (&"stale".into(), &0));

    let check = async |arguments: &str, said: &str| {
        let ended = bench.run(arguments).await;
        assert_eq!((ended.exit, ended.out.as_str()), (Exit::Usage, ""), "{arguments}");
        assert!(ended.err.contains(said), "{}", ended.err);
    };
    let body = file("body.json", "{}");
    check(&format!("verify {body} --secret-env SHOP_SECRET"), "no signature's header that is known").await;
    check(&format!("verify {body} --endpoint none"), "there is no endpoint `none`\n  help: there are: shop\n").await;
    check(&format!("verify {body} --scheme hmac --secret-env UNSET"), "holds no secret").await;
    check("verify nowhere.json --secret-env SHOP_SECRET", "nowhere.json can't be read").await;
    check(&format!("verify --request {body} --secret-env SHOP_SECRET"), "is no HTTP request").await;
    let objects = bench.objects(&format!("verify {body} --scheme none --secret-env SHOP_SECRET"), Exit::Failure).await;
    assert_eq!(objects[0]["reason"], "unsigned");
}

#[tokio::test]
async fn check_warns_where_there_is_nothing_to_deliver_to() {
    let bench = Bench::new("[[source]]\nname = \"in\"\nkind = \"stdin\"\n");
    let ended = bench.run("check").await;
    assert!(ended.err.starts_with("warning: no [[endpoint]] is configured"), "{}", ended.err);
}

#[tokio::test]
async fn check_warns_of_an_endpoint_that_egress_refuses() {
    let check = async |host: &str, warned: bool| {
        let settings = SETTINGS.replace("shop.example.com", host) + "[egress]\nallow = [\"10.0.0.0/8\"]\n";
        let mut bench = Bench::new(&settings);
        bench.parts.plugins.pop();
        let ended = bench.run("check").await;
        let expected = "warning: every webhook to endpoint `shop` will be refused as egress_denied:";
        assert_eq!((ended.exit, ended.err.starts_with(expected)), (Exit::Success, warned), "{host}: {}", ended.err);
        assert_eq!(ended.out.ends_with("all is well\n"), !warned, "{host}: {}", ended.out);
    };
    check("127.0.0.1:8080", true).await;
    check("localhost", true).await;
    check("[::1]", true).await;
    check("10.1.2.3", false).await;
    check("shop.example.com", false).await;
}

#[tokio::test]
async fn a_short_span_of_retries_is_shown_to_the_millisecond() {
    let bench = Bench::new(&SETTINGS.replace("[[endpoint]]\n", "[[endpoint]]\nretry = \"page\"\n"));
    let ended = bench.run("check").await;
    assert!(ended.out.contains("3 attempts over 350ms"), "{}", ended.out);
}

#[tokio::test]
async fn settings_are_shown_with_their_origins() {
    let bench = Bench::new(SETTINGS);
    let objects = bench.objects("config show", Exit::Success).await;
    let find = |key: &str| objects.iter().find(|object| object["key"] == key).unwrap_or_else(|| panic!("{key}"));
    assert_eq!(find("endpoint.shop.secret")["value"], "<redacted>");
    assert_eq!(find("endpoint.shop.secret")["origin"], "env SHOP_SECRET");
    assert_eq!(find("endpoint.shop.timeout")["origin"], "default");
    assert!(find("endpoint.shop.url")["origin"].as_str().unwrap().ends_with("wirehook.toml:6"));
    let ended = bench.run("config show").await;
    assert!(ended.out.lines().any(|l| l.starts_with("limits.event") && l.contains("1.0 MiB")), "{}", ended.out);
}

#[tokio::test]
async fn dead_letters_are_filtered() {
    let bench = Bench::new(SETTINGS);
    let check = async |arguments: &str, expected: &[i64]| {
        let objects = bench.objects(&format!("dead-letters list {arguments}"), Exit::Success).await;
        let ids: Vec<i64> = objects.iter().map(|object| object["id"].as_i64().unwrap()).collect();
        assert_eq!(ids, expected, "{arguments}");
    };
    check("", &[4, 3, 2, 1]).await;
    check("--endpoint shop", &[3, 2]).await;
    check("--plugin orders", &[2, 1]).await;
    check("--reason plugin_trap", &[1]).await;
    check("--plugin orders --endpoint shop", &[2]).await;
    check("--limit 1", &[4]).await;
    check("--before 3 --limit 1", &[2]).await;
    check("--since 2026-03-02T14:00:00.002Z --until 2026-03-02T15:00:00.004+01:00", &[3, 2]).await;
    check("--reason too_large", &[]).await;
    assert_eq!(bench.run("dead-letters list --reason too_large").await.out, "no dead letters\n");
    let ended = bench.run("dead-letters list --reason status_4xx").await;
    let lines: Vec<&str> = ended.out.lines().collect();
    assert!(lines[0].starts_with("ID  KIND      REASON      PLUGIN  ENDPOINT  STATUS"), "{}", ended.out);
    assert!(lines[1].starts_with("2   delivery  status_4xx  orders  shop      400"), "{}", ended.out);
}

#[tokio::test]
async fn named_dead_letters_are_redriven_without_asking() {
    let bench = Bench::new(SETTINGS);
    let ended = bench.run("dead-letters redrive 1 2 4").await;
    assert_eq!(ended.exit, Exit::Success, "{}", ended.err);
    assert_eq!(ended.out, "1 run and 1 delivery put back to work\n");
    assert!(ended.err.starts_with("warning: 1 dead letter is a message and can't be redriven"), "{}", ended.err);
    assert_eq!(bench.parts.store.ids(), [3, 4]);
    let ended = bench.run("dead-letters redrive 1").await;
    assert_eq!(ended.exit, Exit::Failure);
    assert!(ended.err.contains("there is no dead letter 1"), "{}", ended.err);
}

#[tokio::test]
async fn a_list_that_goes_on_says_where() {
    let bench = Bench::new(SETTINGS);
    let ended = bench.run("dead-letters list --limit 2").await;
    assert!(ended.out.ends_with("for more: --before 3\n"), "{}", ended.out);
    let ended = bench.run("dead-letters list --limit 9").await;
    assert!(!ended.out.contains("for more"), "{}", ended.out);
}

#[tokio::test]
async fn a_redrive_with_a_rate_says_until_when_it_lasts() {
    let bench = Bench::new(SETTINGS);
    let ended = bench.run("dead-letters redrive 1 2 3 --rate 2/s").await;
    let expected = "1 run and 2 deliveries put back to work, the last one due at 1970-01-01T00:00:01.005Z\n";
    assert_eq!(ended.out, expected, "{}", ended.err);
}

#[tokio::test]
async fn dead_letters_are_exported_oldest_first() {
    let bench = Bench::new(SETTINGS);
    let exported = bench.run("dead-letters export --endpoint shop").await;
    let lines: Vec<serde_json::Value> = exported.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| &line["id"]).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((&lines[0]["payload"], &lines[0]["attempts_made"]), (&"{\"id\":2}".into(), &serde_json::json!([])));
    let ended = bench.run("dead-letters export 1 2 --fixture events").await;
    assert_eq!(ended.exit, Exit::Usage);
    assert!(ended.err.contains("a fixture is of one dead letter"), "{}", ended.err);
}

#[tokio::test]
async fn changes_of_deliveries_say_which_ones() {
    let bench = Bench::new(SETTINGS);
    for command in ["retry", "discard", "move --to shop"] {
        let ended = bench.run(&format!("deliveries {command}")).await;
        assert_eq!(ended.exit, Exit::Usage, "{command}");
        assert!(ended.err.contains("nothing says which deliveries are meant"), "{}", ended.err);
    }
    let ended = bench.run("deliveries move --all --to depot").await;
    assert_eq!(ended.exit, Exit::Usage);
    assert!(
        ended.err.contains("there is no endpoint `depot`") && ended.err.contains("there are: shop"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn changes_of_what_waits_refuse_a_reason_which_only_dead_ones_have() {
    let bench = Bench::new(SETTINGS);
    let check = async |command: &str, help: &str| {
        let ended = bench.run(&format!("deliveries {command} --reason status_410")).await;
        assert_eq!((ended.exit, ended.out.as_str()), (Exit::Usage, ""), "{command}");
        assert!(ended.err.starts_with("error: --reason is of dead deliveries"), "{}", ended.err);
        assert!(ended.err.contains(help), "{command}: {}", ended.err);
    };
    check("retry", "use `wirehook dead-letters redrive --reason status_410`").await;
    check("discard --endpoint shop --yes", "use `wirehook dead-letters discard --reason status_410`").await;
    check("move --to shop --dry-run", "add --dead").await;
    // Where it means something, the store is asked, which fails.
    let ended = bench.run("deliveries move --dead --to shop --reason status_410 --yes").await;
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Failure, "error: the store is closed\n"));
}

#[tokio::test]
async fn a_dry_run_with_a_limit_lists_the_oldest() {
    let bench = Bench::new(SETTINGS);
    let check = async |arguments: &str, expected: &[i64]| {
        let objects = bench.objects(&format!("dead-letters redrive {arguments} --dry-run"), Exit::Success).await;
        let ids: Vec<i64> = objects.iter().map(|object| object["id"].as_i64().unwrap()).collect();
        assert_eq!(ids, expected, "{arguments}");
    };
    check("--all", &[4, 3, 2, 1]).await;
    check("--all --limit 2", &[1, 2]).await;
    check("--endpoint shop --limit 1", &[2]).await;
    check("--endpoint shop --limit 9", &[2, 3]).await;
}

#[tokio::test]
async fn a_dry_run_says_what_its_list_leaves_out() {
    let bench = Bench::new(SETTINGS);
    let more = (5..).map(|id| fake::letter(id, DeadLetterKind::Run, Reason::PluginTrap, "orders", None));
    // With the one that is there, and those of other reasons beside them.
    bench.store().letters.lock().unwrap().extend(more.take(10_049));
    let check = async |arguments: &str, expected: &str| {
        let ended = bench.run(&format!("dead-letters discard {arguments} --dry-run")).await;
        assert_eq!((ended.exit, ended.err.as_str()), (Exit::Success, expected), "{arguments}");
    };
    check("--all", "warning: and 50 more: a list ends at 10000, what is done does not\n").await;
    check("--plugin orders", "warning: and 50 more at most: a list ends at 10000, what is done does not\n").await;
    check("--all --limit 10007", "warning: and 7 more: a list ends at 10000, what is done does not\n").await;
    check("--all --limit 10000", "").await;
    check("--plugin ledger", "").await;
}

#[tokio::test]
async fn what_left_no_trace_is_said() {
    let bench = Bench::new(SETTINGS);
    let ended = bench.run("trace 550e").await;
    assert_eq!(ended.exit, Exit::Failure);
    assert!(ended.err.contains("nothing is kept of `550e`"), "{}", ended.err);
}

#[tokio::test]
async fn a_plugin_whose_file_is_there_is_not_forgotten() {
    let bench = Bench::new(SETTINGS);
    std::fs::create_dir(bench.folder.path().join("plugins")).unwrap();
    std::fs::write(bench.folder.path().join("plugins/orders.wasm"), "").unwrap();
    let ended = bench.run("plugin forget orders --yes").await;
    assert_eq!(ended.exit, Exit::Failure);
    assert!(ended.err.contains("remove it first"), "{}", ended.err);
}

#[tokio::test]
async fn a_plugin_is_forgotten_once_it_was_looked_at() {
    let bench = Bench::new(SETTINGS);
    for how in ["", "--yes", "--dry-run"] {
        let ended = bench.run(&format!("plugin forget nobody {how}")).await;
        let expected = "error: there is no plugin `nobody`\n  help: there are: orders\n";
        assert_eq!((ended.exit, ended.err.as_str()), (Exit::Failure, expected), "{how}");
    }
    let ended = bench.run("plugin forget orders").await;
    let expected = "error: `orders` would be forgotten, with 3 parked runs and 2 keys that it kept, and there is no \
                    terminal to ask on\n  help: look with --dry-run, then say --yes\n";
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Usage, expected));
    let ended = bench.run("plugin forget orders --discard --dry-run").await;
    let expected = "`orders` would be forgotten: 3 parked runs discarded, 2 keys that it kept deleted\n";
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Success, expected));
    let objects = bench.objects("plugin forget orders --dry-run", Exit::Success).await;
    assert_eq!(objects, [serde_json::json!({ "known": true, "runs": 3, "in_flight": 0, "keys": 2 })]);
    assert!(bench.store().forgotten.lock().unwrap().is_empty(), "nothing was done");
    let ended = bench.run("plugin forget orders --yes").await;
    let expected = "`orders` is forgotten: 3 parked runs made dead letters, 2 keys that it kept deleted\n";
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Success, expected));
    assert_eq!(bench.run("plugin forget orders --yes").await.exit, Exit::Failure);
}

#[tokio::test]
async fn bulk_verbs_need_a_yes_where_nobody_can_be_asked() {
    let bench = Bench::new(SETTINGS);
    for command in ["redrive", "discard"] {
        let ended = bench.run(&format!("dead-letters {command}")).await;
        assert_eq!(ended.exit, Exit::Usage);
        assert!(ended.err.contains("nothing says which dead letters are meant"), "{}", ended.err);
        let ended = bench.run(&format!("dead-letters {command} --endpoint shop")).await;
        assert_eq!(ended.exit, Exit::Usage);
        assert!(ended.err.contains("error: 2 dead letters would be "), "{}", ended.err);
        assert!(ended.err.contains("look with --dry-run, then say --yes"), "{}", ended.err);
        let dry = bench.objects(&format!("dead-letters {command} --endpoint shop --dry-run"), Exit::Success).await;
        assert_eq!(dry.len(), 2);
        assert_eq!(bench.parts.store.ids(), [1, 2, 3, 4], "nothing was done");
    }
    let done = bench.objects("dead-letters discard --endpoint shop --yes", Exit::Success).await;
    assert_eq!(done, [serde_json::json!({ "discarded": 2 })]);
    assert_eq!(bench.parts.store.ids(), [1, 4]);
    bench.objects("dead-letters redrive --all --yes", Exit::Success).await;
    assert_eq!(bench.parts.store.ids(), [4]);
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let bench = Bench::new(SETTINGS);
    let ended = bench.run("dead-letters show 99").await;
    assert_eq!(ended.exit, Exit::Failure);
    assert!(ended.err.contains("there is no dead letter 99"), "{}", ended.err);
    let ended = bench.run("deliveries show msg_nope").await;
    assert!(ended.err.contains("there is no delivery msg_nope"), "{}", ended.err);
    let ended = bench.run("dead-letters show 2").await;
    assert!(ended.out.contains("payload   {\"id\":2}\n"), "{}", ended.out);
    // The store fails: its words, and exit code 1.
    let ended = bench.run("deliveries list").await;
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Failure, "error: the store is closed\n"));
}

#[tokio::test]
async fn a_look_at_the_store_needs_no_secret() {
    let bench = Bench::new(&SETTINGS.replace("SHOP_SECRET", "NOT_SET"));
    assert_eq!(bench.run("check").await.exit, Exit::Usage);
    assert_eq!(bench.run("status").await.exit, Exit::Success);
    assert_eq!(bench.run("dead-letters list").await.exit, Exit::Success);
    let ended = Bench::new("[store]\npaht = \"x.db\"\n").run("status").await;
    assert!(ended.err.starts_with("error: unknown key `paht` in [store]"), "{}", ended.err);
    assert_eq!(ended.exit, Exit::Usage);
}

#[tokio::test]
async fn status_speaks_without_a_host_too() {
    let bench = Bench::new(SETTINGS);
    let ended = bench.run("status").await;
    let expected = "no host runs on this store\nstore of 0 B, its log 0 B; 7 events kept, 0 unrouted\n\n\
                    DEAD LETTERS  LAST 24 H  KEPT\nplugin_trap           0     1\n";
    assert_eq!(ended.out, expected);
    let objects = bench.objects("status", Exit::Success).await;
    assert_eq!((objects[0]["host"].is_null(), objects[0]["store"]["events"].as_u64()), (true, Some(7)));
}

#[tokio::test]
async fn plugins_and_sources_are_paused_without_a_host_too() {
    let jetstream = "[[source]]\nname = \"bus\"\nkind = \"jetstream\"\nurl = \"nats://127.0.0.1:4222\"\nstream = \"E\"\n\
                     [[source]]\nname = \"web\"\nkind = \"http\"\n";
    let bench = Bench::new(&format!("{jetstream}{SETTINGS}"));
    let check = async |arguments: &str, exit, said: &str| {
        let ended = bench.run(arguments).await;
        assert_eq!(ended.exit, exit, "{arguments}: {}{}", ended.out, ended.err);
        assert!((ended.out.clone() + &ended.err).contains(said), "{arguments}: {}{}", ended.out, ended.err);
    };
    check("plugin pause orders", Exit::Success, "plugin `orders` is paused: events are accepted for it").await;
    check("plugin pause orders", Exit::Success, "plugin `orders` was paused already").await;
    check("plugin pause nobody", Exit::Failure, "there is no plugin `nobody`\n  help: there are: orders\n").await;
    check("plugin resume orders", Exit::Success, "plugin `orders` is resumed").await;
    check("plugin resume orders", Exit::Success, "plugin `orders` was not paused").await;
    check("source pause bus", Exit::Success, "its bus keeps what comes").await;
    check("source pause web", Exit::Usage, "its senders are refused meanwhile").await;
    check("source pause web --yes", Exit::Success, "what comes meanwhile is lost").await;
    check("source pause in --yes", Exit::Usage, "reads standard input, which can't be paused").await;
    check("source pause nobody", Exit::Failure, "there are: bus, web, in").await;
    let sources = bench.objects("source list", Exit::Success).await;
    let told: Vec<_> = sources.iter().map(|it| (it["name"].as_str().unwrap(), it["paused_since"].is_null())).collect();
    assert_eq!(told, [("bus", false), ("web", false), ("in", true)]);
    assert_eq!(sources[0]["state"], "stopped");
    let objects = bench.objects("source resume bus", Exit::Success).await;
    assert_eq!(objects, [serde_json::json!({ "source": "bus", "paused": false, "changed": true, "settled": true })]);
}

#[tokio::test]
async fn the_receiver_prints_what_it_takes() {
    let bench = Bench::new(SETTINGS);
    let ended = bench.run("receive --secret-env SHOP_SECRET --status 503,503,200").await;
    assert_eq!(ended.out, "1 503 msg_1 attempt 2 verified\n  {\"a\":1}\n");
    assert_eq!(*bench.parts.statuses.lock().unwrap(), [503, 503, 200]);
    let objects = bench.objects("receive --secret-env SHOP_SECRET", Exit::Success).await;
    assert_eq!(objects[0]["webhook_id"], "msg_1");
    let mut bench = bench;
    let problem = Some("the signature does not match the body".to_owned());
    let forged =
        Received { verified: Some(false), attempt: 0, status: 401, problem, ..bench.parts.received[0].clone() };
    bench.parts.received = vec![forged];
    let ended = bench.run("receive --secret-env SHOP_SECRET").await;
    assert!(ended.out.starts_with("1 401 msg_1 not verified: the signature does not match"), "{}", ended.out);
    let ended = bench.run("receive --secret-env NOT_SET").await;
    assert_eq!(ended.exit, Exit::Usage);
    assert!(ended.err.contains("--secret-env names the variable NOT_SET, which holds no secret"), "{}", ended.err);
}

#[tokio::test]
async fn a_receiver_that_verifies_nothing_says_so() {
    let bench = Bench::new(SETTINGS);
    let check = async |arguments: &str, warned: bool| {
        let logs = Buffer::default();
        let writer = logs.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let logging = tracing::subscriber::set_default(subscriber);
        bench.objects(&format!("receive {arguments}"), Exit::Success).await;
        drop(logging);
        let logs = logs.text();
        assert_eq!(
            logs.contains("nothing is verified") && logs.contains("--secret-env"),
            warned,
            "{arguments}: {logs}"
        );
    };
    check("", true).await;
    check("--secret-env SHOP_SECRET", false).await;
    check("--scheme none", false).await;
}

#[tokio::test]
async fn plugins_are_listed_and_inspected() {
    let bench = Bench::new(SETTINGS);
    let ended = bench.run("plugin list").await;
    assert_eq!(ended.exit, Exit::Success);
    assert!(ended.out.contains("orders  ok") && ended.out.contains("broken  refused"), "{}", ended.out);
    assert!(ended.err.starts_with("warning: plugin `broken` would not run: it does not export"), "{}", ended.err);
    let ended = bench.run("plugin inspect some.wasm").await;
    assert!(ended.out.ends_with("verdict   it would run\n"), "{}", ended.out);
    assert_eq!(bench.objects("plugin inspect some.wasm", Exit::Success).await[0]["file"], "some.wasm");
}

#[tokio::test]
async fn the_demonstration_and_completions_end_well() {
    let bench = Bench::new(SETTINGS);
    assert_eq!(bench.run("demo").await.exit, Exit::Success);
    assert_eq!(bench.run("demo --events 5").await.exit, Exit::Failure);
    let ended = bench.run("completions bash").await;
    assert!(ended.out.contains("dead-letters"), "{}", ended.out);
}

#[tokio::test]
async fn endpoints_are_listed_with_what_waits_for_them() {
    let bench = Bench::new(SETTINGS);
    let lines = bench.objects("endpoints list", Exit::Success).await;
    let names: Vec<_> =
        lines.iter().map(|line| (line["name"].as_str().unwrap(), line["state"].as_str().unwrap())).collect();
    assert_eq!(names, [("ledger", "disabled"), ("shop", "active")]);
    assert_eq!((&lines[0]["backlog"], &lines[0]["reason"]), (&7.into(), &"it answered 410".into()));
    assert_eq!(lines[0]["configured"], serde_json::Value::Null, "no host runs that could say");
    let ended = bench.run("endpoints list").await;
    assert!(ended.out.contains("ledger    disabled"), "{}", ended.out);
}

#[tokio::test]
async fn endpoints_change_their_state_or_say_what_is_meant() {
    let bench = Bench::new(SETTINGS);
    let ended = bench.run("endpoints pause shop --reason maintenance").await;
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Success, "shop is paused, since 1970-01-01T00:00:00.005Z\n"));
    assert_eq!(bench.store().endpoints.lock().unwrap()[1].reason, "by `wirehook endpoints pause`: maintenance");
    let ended = bench.run("endpoints pause shop").await;
    assert!(ended.out.starts_with("shop is paused already"), "{}", ended.out);
    let ended = bench.run("endpoints enable shop").await;
    assert_eq!(ended.exit, Exit::Failure);
    assert!(ended.err.contains("use `wirehook endpoints resume shop`"), "{}", ended.err);
    let resumed = bench.objects("endpoints resume shop", Exit::Success).await;
    assert_eq!(resumed[0]["state"], "active");
    let ended = bench.run("endpoints resume ledger").await;
    assert!(ended.err.contains("use `wirehook endpoints enable ledger`"), "{}", ended.err);
    assert_eq!(bench.run("endpoints enable ledger").await.exit, Exit::Success);
    assert_eq!(bench.run("endpoints disable ledger").await.exit, Exit::Success);
    let ended = bench.run("endpoints disable nobody").await;
    assert_eq!(ended.exit, Exit::Failure);
    assert!(
        ended.err.contains("there is no endpoint `nobody`") && ended.err.contains("there are: ledger, shop"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn a_test_prints_the_exchange_and_fails_unless_it_was_taken() {
    let bench = Bench::new(SETTINGS);
    let ended = bench.run("endpoints test shop").await;
    assert_eq!(ended.exit, Exit::Failure);
    assert_eq!(
        ended.out,
        "> POST https://shop.example.com/hooks\n> authorization: <redacted>\n>\n> {\"type\":\"wirehook.test\"}\n\n\
         < status 401, after 0.250 s\n<\n< who are you?\n"
    );
    let report = bench.objects("endpoints test shop", Exit::Failure).await.remove(0);
    assert_eq!((&report["status"], &report["webhook_id"]), (&401.into(), &"msg_test".into()));
    let ended = bench.run("endpoints test ledger").await;
    assert_eq!(ended.err, "error: there is no endpoint `ledger`\n  help: there are: shop\n");
}

#[tokio::test]
async fn check_prints_the_span_of_every_kind_of_schedule() {
    let endpoint = |name: &str, retry: &str| {
        format!(
            "[[endpoint]]\nname = \"{name}\"\nurl = \"https://h/x\"\nsecret = {{ env = \"SHOP_SECRET\" }}\n{retry}\n"
        )
    };
    let settings = [
        endpoint("curve", ""),
        endpoint("page", "retry = \"page\""),
        endpoint("standard", "retry = \"standard-webhooks\""),
        endpoint("own", "[endpoint.retry]\nschedule = [\"5s\", \"5m\"]"),
    ];
    let bench = Bench::new(&settings.concat());
    let ended = bench.run("check").await;
    for line in [
        "20 attempts over 2days 17h",
        "3 attempts over 350ms",
        "10 attempts over 3days 3h 35m 5s",
        "3 attempts over 5m 5s",
    ] {
        assert!(ended.out.contains(line), "`{line}` is not in\n{}", ended.out);
    }
}
