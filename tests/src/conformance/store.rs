//! What every [`Store`] does. Each property opens fresh stores through the factory it is given; `for_each_property!`
//! in the suite's runner names them all.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

mod accept;
mod cursors;
mod runs;
mod deliveries;
mod dead_letters;
mod order;
mod backlog;
mod endpoints;
mod history;
mod state;
mod waiting;
mod whole;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wirehook::clock::{Clock, ManualClock, Timestamp};
use wirehook::dead_letter::Reason;
use wirehook::delivery::{DeliveryId, Distinct, Transition};
use wirehook::event::{Event, EventKey};
use wirehook::store::{
    Acceptance, Arrival, AttemptRecord, Claim, ClaimedDelivery, DeadMessage, DeliverySeq, DeliveryState, DeliveryTerms,
    EventSeq, NewDelivery, NewRun, RunCompletion, RunOutcome, RunStart, RunTerms, Store, StoreStatus,
};

pub use self::accept::{
    accepts_a_key_once, accepts_all_or_none_of_a_call_in_order, gives_an_event_back_as_it_came,
    gives_up_claims_of_a_caller_that_left, keeps_a_conflict_once, keeps_a_dead_message_once,
    tells_a_conflict_from_a_duplicate,
};
pub use self::backlog::{
    a_backlog_is_bounded_in_bytes, a_backlog_is_bounded_in_number, a_redrive_counts_in_the_backlog,
    what_is_due_for_too_long_expires,
};
pub use self::cursors::{
    cursor_of, keeps_a_cursor_without_fresh_events, keeps_cursors_in_the_order_of_calls,
    keeps_the_last_cursor_of_each_source, kept_cursor,
};
pub use self::dead_letters::{
    a_dead_delivery_is_a_dead_letter, a_dead_run_is_a_dead_letter, discards_for_good,
    redrives_and_discards_what_the_filter_means, redrives_with_a_new_budget, refuses_to_redrive_messages,
};
pub use self::deliveries::{
    a_deferred_attempt_is_none, claims_deliveries_earliest_due_first, gives_a_delivery_back_as_it_came,
    lists_newest_first_within_the_limit, records_an_attempt_once,
};
pub use self::endpoints::{
    changes_an_endpoint_s_state_once, keeps_how_endpoints_fare, knows_endpoints_from_when_they_were_entered,
    lists_what_waits_for_each_endpoint,
};
pub use self::history::{
    a_retry_now_never_delays, a_retry_now_replaces_the_pending_one, changes_what_the_filter_means,
    discards_what_waits_and_leaves_what_is_held, finds_dead_letters_by_what_they_are_of, finds_names_in_a_long_history,
    forgets_a_plugin, gives_back_what_is_not_meant, moves_deliveries_to_another_endpoint, purge, purges_an_entity,
    redrives_at_a_pace, shrinks_by_what_is_finished, tells_numbers_apart, traces_by_every_name,
};
pub use self::order::{
    a_dead_letter_frees_its_key, a_delivery_waits_for_earlier_runs, a_delivery_waits_for_the_one_before_it,
    a_parked_run_holds_its_key, a_redrive_is_out_of_order, a_turn_that_does_not_come_keeps_no_host_busy,
    an_operator_frees_the_next, forgetting_a_plugin_frees_what_waits_for_it, one_made_due_early_waits_all_the_same,
    the_order_outlives_its_host, webhooks_of_one_event_keep_the_plugins_order, what_had_no_turn_does_not_expire,
    what_is_moved_keeps_its_order, what_keeps_no_order_waits_for_nothing,
};
pub use self::runs::{
    claims_only_what_is_open, claims_runs_oldest_due_first, completes_a_run_once, completes_only_claimed_runs,
    counts_tries_by_their_budgets, parks_and_unparks_runs, release_makes_work_due_again, remembers_plugins,
    retries_a_run_when_due, writes_a_delivery_id_once_for_a_run,
};
pub use self::state::{
    a_change_of_what_was_read_is_a_conflict, keeps_state_with_the_run_that_wrote_it, state_has_bounds,
};
pub use self::waiting::{counts_what_died_lately, keeps_pauses, tells_what_waits};
pub use self::whole::{
    counts_what_is_in_it, forgets_keys_by_their_own_age, is_idle_when_nothing_will_happen_by_itself,
    sweeps_what_is_past_its_age_only,
};

/// Opens a fresh store.
pub trait Factory: Fn() -> Arc<dyn Store> {}
impl<F: Fn() -> Arc<dyn Store>> Factory for F {}

