//! Hostile guests beside a plugin that behaves: each ends by name, the other's orders take no more than twice as long, and
//! the host's memory is back where it was.
//!
//! What is timed is the whole way, from an order's publication to its webhook: whoever waits for a worker, for the store or
//! for a core waits there. Both figures come from one host, minutes apart at most.

mod guests;
mod neighbour;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use wirehook_tests::bench::child::resident_bytes;
use wirehook_tests::events::{self, page_event};
use wirehook_tests::full;
use wirehook_tests::test_host::{DeadLetter, PluginFile, TestHost};
use wirehook_tests::wait;

use guests::{DEAD, MALFORMED, REFUSED};
use neighbour::{Neighbour, ORDERS};

/// For what must happen, on a busy machine and a build without optimisation.
const DEADLINE: Duration = Duration::from_secs(300);

/// The neighbour's p99 beside hostile guests, in multiples of its own without them.
const SLOWER_MAX: f64 = 2.0;

/// A machine that other programs use has hours of its own: a figure over the bound is taken again, its baseline too, and
/// counts when it is over every time.
const TRIES: usize = 3;

/// What the host's memory may be over its state before, in bytes: the store's caches, and the allocator's. A single guest
/// that kept what it took would be 64 MiB over.
const GROWTH_BYTES_MAX: u64 = 24 << 20;

/// What the host may have in memory while another process compiles for it, in bytes.
const COMPILING_BYTES_MAX: u64 = 128 << 20;

/// A hostile guest with a subject of its own.
fn subscribed(plugin: PluginFile) -> PluginFile {
    let subject = format!("fraiseql.{}.*", plugin.name);
    plugin.subscribed(&subject, "orders")
}

fn guest(name: &str) -> Result<PluginFile> {
    let is_text = wirehook_tests::text_guest::path(name).is_file();
    Ok(subscribed(if is_text { PluginFile::text(name)? } else { PluginFile::hostile(name)? }))
}

/// Publishes `events` events for each of `names`, in arrays.
async fn attack(neighbour: &Neighbour, names: &[&str], first: usize, events: usize) -> Result<()> {
    for name in names {
        let batch = (first..first + events).map(|number| page_event(name, "created", number, &json!({})));
        let (status, text) = neighbour.source.post(events::array(batch)).await?;
        ensure!(status == 202, "the events were answered {status}: {text}");
    }
    Ok(())
}

/// Times orders alone, lets `attack` begin, and times as many beside it: their p99 may not be more than [`SLOWER_MAX`]
/// times as long. `settle` waits until the attack is over. Both are told which try it is.
async fn check_p99(
    what: &str,
    neighbour: &Neighbour,
    mut attack: impl AsyncFnMut(usize) -> Result<()>,
    mut settle: impl AsyncFnMut(usize) -> Result<()>,
) -> Result<()> {
    let mut figures = Vec::new();
    for attempt in 0..TRIES {
        let alone = neighbour.p99(ORDERS).await?;
        attack(attempt).await?;
        let beside = neighbour.p99(ORDERS).await?;
        settle(attempt).await?;
        let factor = beside.as_secs_f64() / alone.as_secs_f64();
        figures.push(format!("{alone:.1?} × {factor:.2}"));
        if factor <= SLOWER_MAX {
            println!("{what}: the neighbour's p99 {}", figures.join(", "));
            return Ok(());
        }
    }
    anyhow::bail!("{what}: the neighbour's p99 was over {SLOWER_MAX} times as long: {}", figures.join(", "))
}

/// Waits until the host's memory is no more than [`GROWTH_BYTES_MAX`] over `before`.
async fn check_memory(host: &TestHost, before: u64) -> Result<()> {
    let mut now = before;
    let back = wait::until("the host's memory to be back", Duration::from_secs(10), async || {
        now = resident_bytes(host.pid()?)?;
        Ok((now <= before + GROWTH_BYTES_MAX).then_some(()))
    })
    .await;
    println!("RSS {} MiB before, {} MiB after", before >> 20, now >> 20);
    back.with_context(|| format!("RSS was {} MiB before, and is {} MiB", before >> 20, now >> 20))
}

