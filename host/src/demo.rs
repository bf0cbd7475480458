//! `wirehook demo`: the real host as a child process, fed on standard input; real receivers here, which verify by themselves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::cli::parts::{DemoOptions, DemoReport};
use crate::cli::{Failure, Failures};
use crate::clock::Clock;
use crate::receiver::{Counts, Receiver, ReceiverSettings, Script};
use crate::secret::Secret;
use crate::settings::SignatureScheme;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{DeliveryState, Store, StoreStatus};

/// Lines that are no events, to show what becomes of them.
const BROKEN_LINES: [&str; 3] = ["this is not JSON", "{\"event\":\"fraiseql.order.created\"", "42 and more"];

/// The subject of every event.
const SUBJECT: &str = "fraiseql.order.created";

/// How long the host may take for each event, besides a fixed minute.
const TIME_PER_EVENT: Duration = Duration::from_millis(20);

/// One receiver of the demonstration: a route leads to each, or the same plugin under a name of its own.
struct Stand {
    endpoint: &'static str,
    script: &'static str,
    /// More of the endpoint's settings. No breaker where it is meant to fail: the demonstration would wait for hours.
    settings: &'static str,
    does: &'static str,
}

const STANDS: [Stand; 3] = [
    Stand { endpoint: "orders", script: "200", settings: "", does: "answers 200" },
    Stand {
        endpoint: "flaky",
        script: "503,200",
        settings: "breaker = \"off\"\n",
        does: "answers 503 to each webhook's first attempt, then 200",
    },
    Stand { endpoint: "broken", script: "400", settings: "breaker = \"off\"\n", does: "answers 400, which is final" },
];

/// Runs the demonstration and prints what came of it. The folder stays, so that what is printed can be looked at.
///
/// # Errors
/// When it can't be set up. A host that loses something is no error but a report.
pub async fn run(options: DemoOptions, clock: Arc<dyn Clock>) -> Result<DemoReport, Failures> {
    let plugin = options.plugin.map(plugin_file).transpose()?;
    let dir = demo_dir()?;
    let secret = Secret::new(format!("demo-{}", fastrand::Rng::with_seed(clock.now().0.unsigned_abs()).u128(..)));
    let mut receivers = Vec::new();
    for stand in &STANDS {
        receivers.push(receiver(stand, &secret, &clock).await?);
    }
    let config = write_files(&dir, plugin.as_deref(), &secret, &receivers)?;
    if !options.json {
        println!(
            "The host reads {} events from standard input, and {} lines that are none.",
            options.events,
            BROKEN_LINES.len()
        );
    }
    let began = clock.monotonic();
    let exit_code = feed_host(&config, &dir, options.events).await?;
    let took = clock.monotonic().saturating_sub(began);

    let store = SqliteStore::open(
        SqliteOptions { migrate: false, create: false, ..SqliteOptions::new(dir.join("wirehook.db")) },
        clock.now(),
    );
    let store = store.map_err(|error| Failure::new(error.to_string()))?;
    let status = store.status(clock.now()).await.map_err(|error| Failure::new(error.to_string()))?;
    store.close().await;
    let counts: Vec<_> = receivers.iter().map(Receiver::counts).collect();
    let tally = Tally { events: options.events, exit_code, took, counts, status };
    if options.json {
        println!("{}", tally.as_json(&config));
    } else {
        tally.print(&config);
    }
    for receiver in receivers {
        receiver.stop().await;
    }
    Ok(DemoReport { accounted: tally.is_accounted() })
}

fn plugin_file(plugin: PathBuf) -> Result<PathBuf, Failure> {
    if plugin.is_file() {
        return Ok(plugin);
    }
    let help = "name a plugin's .wasm file, or leave --plugin out";
    Err(Failure::new(format!("there is no plugin at {}", plugin.display())).help(help))
}

fn demo_dir() -> Result<PathBuf, Failure> {
    // Its secret is nobody else's, for a demonstration too.
    let private = fs::Permissions::from_mode(0o700);
    let dir = tempfile::Builder::new().prefix("wirehook-demo-").permissions(private).tempdir();
    Ok(dir.map_err(|error| Failure::new(format!("a temporary folder can't be made: {error}")))?.keep())
}

