//! Guarantee 2 as two equations over a store's file, counted from its rows and not by the host:
//!
//! - events × subscribed plugins = produced + filtered + dead + pending + parked
//! - deliveries = delivered + dead + waiting

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use crate::store_file;

/// Where a run may be; `discarded` is a dead one that an operator has let go.
const RUN_STATES: &str = "('produced', 'filtered', 'dead', 'pending', 'retrying', 'parked', 'discarded')";

/// Where a delivery may be.
const DELIVERY_STATES: &str = "('delivered', 'dead', 'pending', 'retrying', 'discarded')";

/// Each must count 0.
const IMBALANCES: &[(&str, &str)] = &[
    (
        "events whose runs are not as many as the plugins subscribed to it, each in a known state",
        "SELECT count(*) FROM event e WHERE run_count <>
           (SELECT count(*) FROM run r WHERE r.event_seq = e.seq AND r.state IN RUN_STATES)",
    ),
    ("runs without their event", "SELECT count(*) FROM run WHERE event_seq NOT IN (SELECT seq FROM event)"),
    (
        "produced runs whose deliveries are not as many as it made",
        "SELECT count(*) FROM run r WHERE state = 'produced' AND (delivery_count = 0 OR delivery_count <>
           (SELECT count(*) FROM delivery d WHERE d.seq >= r.delivery_from AND d.seq < r.delivery_from + r.delivery_count
              AND d.event_seq = r.event_seq AND d.plugin = r.plugin AND d.state IN DELIVERY_STATES))",
    ),
    (
        "deliveries of no run that produced them",
        "SELECT (SELECT count(*) FROM delivery) - (SELECT coalesce(sum(delivery_count), 0) FROM run WHERE state = 'produced')",
    ),
    ("deliveries without their webhook", "SELECT count(*) FROM delivery WHERE seq NOT IN (SELECT delivery_seq FROM webhook)"),
    (
        "dead runs without one dead letter each",
        "SELECT count(*) FROM run r WHERE state = 'dead' AND 1 <>
           (SELECT count(*) FROM dead_letter l WHERE l.event_seq = r.event_seq AND l.plugin = r.plugin AND l.delivery_seq IS NULL)",
    ),
    (
        "dead deliveries without one dead letter each",
        "SELECT count(*) FROM delivery d WHERE state = 'dead' AND 1 <>
           (SELECT count(*) FROM dead_letter l WHERE l.delivery_seq = d.seq)",
    ),
    (
        "deliveries with other attempts than those recorded",
        "SELECT count(*) FROM delivery d WHERE attempts <> (SELECT count(*) FROM attempt a WHERE a.delivery_seq = d.seq)",
    ),
    ("webhook ids that two deliveries have", "SELECT count(*) - count(DISTINCT id) FROM delivery"),
    (
        "counts kept of runs that differ from the rows",
        "SELECT count(*) FROM (SELECT plugin name, state, count(*) n FROM run GROUP BY 1, 2 UNION ALL
           SELECT name, state, -count FROM tally WHERE kind = 'run') GROUP BY name, state HAVING sum(n) <> 0",
    ),
    (
        "counts kept of deliveries that differ from the rows",
        "SELECT count(*) FROM (SELECT endpoint name, state, count(*) n FROM delivery GROUP BY 1, 2 UNION ALL
           SELECT name, state, -count FROM tally WHERE kind = 'delivery') GROUP BY name, state HAVING sum(n) <> 0",
    ),
];

/// What a store holds, by rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// Events.
    pub events: u64,
    /// Runs by plugin, then state.
    pub runs: BTreeMap<String, BTreeMap<String, u64>>,
    /// Deliveries by endpoint, then state.
    pub deliveries: BTreeMap<String, BTreeMap<String, u64>>,
    /// Dead letters by reason.
    pub dead_letters: BTreeMap<String, u64>,
    /// The most attempts that one delivery has.
    pub attempts_most: u64,
}

impl Account {
    /// Of a copy of the store at `path`, which may be as a crash left it; fails where an equation does not hold.
    pub fn of_copy(path: &Path) -> Result<Self> {
        let (_folder, copy) = store_file::copy(path)?;
        let connection = Connection::open(&copy).with_context(|| format!("opening a copy of {}", path.display()))?;
        let verdict: String = connection.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
        ensure!(verdict == "ok", "quick_check of {} says: {verdict}", path.display());
        Self::of(&connection)
    }

    /// Of an open store; fails where an equation does not hold.
    pub fn of(connection: &Connection) -> Result<Self> {
        for (what, sql) in IMBALANCES {
            let sql = sql.replace("RUN_STATES", RUN_STATES).replace("DELIVERY_STATES", DELIVERY_STATES);
            // A grouping that finds nothing has no row at all.
            let count = connection.prepare(&sql)?.query([])?.next()?.map_or(Ok(0), |row| row.get::<_, i64>(0));
            let count = count.with_context(|| format!("counting {what}"))?;
            ensure!(count == 0, "{count}: {what}");
        }
        let number = |sql: &str| {
            Ok::<_, anyhow::Error>(u64::try_from(connection.query_row(sql, [], |row| row.get::<_, i64>(0))?)?)
        };
        let mut dead_letters = BTreeMap::new();
        for (reason, by_kind) in grouped(connection, "SELECT reason, kind, count(*) FROM dead_letter GROUP BY 1, 2")? {
            dead_letters.insert(reason, by_kind.values().sum());
        }
        Ok(Self {
            events: number("SELECT count(*) FROM event")?,
            runs: grouped(connection, "SELECT plugin, state, count(*) FROM run GROUP BY 1, 2")?,
            deliveries: grouped(connection, "SELECT endpoint, state, count(*) FROM delivery GROUP BY 1, 2")?,
            dead_letters,
            attempts_most: number("SELECT coalesce(max(attempts), 0) FROM delivery")?,
        })
    }

    /// Runs of `plugin` in `state`.
    pub fn runs_of(&self, plugin: &str, state: &str) -> u64 {
        self.runs.get(plugin).and_then(|states| states.get(state)).copied().unwrap_or(0)
    }

    /// Deliveries to `endpoint` in `state`.
    pub fn deliveries_to(&self, endpoint: &str, state: &str) -> u64 {
        self.deliveries.get(endpoint).and_then(|states| states.get(state)).copied().unwrap_or(0)
    }

    /// Whether no work is left that will be done by itself.
    pub fn is_idle(&self) -> bool {
        let open = |state: &String| state == "pending" || state == "retrying";
        let mut states = self.runs.values().chain(self.deliveries.values()).flat_map(BTreeMap::iter);
        !states.any(|(state, count)| open(state) && *count > 0)
    }
}

fn grouped(connection: &Connection, sql: &str) -> Result<BTreeMap<String, BTreeMap<String, u64>>> {
    let mut select = connection.prepare(sql)?;
    let mut rows = select.query([])?;
    let mut groups: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let count = u64::try_from(row.get::<_, i64>(2)?)?;
        groups.entry(row.get(0)?).or_default().insert(row.get(1)?, count);
    }
    Ok(groups)
}
