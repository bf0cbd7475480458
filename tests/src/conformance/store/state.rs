//! What plugins keep, and the runs that change it.

use std::sync::Arc;

use bytes::Bytes;
use wirehook::store::{
    Completed, EventSeq, RunCompletion, RunOutcome, STATE_BYTES_MAX, STATE_KEYS_MAX, Spends, StateChange, StateUsage,
    StateValue, StateVersion, Store,
};

use super::{Factory, HERE, START, accept, at, completion, due_runs};

type Written<'a> = (&'a str, Option<&'a [u8]>);

fn change(reads: &[(&str, Option<StateVersion>)], writes: &[Written<'_>]) -> Arc<StateChange> {
    Arc::new(StateChange {
        reads: reads.iter().map(|(key, version)| ((*key).into(), *version)).collect(),
        writes: writes.iter().map(|(key, value)| ((*key).into(), value.map(Bytes::copy_from_slice))).collect(),
    })
}

fn filtered(seq: EventSeq, state: Arc<StateChange>) -> RunCompletion {
    RunCompletion { state: Some(state), ..completion(seq, "orders", at(1), RunOutcome::Produced(Vec::new())) }
}

async fn complete(store: &dyn Store, completion: RunCompletion) -> Completed {
    store.complete_runs(vec![completion]).await.unwrap().remove(0)
}

fn kept(store: &dyn Store, key: &str) -> Option<StateValue> {
    store.state_value("orders", key).unwrap()
}

fn by(event: EventSeq) -> StateVersion {
    StateVersion { event, call: 0 }
}

fn ended() -> Completed {
    Completed::Ended(wirehook::store::Written::default())
}

/// What a run wrote is there once it is done, by name of its plugin; what a run wrote that is not done never is.
pub async fn keeps_state_with_the_run_that_wrote_it(stores: impl Factory) {
    let store = stores();
    let a = accept(&*store, "a", &["orders"], HERE, START).await;
    let b = accept(&*store, "b", &["orders"], HERE, START).await;
    let retry = RunOutcome::Retry { spends: Spends::Retry, due_at: at(2), detail: String::new() };
    let unfinished = RunCompletion { outcome: retry, ..filtered(b, change(&[], &[("b", Some(b"1"))])) };
    let first = filtered(a, change(&[("a", None)], &[("a", Some(b"\xff\0")), ("empty", Some(b""))]));
    assert_eq!(store.complete_runs(vec![first, unfinished]).await.unwrap(), [ended(), ended()]);
    assert_eq!(kept(&*store, "a"), Some(StateValue { value: Bytes::from_static(b"\xff\0"), version: by(a) }));
    assert_eq!(kept(&*store, "empty"), Some(StateValue { value: Bytes::new(), version: by(a) }));
    assert_eq!(kept(&*store, "b"), None);
    assert_eq!(store.state_value("invoices", "a").unwrap(), None);
    assert_eq!(store.state_usage("orders").unwrap(), StateUsage { keys: 2, bytes: 8 });

    assert_eq!(due_runs(&*store, "orders", at(2)).await, [(b, 1)]);
    let removes =
        filtered(b, change(&[("a", Some(by(a)))], &[("a", None), ("never", None), ("empty", Some(b"no more"))]));
    assert_eq!(complete(&*store, removes).await, ended());
    assert_eq!((kept(&*store, "a"), kept(&*store, "empty").unwrap().version), (None, by(b)));
    assert_eq!(store.state_usage("orders").unwrap(), StateUsage { keys: 1, bytes: 12 });
}

/// Also within one call; and the run is still its host's, to be completed later.
pub async fn a_change_of_what_was_read_is_a_conflict(stores: impl Factory) {
    let store = stores();
    let a = accept(&*store, "a", &["orders"], HERE, START).await;
    let b = accept(&*store, "b", &["orders"], HERE, START).await;
    let both_saw_nothing = |seq| filtered(seq, change(&[("count", None)], &[("count", Some(b"1"))]));
    let completed = store.complete_runs(vec![both_saw_nothing(a), both_saw_nothing(b)]).await.unwrap();
    assert_eq!(completed, [ended(), Completed::Conflict]);
    assert_eq!(kept(&*store, "count").unwrap().version, by(a));
    assert_eq!(due_runs(&*store, "orders", at(9_999)).await, [], "it is held");
    let another_call = StateVersion { event: a, call: 1 };
    let saw_another = filtered(b, change(&[("count", Some(another_call))], &[("count", Some(b"2"))]));
    assert_eq!(complete(&*store, saw_another).await, Completed::Conflict, "of the same run, but not what it kept");
    let again = filtered(b, change(&[("count", Some(by(a)))], &[("count", Some(b"2"))]));
    assert_eq!(complete(&*store, again.clone()).await, ended());
    assert_eq!(kept(&*store, "count").unwrap().value, "2");
    assert_eq!(complete(&*store, again).await, Completed::NotHeld, "a completed run never runs again");
}

/// A state that would outgrow its bounds is a conflict too: whoever runs it again is told that it is full.
pub async fn state_has_bounds(stores: impl Factory) {
    let store = stores();
    let big = vec![0_u8; 1 << 20];
    let keys: Vec<String> = (0..STATE_BYTES_MAX >> 20).map(|key| key.to_string()).collect();
    let too_much: Vec<Written<'_>> = keys.iter().map(|key| (key.as_str(), Some(&big[..]))).collect();
    let a = accept(&*store, "a", &["orders"], HERE, START).await;
    assert_eq!(complete(&*store, filtered(a, change(&[], &too_much))).await, Completed::Conflict);
    assert_eq!(store.state_usage("orders").unwrap(), StateUsage::default(), "nothing of it was written");
    assert_eq!(complete(&*store, filtered(a, change(&[], &too_much[1..]))).await, ended());

    let keys: Vec<String> = (0..=STATE_KEYS_MAX).map(|key| format!("k{key}")).collect();
    let too_many: Vec<Written<'_>> = keys.iter().map(|key| (key.as_str(), Some(&b""[..]))).collect();
    let b = accept(&*store, "b", &["orders"], HERE, START).await;
    assert_eq!(complete(&*store, filtered(b, change(&[], &too_many))).await, Completed::Conflict);
    assert_eq!(store.state_usage("orders").unwrap().keys, 15);
}