async fn receiver(stand: &Stand, secret: &Secret, clock: &Arc<dyn Clock>) -> Result<Receiver, Failure> {
    let script: Script = stand.script.parse().map_err(|error| Failure::new(format!("{error}")))?;
    let (listen, scheme) = (([127, 0, 0, 1], 0).into(), SignatureScheme::Fraiseql);
    let settings = ReceiverSettings { listen, scheme, secrets: vec![secret.clone()], script };
    Receiver::start(settings, Arc::clone(clock), |_| {}).await.map_err(|error| Failure::new(error.to_string()))
}

fn write_files(dir: &Path, plugin: Option<&Path>, secret: &Secret, receivers: &[Receiver]) -> Result<PathBuf, Failure> {
    let plugins = dir.join("plugins");
    let config = dir.join("wirehook.toml");
    let mut settings = String::from(
        "[admin]\nlisten = \"127.0.0.1:0\"\n\n[egress]\nallow = [\"127.0.0.0/8\"]\n\n[[source]]\nname = \"lines\"\nkind = \"stdin\"\n",
    );
    let write = || -> std::io::Result<()> {
        fs::create_dir(&plugins)?;
        fs::write(dir.join("secret"), secret.expose())?;
        for (stand, receiver) in STANDS.iter().zip(receivers) {
            let Stand { endpoint, settings: more, .. } = stand;
            match plugin {
                Some(plugin) => {
                    fs::copy(plugin, plugins.join(format!("{endpoint}.wasm")))?;
                    let sidecar = format!("subjects = [\"{SUBJECT}\"]\nendpoints = [\"{endpoint}\"]\n");
                    fs::write(plugins.join(format!("{endpoint}.toml")), sidecar)?;
                }
                None => settings += &format!("\n[[route]]\nsubjects = [\"{SUBJECT}\"]\nto = \"{endpoint}\"\n"),
            }
            settings += &format!(
                "\n[[endpoint]]\nname = \"{endpoint}\"\nurl = \"http://{}/hooks/{endpoint}\"\nsecret = {{ file = \"secret\" }}\n{more}",
                receiver.address()
            );
        }
        fs::write(&config, settings)
    };
    write().map_err(|error| Failure::new(format!("{} can't be written to: {error}", dir.display())))?;
    Ok(config)
}

