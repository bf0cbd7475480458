//! The whole path on a disk whose power is cut: no ack precedes its sync, no webhook is sent that the store forgets,
//! and whatever the disk holds afterwards goes on to its end under the same webhook ids.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use rusqlite::Connection;
use tempfile::TempDir;
use wirehook::clock::SystemClock;
use wirehook::drain;
use wirehook::event::Message;
use wirehook::settings::Synchronous;
use wirehook::source::{Accept, Source, SourceError, SourceState};
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook::store::{Store, StoreStatus};
use wirehook_tests::account::Account;
use wirehook_tests::artifacts::{example_plugin, hostile_guest};
use wirehook_tests::events::{entity_id, order_created};
use wirehook_tests::fake_endpoint::{Answer, Call, FakeEndpoint, Script};
use wirehook_tests::power_cut::{Cut, PowerCut, Recording, Unsynced};
use wirehook_tests::wait;
use wirehook_tests::whole_path::{Plugins, WholePath};

/// Chooses the cuts and what survives them; `POWER_CUT_SEED` overrides it.
fn seed() -> u64 {
    let seed = std::env::var("POWER_CUT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    println!("POWER_CUT_SEED={seed}");
    seed
}

const DEADLINE: Duration = Duration::from_secs(60);

/// Events, in batches; several batches are on their way at once.
const BATCHES: usize = 40;
const BATCH: usize = 3;
const EVENTS: usize = BATCHES * BATCH;
const IN_FLIGHT: usize = 4;

/// `orders` makes one webhook of an event, `fan_out` makes two.
const WEBHOOKS_PER_EVENT: usize = 3;

/// Cuts that are looked into, each twice; and those of them from which the path goes on.
const CUTS: usize = 60;
const RESUMED: usize = 5;

/// A bus that keeps a message until its ack, and writes down when it got it.
struct Bus {
    name: Arc<str>,
    numbers: Vec<usize>,
    power: Option<Arc<PowerCut>>,
}

impl Source for Bus {
    fn run(
        self: Box<Self>,
        inbox: Arc<dyn Accept>,
        _: SourceState,
        _: drain::Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        async move {
            let deliver = async |numbers: &[usize]| {
                let messages = numbers.iter().map(|number| message(*number)).collect();
                inbox.accept(&self.name, messages).await.unwrap();
                if let Some(power) = &self.power {
                    numbers.iter().for_each(|number| power.mark(format!("acked {number}")));
                }
            };
            let batches = stream::iter(self.numbers.chunks(BATCH)).map(deliver);
            batches.buffer_unordered(IN_FLIGHT).collect::<()>().await;
            Ok(())
        }
        .boxed()
    }
}

fn message(number: usize) -> Message {
    let event = order_created(number);
    let position = Some(format!("EVENTS:1:{number}"));
    Message { subject: event.subject.as_str().into(), payload: event.body, headers: Vec::new(), position }
}

/// The plugins of these tests, in a folder.
fn plugins(root: &TempDir) -> Plugins {
    let folder = root.path().join("plugins");
    std::fs::create_dir(&folder).unwrap();
    let put = |name: &str, file: &Path, sidecar: &str| {
        std::fs::copy(file, folder.join(format!("{name}.wasm"))).unwrap();
        std::fs::write(folder.join(format!("{name}.toml")), sidecar).unwrap();
    };
    // A machine under load may take its time for a call.
    let limits = "[limits]\ndeadline = \"5s\"\n";
    let orders = format!("subjects = [\"fraiseql.order.*\"]\nendpoints = [\"shop\"]\n{limits}");
    put("orders", &example_plugin("orders").unwrap(), &orders);
    let fan_out = format!("endpoints = [\"shop\", \"ledger\"]\n[config]\nendpoints = \"shop,ledger\"\n{limits}");
    put("fan_out", &hostile_guest("fan_out").unwrap(), &fan_out);
    Plugins::new(&folder).unwrap()
}

/// Answers the first attempt of every seventh order with 503, and writes every receipt down.
fn script(power: &Arc<PowerCut>, endpoint: &'static str) -> Script {
    let power = Arc::clone(power);
    Script::by(move |call: &Call<'_>| {
        power.mark(format!("received {endpoint} {}", call.request.webhook_id()));
        let seventh = (0..EVENTS).step_by(7).map(entity_id);
        let refused = call.number == 1 && seventh.into_iter().any(|id| contains(&call.request.body, &id));
        Answer::status(if refused { 503 } else { 200 })
    })
}

fn contains(body: &Bytes, part: &str) -> bool {
    body.windows(part.len()).any(|window| window == part.as_bytes())
}

