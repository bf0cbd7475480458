//! Whether a session that listens is heard: a notification to itself has to come back, at the start and again and again.
//! The kernel does not tell: a proxy may acknowledge every byte after the server is gone, and a pooler takes a LISTEN for
//! a server process that is somebody else's a moment later.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::{Client, Error};

use super::connection::{first, quoted};
use super::words::explain;

/// Between two notifications to itself.
const BEAT_INTERVAL: Duration = Duration::from_secs(10);
/// How long one may be under way. With [`BEAT_INTERVAL`], a session is found deaf within 20 s.
const BEAT_DEADLINE: Duration = Duration::from_secs(10);
/// Pairs of transactions that tell whether a pooler keeps sessions apart.
const ROUNDS: usize = 8;

/// Why notifications never come.
pub(crate) const SHARED: &str = "`url` leads to a pooler that gives each transaction another session, so that notifications \
    never come; name the server itself in `url`, pool by session (pool_mode = session), or use a source of kind \
    postgres-outbox, which works behind any pooler";

/// What the driver of a connection notes.
pub(crate) struct Hearing {
    /// A channel of this session's own.
    channel: String,
    beats: watch::Sender<u64>,
    /// Whether the driver waits until notifications are taken.
    holds: AtomicBool,
    /// Whether it did since somebody asked.
    held: AtomicBool,
}

impl Hearing {
    /// With a channel that has `token` in its name, which nobody else has.
    pub(super) fn new(token: &str) -> Self {
        Self {
            channel: format!("wirehook_{token}"),
            beats: watch::Sender::new(0),
            holds: AtomicBool::new(false),
            held: AtomicBool::new(false),
        }
    }

    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    pub(super) fn beaten(&self) {
        self.beats.send_modify(|beats| *beats += 1);
    }

    pub(super) fn held_up(&self, holds: bool) {
        self.held.store(true, Ordering::Relaxed);
        self.holds.store(holds, Ordering::Relaxed);
    }

    /// Whether this host has let the server wait since this was asked last.
    fn was_held_up(&self) -> bool {
        self.held.swap(false, Ordering::Relaxed) | self.holds.load(Ordering::Relaxed)
    }
}

/// The server process that a statement meets.
async fn process(client: &Client) -> Result<String, Error> {
    Ok(first(&client.simple_query("SELECT pg_backend_pid()").await?).unwrap_or_default().to_owned())
}

/// Whether every transaction of `one` and of `other` meets a server process of its own. Nothing is set to find that out.
///
/// # Errors
///
/// The server's.
pub(super) async fn are_kept_apart(one: &Client, other: &Client) -> Result<bool, Error> {
    let (first, second) = (process(one).await?, process(other).await?);
    if first == second {
        return Ok(false);
    }
    for round in 0..ROUNDS {
        // In an order that no taking of turns follows.
        for _ in 0..=round % 2 {
            if process(one).await? != first {
                return Ok(false);
            }
        }
        if process(other).await? != second {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Listens on the channels, and on the session's own. Returns the server process that does.
///
/// # Errors
///
/// The server's.
pub(super) async fn listen(client: &Client, hearing: &Hearing, channels: &[String]) -> Result<String, Error> {
    let names = channels.iter().map(String::as_str).chain([hearing.channel()]);
    let statements: Vec<_> = names.map(|channel| format!("LISTEN {}", quoted(channel))).collect();
    // One transaction for all channels, so that no notification comes before the last LISTEN was answered.
    let said = client.simple_query(&format!("{}; SELECT pg_backend_pid()", statements.join("; "))).await?;
    Ok(first(&said).unwrap_or_default().to_owned())
}

/// Undoes [`listen`] where a pooler may have given it to a process that others use: as far as that is met again.
///
/// # Errors
///
/// The server's.
pub(super) async fn unlisten(
    client: &Client,
    hearing: &Hearing,
    channels: &[String],
    listening: &str,
) -> Result<(), Error> {
    let names = channels.iter().map(String::as_str).chain([hearing.channel()]);
    let statements: Vec<_> = names.map(|channel| format!("UNLISTEN {}", quoted(channel))).collect();
    let statements = format!("{}; SELECT pg_backend_pid()", statements.join("; "));
    for _ in 0..ROUNDS {
        if first(&client.simple_query(&statements).await?) == Some(listening) {
            break;
        }
    }
    Ok(())
}

/// Notifies the session that listens by `client`, which may be its own, and waits until that comes back. `listening` is
/// the process that has to answer, where it is the session's own.
///
/// # Errors
///
/// In words: it is not heard, or the connection is lost.
pub(super) async fn beat(client: &Client, hearing: &Hearing, listening: Option<&str>) -> Result<(), String> {
    let mut beats = hearing.beats.subscribe();
    let _ = hearing.was_held_up();
    let notify = format!("NOTIFY {}; SELECT pg_backend_pid()", quoted(hearing.channel()));
    let mut beat = pin!(async {
        let said = client.simple_query(&notify).await?;
        if listening.is_some_and(|listening| first(&said) != Some(listening)) {
            return Ok(false);
        }
        // An error means that the connection is gone, which its driver tells.
        let _ = beats.changed().await;
        Ok::<_, Error>(true)
    });
    loop {
        match tokio::time::timeout(BEAT_DEADLINE, &mut beat).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => return Err(SHARED.to_owned()),
            // It lives, and can't take this now: the queue of all notifications may be full.
            Ok(Err(error)) if error.as_db_error().is_some() && !client.is_closed() => return Ok(()),
            Ok(Err(error)) => return Err(explain(&error)),
            // What is behind notifications that nobody takes can't come; as soon as they are taken, the time begins anew.
            Err(_) if hearing.was_held_up() => {}
            Err(_) => {
                return Err(format!(
                    "a notification to itself did not come back within {BEAT_DEADLINE:?}: the server is gone, and a proxy \
                     or pooler keeps the connection open"
                ));
            }
        }
    }
}

/// Returns why, once the session is not heard any more.
pub(super) async fn lost(client: &Client, hearing: &Hearing, listening: &str) -> String {
    loop {
        tokio::time::sleep(BEAT_INTERVAL).await;
        if let Err(why) = beat(client, hearing, Some(listening)).await {
            return why;
        }
    }
}