async fn feed_host(config: &Path, dir: &Path, events: u64) -> Result<Option<i32>, Failure> {
    let failed = |what: &'static str| move |error| Failure::new(format!("the host {what}: {error}"));
    let program = std::env::current_exe().map_err(failed("can't be found"))?;
    let log = fs::File::create(dir.join("host.log")).map_err(failed("can't have a log"))?;
    let mut host = Command::new(program)
        .args(["run", "--exit-when-idle", "--log-level", "info", "--config"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed("can't be started"))?;
    let deadline = Duration::from_mins(1) + TIME_PER_EVENT * u32::try_from(events).unwrap_or(u32::MAX);
    let stdin = host.stdin.take();
    let work = async {
        // A host that ended early is judged by its exit code and its log, not by the pipe it broke.
        if let Some(mut stdin) = stdin {
            let _broken = stdin.write_all(lines(events).as_bytes()).await;
        }
        host.wait().await
    };
    match tokio::time::timeout(deadline, work).await {
        Ok(ended) => Ok(ended.map_err(failed("can't be waited for"))?.code()),
        Err(_) => Err(Failure::new(format!("the host did not finish within {} s", deadline.as_secs()))
            .help(format!("read {}", dir.join("host.log").display()))),
    }
}

/// Events in the format of FraiseQL's page, with the broken lines among them.
fn lines(events: u64) -> String {
    let mut lines = String::new();
    let mut broken = BROKEN_LINES.iter();
    for number in 0..events {
        let id = format!("550e8400-e29b-41d4-a716-{number:012x}");
        let event = json!({
            "event": SUBJECT, "entity_type": "order", "operation": "created", "entity_id": id,
            "entity": {"id": id, "customer_email": format!("customer{number}@example.com"), "total": number, "status": "pending"},
            "timestamp": "2026-03-02T14:00:00Z",
        });
        lines += &format!("{event}\n");
        if let Some(line) = broken.next() {
            lines += &format!("{line}\n");
        }
    }
    broken.for_each(|line| lines += &format!("{line}\n"));
    lines
}

/// What receivers and store say; both must agree.
struct Tally {
    events: u64,
    exit_code: Option<i32>,
    took: Duration,
    counts: Vec<Counts>,
    status: StoreStatus,
}

impl Tally {
    fn deliveries(&self, endpoint: &str, state: DeliveryState) -> u64 {
        let matching = self.status.deliveries.iter().filter(|count| count.endpoint == endpoint && count.state == state);
        matching.map(|count| count.count).sum()
    }

    fn dead_messages(&self) -> u64 {
        self.status
            .dead_letters
            .iter()
            .filter(|count| count.reason.as_str() == "undecodable")
            .map(|count| count.count)
            .sum()
    }

    /// Every event has one webhook at each receiver, signed rightly, and the store says the same; every other line is a
    /// dead letter.
    fn is_accounted(&self) -> bool {
        let [orders, flaky, broken] = self.counts.as_slice() else { return false };
        let all = self.events;
        // 1, because what was to die has died.
        self.exit_code == Some(1)
            && self.status.events == all
            && self.status.events_unaccounted == 0
            && self.dead_messages() == BROKEN_LINES.len() as u64
            && self.counts.iter().all(|counts| counts.failed == 0 && counts.unchecked == 0 && counts.first == all)
            && (orders.accepted, flaky.accepted, broken.accepted) == (all, all, 0)
            && self.deliveries("orders", DeliveryState::Delivered) == all
            && self.deliveries("flaky", DeliveryState::Delivered) == all
            && self.deliveries("broken", DeliveryState::Dead) == all
    }

    fn print(&self, config: &Path) {
        let seconds = self.took.as_secs_f64();
        println!("It ran for {seconds:.1} s, the start of the host and the waits between attempts included.\n");
        println!(
            "{:<10} {:>9} {:>9} {:>10} {:>9} {:>9}   the receiver",
            "endpoint", "webhooks", "requests", "signatures", "delivered", "dead"
        );
        for (stand, counts) in STANDS.iter().zip(&self.counts) {
            let requests = counts.verified + counts.failed + counts.unchecked;
            let signatures = if counts.failed + counts.unchecked == 0 { "all good" } else { "BAD" };
            println!(
                "{:<10} {:>9} {requests:>9} {signatures:>10} {:>9} {:>9}   {}",
                stand.endpoint,
                counts.first,
                self.deliveries(stand.endpoint, DeliveryState::Delivered),
                self.deliveries(stand.endpoint, DeliveryState::Dead),
                stand.does
            );
        }
        println!("\n{} lines were no events; they are dead letters with their bytes.", self.dead_messages());
        let dir = config.parent().unwrap_or(Path::new("."));
        // By its whole path: it need not be installed to be demonstrated.
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("wirehook"));
        let program = program.display();
        println!("\nLook at it; the folder stays until you remove it:");
        println!("  cd {}", dir.display());
        for (command, what) in [
            ("status", "everything, counted"),
            ("deliveries list --endpoint flaky --limit 5", "delivered at the second attempt"),
            ("dead-letters list --limit 5", "and `show`, `redrive`, `discard`"),
            ("dead-letters list --reason undecodable", "the lines that were no events"),
        ] {
            println!("  {program} {command:<42}  # {what}");
        }
        if self.is_accounted() {
            println!("\nEvery event is accounted for.");
        } else {
            println!("\nNOT every event is accounted for: receivers and store disagree, or something is missing.");
            println!("The host's log is beside the settings, in host.log; it exited with {:?}.", self.exit_code);
        }
    }

    fn as_json(&self, config: &Path) -> serde_json::Value {
        let receivers = STANDS.iter().zip(&self.counts).map(|(stand, counts)| {
            json!({
                "endpoint": stand.endpoint, "webhooks": counts.first, "verified": counts.verified, "bad_signatures": counts.failed,
                "delivered": self.deliveries(stand.endpoint, DeliveryState::Delivered),
                "dead": self.deliveries(stand.endpoint, DeliveryState::Dead),
            })
        });
        json!({
            "events": self.events, "undecodable": self.dead_messages(), "duration_s": self.took.as_secs_f64(),
            "endpoints": receivers.collect::<Vec<_>>(), "accounted": self.is_accounted(), "config": config,
        })
    }
}