/// Runs the path from an empty store until every webhook is delivered, through the VFS that remembers.
async fn work(synchronous: Synchronous, checkpoint_bytes: u64, plugins: &Plugins) -> Recording {
    let power = Arc::new(PowerCut::register());
    let folder = tempfile::tempdir().unwrap();
    let shop = FakeEndpoint::start(script(&power, "shop")).await.unwrap();
    let ledger = FakeEndpoint::start(script(&power, "ledger")).await.unwrap();
    let options = SqliteOptions {
        synchronous,
        checkpoint_bytes,
        vfs: Some(power.vfs().to_owned()),
        ..SqliteOptions::new(folder.path().join("store.db"))
    };
    let store = Arc::new(SqliteStore::open(options, SystemClock::shared().now()).unwrap());
    let endpoints = [("shop", &shop), ("ledger", &ledger)];
    let path = WholePath::start(Arc::clone(&store), plugins, "bus", &endpoints).await.unwrap();
    feed(&path, (0..EVENTS).collect(), Some(&power)).await;
    until_delivered(&*store).await;
    path.stop().await.unwrap();
    power.recording()
}

async fn feed(path: &WholePath, numbers: Vec<usize>, power: Option<&Arc<PowerCut>>) {
    let bus = Box::new(Bus { name: "bus".into(), numbers, power: power.cloned() });
    let (_handle, drain) = drain::channel();
    bus.run(path.inbox.clone(), SourceState::new("bus".into(), "fake"), drain).await.unwrap();
}

/// Waits until every event has ended as delivered webhooks.
async fn until_delivered(store: &dyn Store) {
    let delivered = |status: &StoreStatus| {
        status.events == EVENTS as u64
            && status.runs.iter().all(|runs| runs.state == "produced")
            && status.deliveries.iter().all(|deliveries| deliveries.state.as_str() == "delivered")
            && status.deliveries.iter().map(|deliveries| deliveries.count).sum::<u64>()
                == (EVENTS * WEBHOOKS_PER_EVENT) as u64
    };
    let mut last = None;
    let waited = wait::until("every webhook to be delivered", DEADLINE, async || {
        let status = last.insert(store.status(SystemClock::shared().now()).await?);
        Ok(delivered(status).then_some(()))
    });
    waited.await.unwrap_or_else(|error| panic!("{error}: {last:?}"));
}

/// What an image holds.
#[derive(Default)]
struct Found {
    events: BTreeSet<String>,
    /// Every delivery's id with its body, and whether it is delivered.
    deliveries: BTreeMap<String, bool>,
    /// Runs that are not finished and have deliveries all the same; or finished ones that lack some.
    torn_runs: u64,
}