/// Runs `$each!(name)` for every property.
#[macro_export]
macro_rules! for_each_store_property {
    ($each:ident) => {
        $each!(
            tells_what_waits,
            counts_what_died_lately,
            keeps_pauses,
            accepts_a_key_once,
            tells_a_conflict_from_a_duplicate,
            keeps_a_conflict_once,
            keeps_a_dead_message_once,
            accepts_all_or_none_of_a_call_in_order,
            gives_an_event_back_as_it_came,
            keeps_the_last_cursor_of_each_source,
            keeps_a_cursor_without_fresh_events,
            keeps_cursors_in_the_order_of_calls,
            claims_only_what_is_open,
            claims_runs_oldest_due_first,
            release_makes_work_due_again,
            gives_up_claims_of_a_caller_that_left,
            completes_a_run_once,
            completes_only_claimed_runs,
            writes_a_delivery_id_once_for_a_run,
            retries_a_run_when_due,
            counts_tries_by_their_budgets,
            parks_and_unparks_runs,
            keeps_state_with_the_run_that_wrote_it,
            a_change_of_what_was_read_is_a_conflict,
            state_has_bounds,
            a_dead_run_is_a_dead_letter,
            gives_a_delivery_back_as_it_came,
            claims_deliveries_earliest_due_first,
            records_an_attempt_once,
            a_deferred_attempt_is_none,
            a_dead_delivery_is_a_dead_letter,
            a_delivery_waits_for_the_one_before_it,
            a_delivery_waits_for_earlier_runs,
            a_dead_letter_frees_its_key,
            a_parked_run_holds_its_key,
            a_turn_that_does_not_come_keeps_no_host_busy,
            what_had_no_turn_does_not_expire,
            what_is_moved_keeps_its_order,
            a_redrive_is_out_of_order,
            an_operator_frees_the_next,
            forgetting_a_plugin_frees_what_waits_for_it,
            one_made_due_early_waits_all_the_same,
            the_order_outlives_its_host,
            webhooks_of_one_event_keep_the_plugins_order,
            what_keeps_no_order_waits_for_nothing,
            a_backlog_is_bounded_in_bytes,
            a_backlog_is_bounded_in_number,
            a_redrive_counts_in_the_backlog,
            what_is_due_for_too_long_expires,
            redrives_with_a_new_budget,
            refuses_to_redrive_messages,
            redrives_and_discards_what_the_filter_means,
            discards_for_good,
            counts_what_is_in_it,
            is_idle_when_nothing_will_happen_by_itself,
            sweeps_what_is_past_its_age_only,
            forgets_keys_by_their_own_age,
            lists_newest_first_within_the_limit,
            remembers_plugins,
            knows_endpoints_from_when_they_were_entered,
            changes_an_endpoint_s_state_once,
            keeps_how_endpoints_fare,
            lists_what_waits_for_each_endpoint,
            a_retry_now_replaces_the_pending_one,
            a_retry_now_never_delays,
            discards_what_waits_and_leaves_what_is_held,
            gives_back_what_is_not_meant,
            changes_what_the_filter_means,
            moves_deliveries_to_another_endpoint,
            redrives_at_a_pace,
            finds_dead_letters_by_what_they_are_of,
            traces_by_every_name,
            tells_numbers_apart,
            finds_names_in_a_long_history,
            forgets_a_plugin,
            purges_an_entity,
            shrinks_by_what_is_finished,
        );
    };
}

/// The moment at which every property begins.
pub const START: Timestamp = Timestamp(1_800_000_000_000);

/// `START` and some milliseconds.
pub fn at(offset_ms: i64) -> Timestamp {
    Timestamp(START.0 + offset_ms)
}

thread_local! {
    static CLOCK: Arc<ManualClock> = ManualClock::starting_at(START);
}

/// The clock of every store of this test's thread: things age by it. It shows [`START`] at first.
pub fn clock() -> Arc<ManualClock> {
    CLOCK.with(Arc::clone)
}

/// Lets time pass until `now`.
fn pass_until(now: Timestamp) {
    clock().advance(now.since(clock().now()));
}

/// An event of source `bus` whose key and body are `id`.
pub fn event(id: &str) -> Event {
    event_with_body(id, id)
}

/// An event with the key `id` and a body of its own.
pub fn event_with_body(id: &str, body: &str) -> Event {
    let mut body_digest = [0; 16];
    for (index, byte) in body.bytes().enumerate() {
        body_digest[index % 16] ^= byte.rotate_left((index / 16 % 8) as u32);
    }
    Event {
        key: EventKey::new("bus", "id", id),
        source: "bus".into(),
        subject: "fraiseql.order.created".to_owned(),
        entity_type: "order".to_owned(),
        operation: "created".to_owned(),
        entity_id: Some(id.to_owned()),
        tenant_id: None,
        timestamp: Some("2027-01-15T08:00:00Z".to_owned()),
        entity: Some(Bytes::from(format!("{{\"body\":\"{body}\"}}"))),
        previous: None,
        attributes: vec![("source".to_owned(), "bus".to_owned())],
        body_digest,
    }
}

