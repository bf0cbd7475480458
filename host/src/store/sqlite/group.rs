//! One transaction of the writer at a time: the commands of a group run in it and become durable together.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, OptionalExtension, Statement};
use tokio::sync::oneshot;

use super::accept::Arrived;
use super::age::Age;
use super::evict::{LetterBounds, Letters};
use super::patience::Patience;
use super::suspects::{Suspects, suspects};
use super::tally::Tally;
use crate::clock::passed::Passed;
use crate::store::{Accepted, DeliverySeq, EventSeq};

/// What the writer's commands work with. Lives as long as the writer's connection.
pub(super) struct Group<'c> {
    connection: &'c Connection,
    /// This host's row; what its claims carry.
    pub(super) host: i64,
    /// The statements that every event needs.
    pub(super) hot: Hot<'c>,
    pub(super) tally: Tally,
    pub(super) letters: Letters,
    pub(super) letter_bounds: Arc<LetterBounds>,
    pub(super) age: Arc<Age>,
    /// When this transaction began, by the store's clock: from then on what it writes ages.
    pub(super) passed: Passed,
    /// Up to which event the sweep under way has come.
    pub(super) swept_to: i64,
    pub(super) suspects: Suspects,
    /// Up to which event making room has come.
    pub(super) shrunk_to: i64,
    /// Whether this transaction may tell of events before they are durable.
    may_announce: bool,
    /// Whether it has events with runs to be called that it did not tell of.
    pub(super) has_unannounced: bool,
    pub(super) patience: Patience,
    event_last: i64,
    /// Events of this transaction come after it.
    event_before: i64,
    delivery_last: i64,
}

/// Statements prepared once for a connection.
pub(super) struct Hot<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    pub(super) dedup_insert: Statement<'c>,
    pub(super) dedup_digest: Statement<'c>,
    pub(super) event_insert: Statement<'c>,
    pub(super) run_insert: Statement<'c>,
    pub(super) run_open: Statement<'c>,
    pub(super) run_end: Statement<'c>,
    pub(super) delivery_insert: Statement<'c>,
    pub(super) webhook_insert: Statement<'c>,
    pub(super) delivery_open: Statement<'c>,
    pub(super) delivery_end: Statement<'c>,
    pub(super) attempt_insert: Statement<'c>,
}

impl<'c> Hot<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            dedup_insert: connection.prepare(
                "INSERT INTO dedup (seq, key, body_digest, seen_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (key) DO NOTHING",
            )?,
            dedup_digest: connection.prepare("SELECT body_digest FROM dedup WHERE key = ?1")?,
            event_insert: connection.prepare(
                "INSERT INTO event (seq, accepted_at, run_count, key, source, subject, entity_type, operation, entity_id,
                   tenant_id, timestamp, body_digest, attributes, entity, previous, aged_from)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
            )?,
            run_insert: connection.prepare(
                "INSERT INTO run (event_seq, plugin, state, due_at, claimed_by, order_key, bytes, ended_at, detail, aged_from)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
            )?,
            run_open: connection.prepare(
                "SELECT state, attempts, order_key, bytes FROM run
                 WHERE event_seq = ?1 AND plugin = ?2 AND claimed_by = ?3",
            )?,
            run_end: connection.prepare(
                "UPDATE run SET state = ?3, attempts = ?4, due_at = coalesce(?5, due_at), claimed_by = NULL, ended_at = ?6,
                   delivery_from = ?7, delivery_count = ?8, plugin_digest = ?9, detail = ?10, aged_from = ?11,
                   deadlines = deadlines + ?12
                 WHERE event_seq = ?1 AND plugin = ?2",
            )?,
            delivery_insert: connection.prepare(
                "INSERT INTO delivery (seq, id, event_seq, plugin, endpoint, state, due_at, claimed_by, created_at, order_key,
                   bytes, ended_at, aged_from)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?,
            webhook_insert: connection
                .prepare("INSERT INTO webhook (delivery_seq, content_type, headers, body) VALUES (?1, ?2, ?3, ?4)")?,
            delivery_open: connection
                .prepare("SELECT endpoint, state, attempts, order_key, bytes FROM delivery WHERE seq = ?1 AND claimed_by = ?2")?,
            delivery_end: connection.prepare(
                "UPDATE delivery SET state = ?2, attempts = ?3, due_at = coalesce(?4, due_at), claimed_by = NULL,
                   ended_at = ?5, last_status = ?6, last_error = ?7, aged_from = ?8 WHERE seq = ?1",
            )?,
            attempt_insert: connection.prepare(
                "INSERT INTO attempt (delivery_seq, number, started_at, duration_us, status, error, response)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
            )?,
        })
    }
}

