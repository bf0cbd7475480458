//! Cursors: where a source stands at its bus, kept in the commit of its messages.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;

use bytes::Bytes;
use wirehook::store::{Acceptance, Arrival, CURSOR_BYTES_MAX, SourceCursor, Store};

use super::{Factory, HERE, START, arrival, at, event, status};

/// A cursor of `source`.
pub fn cursor_of(source: &str, value: &[u8]) -> SourceCursor {
    SourceCursor { source: source.into(), value: Bytes::copy_from_slice(value) }
}

/// The cursor that is kept for `source`.
pub async fn kept_cursor(store: &dyn Store, source: &str) -> Option<Vec<u8>> {
    store.cursor(Arc::from(source)).await.unwrap().map(|value| value.to_vec())
}

fn one(id: &str) -> Vec<Arrival> {
    vec![arrival(event(id), &["orders"], HERE)]
}

/// The last one is kept for each source, and those of others are left alone.
pub async fn keeps_the_last_cursor_of_each_source(stores: impl Factory) {
    let store = stores();
    assert_eq!(kept_cursor(&*store, "bus").await, None);
    store.accept_at(one("a"), Some(cursor_of("bus", b"1")), START).await.unwrap();
    store.accept_at(one("b"), Some(cursor_of("other", b"x")), at(1)).await.unwrap();
    assert_eq!(kept_cursor(&*store, "bus").await.unwrap(), b"1");
    store.accept_at(one("c"), Some(cursor_of("bus", b"22")), at(2)).await.unwrap();
    store.accept(one("d"), at(3)).await.unwrap();
    assert_eq!(kept_cursor(&*store, "bus").await.unwrap(), b"22");
    assert_eq!(kept_cursor(&*store, "other").await.unwrap(), b"x");
    assert_eq!(kept_cursor(&*store, "bu").await, None);
    assert_eq!(status(&*store).await.events, 4);
}

/// A cursor moves on whatever its messages were, and without any.
pub async fn keeps_a_cursor_without_fresh_events(stores: impl Factory) {
    let store = stores();
    store.accept_at(one("a"), Some(cursor_of("bus", b"1")), START).await.unwrap();
    let again = store.accept_at(one("a"), Some(cursor_of("bus", b"2")), at(1)).await.unwrap().acceptances;
    assert_eq!(again, [Acceptance::Duplicate]);
    assert_eq!(kept_cursor(&*store, "bus").await.unwrap(), b"2");
    assert_eq!(store.accept_at(Vec::new(), Some(cursor_of("bus", b"")), at(2)).await.unwrap().acceptances, []);
    assert_eq!(kept_cursor(&*store, "bus").await.unwrap(), b"");
    let large = vec![7; CURSOR_BYTES_MAX];
    store.accept_at(Vec::new(), Some(cursor_of("bus", &large)), at(3)).await.unwrap();
    assert!(kept_cursor(&*store, "bus").await.unwrap() == large);
}

/// Of calls in a row, the last one's cursor stands, however they share commits.
pub async fn keeps_cursors_in_the_order_of_calls(stores: impl Factory) {
    let store = stores();
    let calls = (0..50u8).map(|n| store.accept_at(one(&n.to_string()), Some(cursor_of("bus", &[n])), START));
    for accepted in futures::future::join_all(calls).await {
        accepted.unwrap();
    }
    assert_eq!(kept_cursor(&*store, "bus").await.unwrap(), [49]);
}