/// `event` arriving, with a run of each plugin.
pub fn arrival(event: Event, plugins: &[&str], start: RunStart) -> Arrival {
    let runs =
        plugins.iter().map(|plugin| NewRun { plugin: (*plugin).into(), start, terms: RunTerms::default() }).collect();
    Arrival::Event { event: Arc::new(event), runs }
}

/// A run that this host holds.
pub const HERE: RunStart = RunStart::Pending(Claim::Here);

/// A run that waits.
pub const OPEN: RunStart = RunStart::Pending(Claim::Open);

/// A message that never became an event.
pub fn dead_message(key: &str, payload: &'static [u8]) -> Arrival {
    let mut body_digest = [0; 16];
    payload.iter().enumerate().for_each(|(index, byte)| body_digest[index % 16] ^= byte);
    Arrival::Dead(DeadMessage {
        key: EventKey::new("bus", "position", key),
        source: "bus".into(),
        subject: "orders".into(),
        payload: Bytes::from_static(payload),
        body_digest,
        reason: Reason::Undecodable,
        detail: "not JSON".to_owned(),
    })
}

/// Accepts one event with runs; its position.
pub async fn accept(store: &dyn Store, id: &str, plugins: &[&str], start: RunStart, now: Timestamp) -> EventSeq {
    match store.accept(vec![arrival(event(id), plugins, start)], now).await.unwrap()[0] {
        Acceptance::Fresh(seq) => seq,
        other => panic!("{id} should be fresh, is {other:?}"),
    }
}

/// The end of a try at `ended_at`.
pub fn completion(seq: EventSeq, plugin: &str, ended_at: Timestamp, outcome: RunOutcome) -> RunCompletion {
    RunCompletion {
        seq,
        plugin: plugin.into(),
        plugin_digest: "d1".into(),
        ended_at,
        outcome,
        state: None,
        conflicts: 0,
    }
}

/// A delivery of `plugin` for the event `id` to `endpoint`.
pub fn delivery(id: &str, plugin: &str, endpoint: &str, index: u32, claim: Claim) -> NewDelivery {
    NewDelivery {
        id: DeliveryId::derive(&EventKey::new("bus", "id", id), plugin, endpoint, Distinct::Index(index), 0),
        endpoint: endpoint.into(),
        content_type: "application/json".to_owned(),
        headers: vec![("x-order".to_owned(), id.to_owned())],
        body: Bytes::from(format!("{{\"order\":\"{id}\"}}")),
        claim,
        terms: DeliveryTerms::default(),
    }
}

/// Accepts and completes one event with one delivery by `orders` to `shop`; the delivery's position and id.
pub async fn deliver(store: &dyn Store, id: &str, claim: Claim, now: Timestamp) -> (DeliverySeq, DeliveryId) {
    let seq = accept(store, id, &["orders"], HERE, now).await;
    let new = delivery(id, "orders", "shop", 0, claim);
    let webhook_id = new.id.clone();
    let outcome = RunOutcome::Produced(vec![new]);
    let written = store.complete_runs(vec![completion(seq, "orders", now, outcome)]).await.unwrap();
    (written[0].deliveries()[0], webhook_id)
}

/// An attempt that took 20 ms.
pub fn attempt(delivery: DeliverySeq, number: u32, started_at: Timestamp, transition: Transition) -> AttemptRecord {
    let status = match transition {
        Transition::Delivered => 200,
        Transition::Retry { .. } | Transition::Deferred { .. } => 503,
        Transition::Dead { .. } => 400,
    };
    AttemptRecord {
        delivery,
        number,
        started_at,
        duration: Duration::from_millis(20),
        status: Some(status),
        error: None,
        response: Bytes::from_static(b"said so"),
        transition,
    }
}

/// The transition to a dead letter.
pub const DEAD: Transition = Transition::Dead { reason: Reason::Status4xx };

async fn due_runs(store: &dyn Store, plugin: &str, now: Timestamp) -> Vec<(EventSeq, u32)> {
    let claimed = store.claim_runs(plugin.into(), 100, now).await.unwrap();
    claimed.work.iter().map(|run| (run.seq, run.attempts_made)).collect()
}

async fn due_deliveries(store: &dyn Store, endpoint: &str, now: Timestamp) -> Vec<ClaimedDelivery> {
    store.claim_deliveries(endpoint.into(), 100, now).await.unwrap().work
}

async fn status(store: &dyn Store) -> StoreStatus {
    let status = store.status(START).await.unwrap();
    assert_eq!(status.events_unaccounted, 0, "every event is accounted for");
    status
}

fn runs_in(status: &StoreStatus, plugin: &str, state: &str) -> u64 {
    status.runs.iter().filter(|count| count.plugin == plugin && count.state == state).map(|count| count.count).sum()
}

fn deliveries_in(status: &StoreStatus, endpoint: &str, state: DeliveryState) -> u64 {
    let of = status.deliveries.iter().filter(|count| count.endpoint == endpoint && count.state == state);
    of.map(|count| count.count).sum()
}