/// Waits until each of `plugins` has left `count` dead letters.
async fn wait_dead(host: &TestHost, plugins: &[&str], count: usize) -> Result<()> {
    let mut missing = Vec::new();
    let waited = wait::until("every event to be a dead letter", DEADLINE, async || {
        let dead = host.dead_letters().await?;
        let left = |plugin: &str| dead.iter().filter(|letter| letter.plugin.as_deref() == Some(plugin)).count();
        missing = plugins.iter().filter(|plugin| left(plugin) < count).collect();
        Ok(missing.is_empty().then_some(()))
    })
    .await;
    waited.with_context(|| format!("of these some are missing: {missing:?}"))
}

fn check_letter(dead: &[DeadLetter], (name, reason, says): (&str, &str, &str)) -> Result<()> {
    let letters: Vec<_> = dead.iter().filter(|dead| dead.plugin.as_deref() == Some(name)).collect();
    ensure!(!letters.is_empty(), "{name} left no dead letter");
    for letter in letters {
        ensure!(
            letter.reason == reason && letter.detail.contains(says),
            "{name} should be {reason} with `{says}`, and is {}: {}",
            letter.reason,
            letter.detail
        );
        ensure!(!letter.detail.contains(['\r', '\u{1b}']), "{name} writes to the terminal: {:?}", letter.detail);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_guests_end_by_name_beside_one_that_behaves() -> Result<()> {
    /// Events for each guest, in each try.
    const EVENTS: usize = 2;
    let neighbour = Neighbour::new().await?;
    let mut builder = neighbour.host()?;
    for (name, ..) in DEAD {
        builder = builder.plugin(guest(name)?);
    }
    let mut host = builder.build()?;
    host.start().await?;
    // What is made once, at the first orders, is no part of either figure.
    neighbour.p99(ORDERS).await?;
    let before = resident_bytes(host.pid()?)?;
    let names: Vec<&str> = DEAD.iter().map(|(name, ..)| *name).collect();
    check_p99(
        "all guests at once",
        &neighbour,
        async |attempt| attack(&neighbour, &names, attempt * EVENTS, EVENTS).await,
        async |attempt| wait_dead(&host, &names, EVENTS * (attempt + 1)).await,
    )
    .await?;
    let dead = host.dead_letters().await?;
    let wrong: Vec<String> =
        DEAD.iter().filter_map(|case| check_letter(&dead, *case).err()).map(|error| error.to_string()).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    for name in names {
        host.folder.remove_plugin(name)?;
    }
    host.wait_metric("wirehook_events_unaccounted", "", 0.0, DEADLINE).await?;
    neighbour.p99(ORDERS).await?;
    check_memory(&host, before).await?;
    ensure!(neighbour.endpoint.look(|log| log.ids()) == neighbour.orders(), "a hostile plugin's webhook was sent");
    host.expect_all_accounted().await?;
    host.stop().await
}

/// Each guest alone with a flood of its own: only `--full` has the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hostile_guest_floods_beside_one_that_behaves() -> Result<()> {
    const EVENTS: usize = 100;
    /// Of those that are tried three times, for up to a second.
    const EVENTS_SLOW: usize = 10;
    if !full::wanted("a flood for each hostile guest") {
        return Ok(());
    }
    let neighbour = Neighbour::new().await?;
    let mut host = neighbour.host()?.build()?;
    host.start().await?;
    // What follows fills them too, which would look like a guest that keeps what it took.
    neighbour.fill_caches().await?;
    let before = resident_bytes(host.pid()?)?;
    let mut dead = 0;
    for (name, reason, _) in DEAD {
        host.folder.put_plugin(&guest(name)?)?;
        host.logs().wait_for(&format!("\"plugin\":{name:?}"), DEADLINE).await?;
        let events = if *reason == "plugin_deadline" { EVENTS_SLOW } else { EVENTS };
        check_p99(
            name,
            &neighbour,
            async |attempt| attack(&neighbour, &[name], attempt * events, events).await,
            async |_| {
                dead += events;
                host.wait_metric("wirehook_dead_letters_total", "", dead as f64, DEADLINE).await?;
                Ok(())
            },
        )
        .await?;
        host.folder.remove_plugin(name)?;
    }
    check_memory(&host, before).await?;
    host.expect_all_accounted().await?;
    host.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_loops_as_workers_leave_the_one_that_behaves_its_turn() -> Result<()> {
    /// Each loops for 100 ms, three times.
    const EVENTS: usize = 16;
    let workers = std::thread::available_parallelism()?.get();
    let neighbour = Neighbour::new().await?;
    let mut builder = neighbour.host()?.plugin_settings(&format!("workers = {workers}"));
    let names: Vec<String> = (0..workers).map(|number| format!("loop_{number}")).collect();
    for name in &names {
        let mut looping = PluginFile::hostile("loop_forever")?;
        looping.name.clone_from(name);
        builder = builder.plugin(subscribed(looping));
    }
    let mut host = builder.build()?;
    host.start().await?;
    neighbour.p99(ORDERS).await?;
    let before = resident_bytes(host.pid()?)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = workers * EVENTS;
    check_p99(
        &format!("{workers} loops"),
        &neighbour,
        async |attempt| attack(&neighbour, &names, attempt * EVENTS, EVENTS).await,
        async |attempt| {
            let over = host.dead_letters().await?.len();
            ensure!(over < all * (attempt + 1), "the loops were over before the orders were, which says nothing");
            host.wait_dead_letters(all * (attempt + 1), DEADLINE).await?;
            Ok(())
        },
    )
    .await?;
    check_memory(&host, before).await?;
    host.expect_all_accounted().await?;
    host.stop().await
}

/// What is to be said of each file, in the order of the folder's.
async fn check_refused(host: &TestHost, expected: &[(&str, &str)]) -> Result<()> {
    let mut missing = Vec::new();
    let said = wait::until("every file to be refused", DEADLINE, async || {
        let lines = host.logs().lines();
        let is_refused = |name: &str, says: &str| {
            let name = format!("\"plugin\":{name:?}");
            lines.iter().any(|line| line.contains(&name) && line.contains("won't load") && line.contains(says))
        };
        missing = expected.iter().filter(|(name, says)| !is_refused(name, says)).collect();
        Ok(missing.is_empty().then_some(()))
    })
    .await;
    said.with_context(|| {
        let lines = host.logs().lines();
        let about = |name: &str| lines.iter().rfind(|line| line.contains(name)).cloned().unwrap_or_default();
        let missing: Vec<_> = missing.iter().map(|(name, says)| format!("`{says}`: {}", about(name))).collect();
        missing.join("\n")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_no_plugins_are_refused_by_name_and_disturb_nobody() -> Result<()> {
    let neighbour = Neighbour::new().await?;
    let mut host = neighbour.host()?.build()?;
    let outside = tempfile::tempdir()?;
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "hunter2 = \"hunter2\"\n")?;
    let orders = PluginFile::example("orders")?;
    std::fs::write(outside.path().join("orders.wasm"), &orders.wasm)?;
    host.start().await?;
    neighbour.p99(ORDERS).await?;
    let before = resident_bytes(host.pid()?)?;

    let mut expected = Vec::new();
    let put_all = async |expected: &mut Vec<(&'static str, &'static str)>| {
        for (name, says) in REFUSED {
            host.folder.put_plugin(&guest(name)?)?;
            expected.push((*name, *says));
        }
        for (name, bytes, says) in MALFORMED {
            host.folder.put_plugin(&subscribed(PluginFile::of_bytes(name, bytes)))?;
            expected.push((*name, *says));
        }
        let half = &orders.wasm[..orders.wasm.len() / 2];
        host.folder.put_plugin(&subscribed(PluginFile::of_bytes("half", half)))?;
        expected.push(("half", "not whole"));
        // Machine code by its name: looked at by nobody.
        std::fs::write(host.folder.plugins().join("code.cwasm"), b"\x7fELF\x02\x01\x01\0")?;
        // Links that lead outside: of the plugin, and of its sidecar.
        let link = |from: &std::path::Path, name: &str| {
            let to = host.folder.plugins().join(name);
            if to.is_symlink() { Ok(()) } else { std::os::unix::fs::symlink(from, to) }
        };
        link(&outside.path().join("orders.wasm"), "linked.wasm")?;
        link(std::path::Path::new("/dev/zero"), "zeroes.wasm")?;
        link(&secret, "leaking.toml")?;
        std::fs::write(host.folder.plugins().join("leaking.wasm"), &orders.wasm)?;
        expected.extend([("linked", "outside the plugins folder"), ("zeroes", "outside the plugins folder")]);
        expected.push(("leaking", "outside the plugins folder"));
        anyhow::Ok(())
    };
    check_p99(
        "files that are no plugins",
        &neighbour,
        async |_| put_all(&mut expected).await,
        // Said once for each content, so in the first try.
        async |_| Ok(()),
    )
    .await?;
    check_refused(&host, &expected).await?;
    let logs = host.logs().lines().join("\n");
    ensure!(!logs.contains("hunter2"), "the host logged what is outside its folder");
    ensure!(!logs.contains("\"plugin\":\"code\""), "a .cwasm was looked at");
    let (_, ready) = host.readiness().await?;
    ensure!(!ready.contains("hunter2"), "{ready}");
    check_memory(&host, before).await?;
    host.expect_all_accounted().await?;
    host.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compile_bomb_goes_off_outside_the_host() -> Result<()> {
    let neighbour = Neighbour::new().await?;
    // Far less than any machine takes for the bomb.
    let host = neighbour.host()?.plugin_settings("compile_cpu = \"15s\"").build()?;
    let host = tokio::sync::Mutex::new(host);
    host.lock().await.start().await?;
    neighbour.p99(ORDERS).await?;
    let bomb = subscribed(PluginFile::of_bytes("bomb", &compile_bomb()?));
    check_p99(
        "a compile bomb",
        &neighbour,
        async |_| {
            let host = host.lock().await;
            host.folder.put_plugin(&bomb)?;
            wait::until("the bomb to be compiled", DEADLINE, async || Ok(compilers(host.pid()?)?.pop())).await?;
            Ok(())
        },
        async |_| {
            let mut host = host.lock().await;
            let compiler = compilers(host.pid()?)?.pop().context("the bomb was over before it was measured beside")?;
            let host_bytes = resident_bytes(host.pid()?)?;
            ensure!(host_bytes < COMPILING_BYTES_MAX, "the host has {} MiB while it compiles", host_bytes >> 20);
            if full::is_full() {
                check_refused(&host, &[("bomb", "took longer than 15 s of CPU")]).await?;
                host.folder.remove_plugin("bomb")?;
                return Ok(());
            }
            host.kill9().await?;
            host.folder.remove_plugin("bomb")?;
            ended(compiler).await?;
            host.start().await?;
            neighbour.p99(ORDERS).await?;
            Ok(())
        },
    )
    .await?;
    let mut host = host.into_inner();
    host.expect_all_accounted().await?;
    host.stop().await
}

/// Waits until a process is gone, or has nothing left but its exit code.
async fn ended(pid: u32) -> Result<()> {
    wait::until("the compiler to end with its host", DEADLINE, async || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        Ok(stat.map_or(true, |stat| stat.contains(") Z")).then_some(()))
    })
    .await
}

/// 180 KB to read and minutes to compile: every loop carries every local.
fn compile_bomb() -> Result<Vec<u8>> {
    use std::fmt::Write as _;
    const LOCALS: usize = 10_000;
    let mut body = format!("(local {})", "i64 ".repeat(LOCALS));
    for turn in 0..6_000 {
        let (to, from) = (turn % LOCALS + 1, turn * 7 % LOCALS + 1);
        write!(body, "(loop (local.set {to} (i64.add (local.get {from}) (i64.const 1))) (br_if 0 (local.get 0)))")?;
    }
    Ok(wat::parse_str(format!("(component (core module (func (param i32) {body})))"))?)
}

/// The processes that `host` compiles in.
fn compilers(host: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if parent == Some(host) {
            found.push(pid);
        }
    }
    Ok(found)
}