/// Looks into the image; opening the store first, as a start of the host does.
fn look(folder: &Path) -> Found {
    let path = folder.join("store.db");
    if !path.exists() {
        return Found::default();
    }
    drop(SqliteStore::open(SqliteOptions::new(&path), SystemClock::shared().now()).expect("the store opens clean"));
    let connection = Connection::open(&path).unwrap();
    let integrity: String = connection.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
    Account::of(&connection).expect("the equations hold");
    let count = |sql: &str| -> u64 { connection.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap() as u64 };
    let mut events = connection.prepare("SELECT entity_id FROM event JOIN dedup USING (seq)").unwrap();
    let mut deliveries = connection
        .prepare("SELECT id, state = 'delivered' FROM delivery d JOIN webhook w ON w.delivery_seq = d.seq")
        .unwrap();
    Found {
        events: events.query_map((), |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap(),
        deliveries: deliveries
            .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap(),
        torn_runs: count(
            "SELECT count(*) FROM run r LEFT JOIN
               (SELECT event_seq, plugin, count(*) made FROM delivery JOIN webhook ON delivery_seq = seq
                GROUP BY event_seq, plugin) d
               ON d.event_seq = r.event_seq AND d.plugin = r.plugin
             WHERE coalesce(d.made, 0) <>
               CASE WHEN r.state <> 'produced' THEN 0 WHEN r.plugin = 'fan_out' THEN 2 ELSE 1 END",
        ),
    }
}

/// What was acknowledged before the cut and is not in the image.
fn lost(cut: &Cut<'_>, found: &Found) -> Vec<String> {
    let there = |mark: &&String| match mark.split(' ').collect::<Vec<_>>()[..] {
        ["acked", number] => found.events.contains(&entity_id(number.parse().unwrap())),
        ["received", _, id] => found.deliveries.contains_key(id),
        _ => panic!("an unknown mark: {mark}"),
    };
    cut.marks.iter().filter(|mark| !there(mark)).cloned().collect()
}

/// Everything acknowledged that some cut lost, with the cut; fails on images that are wrong in themselves.
fn losses(recording: &Recording, seed: u64) -> Vec<String> {
    let mut losses = Vec::new();
    recording.for_each_cut(&recording.sample(CUTS, seed), |cut| {
        for unsynced in [Unsynced::Lost, Unsynced::Torn(seed ^ cut.step as u64)] {
            let folder = tempfile::tempdir().unwrap();
            cut.image(unsynced).write_to(folder.path()).unwrap();
            let found = look(folder.path());
            let at = format!("at step {}, {unsynced:?}, seed {seed}", cut.step);
            assert_eq!(found.torn_runs, 0, "a run and its deliveries were torn apart {at}");
            for (id, delivered) in &found.deliveries {
                let sent = || cut.marks.iter().any(|mark| mark.ends_with(id.as_str()));
                assert!(!delivered || sent(), "{id} is delivered and was never received {at}");
            }
            losses.extend(lost(cut, &found).into_iter().map(|mark| format!("{mark} {at}")));
        }
    });
    losses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_ack_and_no_webhook_precedes_its_sync_and_every_image_goes_on_to_the_end() {
    let root = tempfile::tempdir().unwrap();
    let plugins = plugins(&root);
    let seed = seed();
    // Small, so that a short test meets many checkpoints.
    let recording = work(Synchronous::Full, 64 * 1024, &plugins).await;
    assert_eq!(losses(&recording, seed), Vec::<String>::new());

    let ids = ids_at_the_end(&recording);
    assert_eq!(ids.len(), EVENTS * WEBHOOKS_PER_EVENT);
    let mut images = Vec::new();
    recording.for_each_cut(&recording.sample(RESUMED, seed.rotate_left(32)), |cut| {
        let folder = tempfile::tempdir().unwrap();
        cut.image(Unsynced::Torn(seed ^ cut.step as u64)).write_to(folder.path()).unwrap();
        let acked = (0..EVENTS).filter(|number| cut.marks.contains(&format!("acked {number}"))).collect();
        images.push((cut.step, folder, acked));
    });
    for (step, folder, acked) in images {
        resume(step, &folder, &acked, &plugins, &ids).await;
    }
}

fn ids_at_the_end(recording: &Recording) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    recording.for_each_cut(&[recording.len()], |cut| {
        let received = cut.marks.iter().filter_map(|mark| mark.strip_prefix("received "));
        ids = received.filter_map(|mark| mark.split(' ').nth(1)).map(str::to_owned).collect();
    });
    ids
}

/// Goes on after the cut: the bus hands over again what it has no ack for.
async fn resume(step: usize, folder: &TempDir, acked: &BTreeSet<usize>, plugins: &Plugins, ids: &BTreeSet<String>) {
    let done: BTreeSet<String> =
        look(folder.path()).deliveries.into_iter().filter(|(_, delivered)| *delivered).map(|(id, _)| id).collect();
    let shop = FakeEndpoint::start(Script::ok()).await.unwrap();
    let ledger = FakeEndpoint::start(Script::ok()).await.unwrap();
    let options = SqliteOptions::new(folder.path().join("store.db"));
    let store = Arc::new(SqliteStore::open(options, SystemClock::shared().now()).unwrap());
    let endpoints = [("shop", &shop), ("ledger", &ledger)];
    let path = WholePath::start(Arc::clone(&store), plugins, "bus", &endpoints).await.unwrap();
    feed(&path, (0..EVENTS).filter(|number| !acked.contains(number)).collect(), None).await;
    until_delivered(&*store).await;
    path.stop().await.unwrap();
    let account = Account::of_copy(&folder.path().join("store.db")).unwrap();
    assert!(account.is_idle() && account.dead_letters.is_empty(), "step {step}: {account:?}");
    for plugin in ["orders", "fan_out"] {
        assert_eq!(account.runs_of(plugin, "produced"), EVENTS as u64, "step {step}: {account:?}");
    }

    let mut requests = shop.requests();
    requests.extend(ledger.requests());
    let sent: BTreeSet<String> = requests.iter().map(|request| request.webhook_id().to_owned()).collect();
    assert_eq!(requests.len(), sent.len(), "step {step}: a webhook was sent twice");
    assert!(sent.is_disjoint(&done), "step {step}: a webhook known as delivered was sent again");
    assert_eq!(&sent | &done, *ids, "step {step}: the webhook ids differ from those before the cut");
}

/// The harness is worth something: where commits don't wait for the disk, it finds acked events and sent webhooks
/// that are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_that_do_not_wait_for_the_disk_are_caught() {
    let root = tempfile::tempdir().unwrap();
    // Large: only checkpoints sync here, and one after each commit would hide what is missing.
    let recording = work(Synchronous::Normal, 16 * 1024 * 1024, &plugins(&root)).await;
    let losses = losses(&recording, seed());
    for kind in ["acked", "received"] {
        let caught = losses.iter().any(|loss| loss.starts_with(kind));
        assert!(caught, "nothing {kind} was lost in {} steps", recording.len());
    }
}
