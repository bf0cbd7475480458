//! Rows of FraiseQL's outbox: durable, and read with `SELECT` alone.
//!
//! Keys are drawn in order, and their rows become visible in the order of commits, which is another. So the source keeps
//! the highest key that it has read and the *gaps* below it (`frontier`), looks into the gaps again with every read, and
//! forgets a gap once nobody is left who could commit a row there (`holders`). All of that is the cursor, which the store
//! keeps in the same commit as the rows' events: a restart goes on exactly there.
//!
//! What holds for the table:
//!
//! - A key is drawn by the transaction that inserts its row, from one sequence that counts up. FraiseQL's is. Where keys are
//!   drawn ahead, by a sequence with a cache or an application, a gap waits longer, and the log warns.
//! - It is read where it is written: a standby, and a subscriber of logical replication, do not show who is about to commit.
//! - Rows are not changed once they are there; deleting them is fine, whether they have been read or not.
//! - With `synchronous_commit = off`, and after a failover to a standby that lacks the last commits, the server may lose rows
//!   that were delivered, and use their keys again; that is noticed where the sequence is behind.
//!
//! One batch is on its way into the store at a time, while the next is read: each cursor contains the ones before, so that a
//! batch that fails may not be followed by one that succeeds.

mod begin;
mod cursor;
mod frontier;
mod holders;
mod reader;
mod rows;
mod sitting;
mod table;

use std::sync::Arc;

use futures::future::BoxFuture;

use self::reader::Reader;
use super::{Accept, Source, SourceError, SourceState};
use crate::drain::Drain;
use crate::settings::{PostgresConnection, Start, TableName};

/// A table that is read in full, each row once.
#[derive(Debug)]
pub struct PostgresOutboxSource {
    pub(super) name: Arc<str>,
    pub(super) connection: PostgresConnection,
    pub(super) table: TableName,
    pub(super) channel: String,
    pub(super) start: Start,
    pub(super) event_bytes_max: usize,
}

impl Source for PostgresOutboxSource {
    fn run(
        self: Box<Self>,
        inbox: Arc<dyn Accept>,
        state: SourceState,
        drain: Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(Reader::new(*self, inbox, state, drain).run())
    }
}