impl<'c> Group<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        host: i64,
        age: Arc<Age>,
        letter_bounds: Arc<LetterBounds>,
    ) -> rusqlite::Result<Self> {
        let hot = Hot::prepare(connection)?;
        let last = |sql: &str| connection.query_row(sql, (), |row| row.get::<_, i64>(0));
        let event_last = last(
            "SELECT max(last, coalesce((SELECT max(seq) FROM event), 0), coalesce((SELECT max(seq) FROM dedup), 0))
             FROM sequence WHERE name = 'event'",
        )?;
        let delivery_last = last(
            "SELECT max(last, coalesce((SELECT max(seq) FROM delivery), 0)) FROM sequence WHERE name = 'delivery'",
        )?;
        let suspects = suspects(connection)?;
        Ok(Self {
            connection,
            host,
            hot,
            tally: Tally::default(),
            letters: Letters::load(connection)?,
            letter_bounds,
            passed: age.now(),
            age,
            swept_to: 0,
            shrunk_to: 0,
            suspects,
            may_announce: false,
            has_unannounced: false,
            patience: Patience::default(),
            event_last,
            event_before: event_last,
            delivery_last,
        })
    }

    pub(super) fn begin(&mut self, may_announce: bool) -> rusqlite::Result<()> {
        self.tally.forget();
        self.passed = self.age.now();
        (self.may_announce, self.has_unannounced) = (may_announce, false);
        self.patience.begin();
        self.event_before = self.event_last;
        self.hot.begin.raw_execute().map(drop)
    }

    pub(super) fn commit(&mut self) -> rusqlite::Result<()> {
        self.evict_letters()?;
        self.tally.write(self.connection)?;
        self.hot.commit.raw_execute()?;
        self.count_evicted();
        Ok(())
    }

    /// Undoes what a failed group wrote; an error means that SQLite has done so already.
    pub(super) fn roll_back(&mut self) {
        if !self.connection.is_autocommit() {
            let _already_undone = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// A position for the next arrival that is kept. One that is not used after all leaves a harmless gap.
    pub(super) fn event_candidate(&self) -> EventSeq {
        EventSeq(self.event_last + 1)
    }

    pub(super) fn take_event(&mut self) {
        self.event_last += 1;
    }

    /// The last position that an event was given.
    pub(super) fn event_last(&self) -> EventSeq {
        EventSeq(self.event_last)
    }

    /// Gives no event a position up to `last`: a transaction that failed may have announced them.
    pub(super) fn pass_over(&mut self, last: EventSeq) {
        self.event_last = self.event_last.max(last.0);
    }

    /// Tells what becomes of arrivals before that is durable, where it may be told, and there are runs to be called.
    pub(super) fn announce(&mut self, announce: oneshot::Sender<Accepted>, arrived: &Arrived) {
        if arrived.held.is_empty() {
            return;
        }
        if self.may_announce && announce.send(arrived.accepted.clone()).is_ok() {
            arrived.held.iter().for_each(|(_, plugin)| self.patience.announced(plugin));
        } else {
            self.has_unannounced = true;
        }
    }

    /// A try of a run has ended.
    pub(super) fn meet_announced(&mut self, event: EventSeq, plugin: &str) {
        if event.0 > self.event_before {
            self.patience.completed(plugin);
        }
    }

    pub(super) fn next_delivery(&mut self) -> DeliverySeq {
        self.delivery_last += 1;
        DeliverySeq(self.delivery_last)
    }

    /// Writes down the positions given so far, before a sweep removes the rows that show them.
    pub(super) fn keep_sequences(&self) -> rusqlite::Result<()> {
        let mut update = self.cached("UPDATE sequence SET last = ?2 WHERE name = ?1 AND last < ?2")?;
        update.execute(("event", self.event_last))?;
        update.execute(("delivery", self.delivery_last))?;
        Ok(())
    }

    /// For queries that readers share.
    pub(super) fn connection(&self) -> &'c Connection {
        self.connection
    }

    /// A statement that not every event needs.
    pub(super) fn cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'c>> {
        self.connection.prepare_cached(sql)
    }

    /// One value of one row, where there is one.
    pub(super) fn optional<T: rusqlite::types::FromSql>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> rusqlite::Result<Option<T>> {
        self.cached(sql)?.query_row(params, |row| row.get(0)).optional()
    }
}
