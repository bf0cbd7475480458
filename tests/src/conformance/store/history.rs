//! What operators do with what is kept: change it in bulk, find it, forget it, have it gone.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;
use std::time::Duration;

use wirehook::clock::Timestamp;
use wirehook::dead_letter::Reason;
use wirehook::delivery::{DeliveryId, Transition};
use wirehook::event::Event;
use wirehook::store::{
    Acceptance, Changed, Claim, DeadLetterFilter, DeliveryChange, DeliveryFilter, DeliverySeq, DeliveryState,
    DeliveryVerb, EventSeq, Forgotten, Found, KnownPlugin, Pace, ParkedFate, Purge, Retention, RunOutcome, RunStart,
    Sought, Store,
};

use super::{
    DEAD, Factory, HERE, OPEN, START, accept, arrival, at, attempt, completion, dead_message, deliver, deliveries_in,
    delivery, due_deliveries, due_runs, event, event_with_body, runs_in, status,
};

fn change(verb: DeliveryVerb, filter: DeliveryFilter) -> DeliveryChange {
    DeliveryChange { verb, filter, after: None, given_back: Vec::new() }
}

fn all() -> DeliveryFilter {
    DeliveryFilter::default()
}

fn named(ids: &[&DeliveryId]) -> DeliveryFilter {
    DeliveryFilter { ids: ids.iter().map(|id| (*id).clone()).collect(), ..all() }
}

/// Every step to the end.
async fn change_all(store: &dyn Store, mut change: DeliveryChange, now: Timestamp) -> Changed {
    let mut total = Changed::default();
    loop {
        let step = store.change_deliveries(change.clone(), now).await.unwrap();
        change.given_back.clear();
        total.add(step);
        match total.last {
            Some(last) => change.after = Some(last),
            None => return total,
        }
    }
}

/// A delivery that failed so often, and is due again.
async fn retrying(store: &dyn Store, id: &str, attempts: u32) -> (DeliverySeq, DeliveryId) {
    let (seq, webhook_id) = deliver(store, id, Claim::Here, START).await;
    for number in 1..=attempts {
        store.record_attempts(vec![attempt(seq, number, at(1), Transition::Retry { due_at: at(2) })]).await.unwrap();
        if number < attempts {
            assert_eq!(due_deliveries(store, "shop", at(2)).await.len(), 1);
        }
    }
    (seq, webhook_id)
}

/// One slot for each delivery: the pending retry is replaced, and the budget is neither begun anew nor spent.
pub async fn a_retry_now_replaces_the_pending_one(stores: impl Factory) {
    let store = stores();
    let (seq, id) = retrying(&*store, "a", 2).await;
    let later = store.claim_deliveries("shop".into(), 9, at(2)).await.unwrap();
    assert_eq!(later.work.len(), 1);
    let hours = Transition::Retry { due_at: at(9_000_000) };
    store.record_attempts(vec![attempt(seq, 3, at(3), hours)]).await.unwrap();
    assert!(due_deliveries(&*store, "shop", at(8_000_000)).await.is_empty());

    let retried = change_all(&*store, change(DeliveryVerb::Retry, named(&[&id])), at(10)).await;
    assert_eq!((retried.changed, retried.in_flight, retried.refused), (1, 0, 0));
    assert_eq!(retried.endpoints, [Arc::<str>::from("shop")]);
    let claimed = due_deliveries(&*store, "shop", at(10)).await;
    assert_eq!((claimed.len(), claimed[0].attempts_made, claimed[0].attempts_before_budget), (1, 3, 0));
    assert!(due_deliveries(&*store, "shop", at(9_999_999)).await.is_empty(), "the old retry is gone");

    let again = change_all(&*store, change(DeliveryVerb::Retry, named(&[&id])), at(11)).await;
    assert_eq!((again.changed, again.in_flight), (0, 1), "what is being sent is not sent twice at once");
    assert!(due_deliveries(&*store, "shop", at(11)).await.is_empty());
    store.record_attempts(vec![attempt(seq, 4, at(12), Transition::Delivered)]).await.unwrap();
    let done = change_all(&*store, change(DeliveryVerb::Retry, named(&[&id])), at(13)).await;
    assert_eq!((done.changed, done.refused), (0, 1));
    let shown = store.show_delivery(id).await.unwrap().unwrap();
    assert_eq!((shown.summary.state, shown.attempts_made.len()), (DeliveryState::Delivered, 4));
    status(&*store).await;
}

/// A retry never comes later than it would have.
pub async fn a_retry_now_never_delays(stores: impl Factory) {
    let store = stores();
    let (_, early) = deliver(&*store, "early", Claim::Open, at(5)).await;
    change_all(&*store, change(DeliveryVerb::Retry, all()), at(50)).await;
    assert_eq!(due_deliveries(&*store, "shop", at(5)).await[0].id, early);
}

/// Waiting deliveries that are discarded are never sent; those that somebody works on are left, unless given back.
pub async fn discards_what_waits_and_leaves_what_is_held(stores: impl Factory) {
    let store = stores();
    let (held, _) = deliver(&*store, "held", Claim::Here, START).await;
    let (given, _) = deliver(&*store, "given", Claim::Here, START).await;
    deliver(&*store, "open", Claim::Open, START).await;
    let (sent, _) = deliver(&*store, "sent", Claim::Here, START).await;
    store.record_attempts(vec![attempt(sent, 1, at(1), Transition::Delivered)]).await.unwrap();
    let discard = DeliveryChange { given_back: vec![given], ..change(DeliveryVerb::Discard, all()) };
    let changed = change_all(&*store, discard, at(5)).await;
    assert_eq!((changed.changed, changed.in_flight), (2, 1));
    assert!(due_deliveries(&*store, "shop", at(9_999)).await.is_empty());
    store.record_attempts(vec![attempt(held, 1, at(9), Transition::Delivered)]).await.unwrap();
    let after = status(&*store).await;
    assert_eq!(deliveries_in(&after, "shop", DeliveryState::Discarded), 2);
    assert_eq!(deliveries_in(&after, "shop", DeliveryState::Delivered), 2);
    assert!(after.dead_letters.is_empty());
}

/// What was given back and is not meant is anybody's again.
pub async fn gives_back_what_is_not_meant(stores: impl Factory) {
    let store = stores();
    let (given, id) = deliver(&*store, "given", Claim::Here, START).await;
    let elsewhere = DeliveryFilter { endpoint: Some("elsewhere".to_owned()), ..all() };
    let discard = DeliveryChange { given_back: vec![given], ..change(DeliveryVerb::Discard, elsewhere) };
    assert_eq!(change_all(&*store, discard, at(5)).await.changed, 0);
    assert_eq!(due_deliveries(&*store, "shop", at(5)).await[0].id, id);
}

/// A filter of deliveries means what it says.
pub async fn changes_what_the_filter_means(stores: impl Factory) {
    let store = stores();
    for (index, (plugin, endpoint)) in
        [("orders", "shop"), ("orders", "depot"), ("invoices", "shop"), ("invoices", "shop")].iter().enumerate()
    {
        let (id, now) = (index.to_string(), at(index as i64 * 100));
        let seq = accept(&*store, &id, &[plugin], HERE, now).await;
        let produced = RunOutcome::Produced(vec![delivery(&id, plugin, endpoint, 0, Claim::Open)]);
        store.complete_runs(vec![completion(seq, plugin, now, produced)]).await.unwrap();
    }
    let keys = |filter: DeliveryFilter| {
        let store = Arc::clone(&store);
        async move {
            let listed = store.list_deliveries(filter).await.unwrap();
            listed.into_iter().map(|found| found.event_key).collect::<Vec<_>>().concat().replace("bus/id/", "")
        }
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(keys(DeliveryFilter { endpoint: some("shop"), ..all() }).await, "320");
    assert_eq!(keys(DeliveryFilter { plugin: some("orders"), ..all() }).await, "10");
    assert_eq!(keys(DeliveryFilter { event_key: some("bus/id/2"), ..all() }).await, "2");
    assert_eq!(keys(DeliveryFilter { event_key: some("bus/id/9"), ..all() }).await, "");
    assert_eq!(keys(DeliveryFilter { entity_id: some("1"), ..all() }).await, "1");
    assert_eq!(keys(DeliveryFilter { since: Some(at(100)), until: Some(at(300)), ..all() }).await, "21");
    assert_eq!(keys(DeliveryFilter { parked_beside: Some(vec!["shop".to_owned()]), ..all() }).await, "1");
    assert_eq!(keys(DeliveryFilter { waiting: true, limit: Some(3), ..all() }).await, "321");
    let first = store.list_deliveries(DeliveryFilter { limit: Some(2), ..all() }).await.unwrap();
    assert_eq!(keys(DeliveryFilter { before: Some(first[1].seq), ..all() }).await, "10", "the next page");
    let of_plugin = DeliveryFilter { plugin: some("invoices"), since: Some(at(250)), ..all() };
    assert_eq!(change_all(&*store, change(DeliveryVerb::Discard, of_plugin), at(900)).await.changed, 1);
    assert_eq!(keys(DeliveryFilter { state: Some(DeliveryState::Discarded), ..all() }).await, "3");
    assert_eq!(keys(DeliveryFilter { waiting: true, ..all() }).await, "210");
    status(&*store).await;
}

/// A moved delivery is due at the other endpoint, under the id that it had and with that endpoint's whole budget.
pub async fn moves_deliveries_to_another_endpoint(stores: impl Factory) {
    let store = stores();
    let (seq, id) = retrying(&*store, "a", 1).await;
    let (dead, dead_id) = deliver(&*store, "dead", Claim::Here, START).await;
    store.record_attempts(vec![attempt(dead, 1, at(1), DEAD)]).await.unwrap();
    let to = |to: &str| DeliveryVerb::Move { to: to.into() };
    let moved = change_all(&*store, change(to("depot"), all()), at(1)).await;
    assert_eq!((moved.changed, moved.endpoints.clone()), (1, vec![Arc::<str>::from("depot")]));
    assert!(due_deliveries(&*store, "shop", at(9_999)).await.is_empty());
    let claimed = due_deliveries(&*store, "depot", at(1)).await;
    assert_eq!((claimed[0].seq, claimed[0].id.clone()), (seq, id));
    assert_eq!((claimed[0].attempts_made, claimed[0].attempts_before_budget), (1, 1));

    let only_dead = DeliveryFilter { state: Some(DeliveryState::Dead), ..all() };
    assert_eq!(change_all(&*store, change(to("depot"), only_dead), at(2)).await.changed, 1);
    let after = status(&*store).await;
    assert_eq!(deliveries_in(&after, "depot", DeliveryState::Dead), 1);
    let letters =
        store.list_dead_letters(DeadLetterFilter { endpoint: Some("depot".to_owned()), ..DeadLetterFilter::default() });
    assert_eq!(letters.await.unwrap()[0].delivery_id.as_ref(), Some(&dead_id));
    let redriven = store.redrive(DeadLetterFilter::default(), at(3)).await.unwrap();
    assert_eq!(redriven.endpoints, [Arc::<str>::from("depot")]);
    assert_eq!(due_deliveries(&*store, "depot", at(3)).await[0].id, dead_id);
    status(&*store).await;
}

/// Redriven work is due one after the other, and a redrive goes on where the one before ended.
pub async fn redrives_at_a_pace(stores: impl Factory) {
    let store = stores();
    for index in 0..5 {
        let (seq, _) = deliver(&*store, &index.to_string(), Claim::Here, START).await;
        store.record_attempts(vec![attempt(seq, 1, at(index), DEAD)]).await.unwrap();
    }
    let pace = Pace { first: at(1_000), interval: Duration::from_millis(10) };
    let some = |after| DeadLetterFilter { limit: Some(3), after, ..DeadLetterFilter::default() };
    let first = store.redrive_paced(some(None), pace).await.unwrap();
    assert_eq!(first.deliveries, 3);
    let rest = Pace { first: pace.due(3), ..pace };
    assert_eq!(store.redrive_paced(some(first.last), rest).await.unwrap().deliveries, 2);
    for (now, due) in [(999, 0), (1_000, 1), (1_019, 1), (1_020, 1), (1_039, 1), (1_040, 1), (9_999, 0)] {
        assert_eq!(due_deliveries(&*store, "shop", at(now)).await.len(), due, "at {now}");
    }
    status(&*store).await;
}

/// Dead letters are found by their event, their entity and the time of their death, and page by page.
pub async fn finds_dead_letters_by_what_they_are_of(stores: impl Factory) {
    let store = stores();
    for index in 0..4 {
        let (seq, _) = deliver(&*store, &index.to_string(), Claim::Here, START).await;
        store.record_attempts(vec![attempt(seq, 1, at(index * 100), DEAD)]).await.unwrap();
    }
    store.accept(vec![dead_message("7", b"{")], at(500)).await.unwrap();
    let keys = |filter: DeadLetterFilter| {
        let store = Arc::clone(&store);
        async move {
            let listed = store.list_dead_letters(filter).await.unwrap();
            listed.into_iter().map(|found| found.event_key).collect::<Vec<_>>()
        }
    };
    let all = DeadLetterFilter::default;
    assert_eq!(keys(DeadLetterFilter { entity_id: Some("2".to_owned()), ..all() }).await, ["bus/id/2"]);
    assert_eq!(
        keys(DeadLetterFilter { event_key: Some("bus/position/7".to_owned()), ..all() }).await,
        ["bus/position/7"]
    );
    // An attempt takes 20 ms.
    let within = DeadLetterFilter { since: Some(at(120)), until: Some(at(320)), ..all() };
    assert_eq!(keys(within).await, ["bus/id/2", "bus/id/1"]);
    let page = store.list_dead_letters(DeadLetterFilter { limit: Some(2), ..all() }).await.unwrap();
    assert_eq!(
        keys(DeadLetterFilter { before: Some(page[1].id), limit: Some(2), ..all() }).await,
        ["bus/id/2", "bus/id/1"]
    );
    let exported = store.export_dead_letters(DeadLetterFilter { limit: Some(2), ..all() }).await.unwrap();
    assert_eq!(
        exported.iter().map(|letter| letter.summary.event_key.as_str()).collect::<Vec<_>>(),
        ["bus/id/0", "bus/id/1"]
    );
    assert_eq!((exported[0].attempts_made.len(), exported[0].plugin_digest.as_deref()), (1, Some("d1")));
    assert_eq!(exported[0].attempts_made[0].response, "said so");
    let rest =
        store.export_dead_letters(DeadLetterFilter { after: Some(exported[1].summary.id), ..all() }).await.unwrap();
    assert_eq!(rest.len(), 3);
    assert!(
        store
            .export_dead_letters(DeadLetterFilter { after: Some(rest[2].summary.id), ..all() })
            .await
            .unwrap()
            .is_empty()
    );
}

async fn traced(store: &dyn Store, text: &str) -> Vec<Found> {
    store.trace(Sought::Any(text.to_owned())).await.unwrap()
}

fn seqs(found: &[Found]) -> Vec<i64> {
    let seq = |found: &Found| match found {
        Found::Event(trace) => Some(trace.seq.0),
        _ => None,
    };
    found.iter().filter_map(seq).collect()
}

fn candidates(found: &[Found]) -> Vec<&str> {
    let mut ids = Vec::new();
    for found in found {
        if let Found::Candidate(candidate) = found {
            ids.push(candidate.id.as_str());
        }
    }
    ids
}

fn of_entity(key: &str, entity: &str) -> Event {
    Event { entity_id: Some(entity.to_owned()), ..event(key) }
}

async fn accept_of(store: &dyn Store, key: &str, entity: &str) -> EventSeq {
    let runs = arrival(of_entity(key, entity), &["orders"], HERE);
    match store.accept(vec![runs], START).await.unwrap()[0] {
        Acceptance::Fresh(seq) => seq,
        other => panic!("{other:?}"),
    }
}

/// Whatever name something has, a trace leads from it to its event and to all that came of it.
pub async fn traces_by_every_name(stores: impl Factory) {
    let store = stores();
    let created = accept_of(&*store, "k1", "550e8400-a").await;
    let updated = accept_of(&*store, "k2", "550e8400-a").await;
    let other = accept_of(&*store, "k3", "550f0000-b").await;
    let new = delivery("k1", "orders", "shop", 0, Claim::Here);
    let id = new.id.clone();
    let written = store.complete_runs(vec![completion(created, "orders", at(3), RunOutcome::Produced(vec![new]))]);
    let seq = written.await.unwrap()[0].deliveries()[0];
    store.record_attempts(vec![attempt(seq, 1, at(10), DEAD)]).await.unwrap();
    let trap = RunOutcome::Dead { reason: Reason::PluginTrap, detail: "unreachable".to_owned() };
    store.complete_runs(vec![completion(other, "orders", at(4), trap)]).await.unwrap();
    store
        .accept(vec![arrival(event_with_body("k1", "else"), &[], HERE), dead_message("9", b"{")], at(5))
        .await
        .unwrap();
    let letters = store.list_dead_letters(DeadLetterFilter::default()).await.unwrap();

    assert_eq!(seqs(&traced(&*store, "550e8400-a").await), [created.0, updated.0], "oldest first");
    assert_eq!(seqs(&traced(&*store, "550e").await), [created.0, updated.0]);
    assert_eq!(candidates(&traced(&*store, "550").await), ["550f0000-b", "550e8400-a"]);
    assert_eq!(seqs(&traced(&*store, id.as_str()).await), [created.0]);
    assert_eq!(seqs(&traced(&*store, "bus/id/k2").await), [updated.0]);
    assert_eq!(seqs(&store.trace(Sought::Event(other)).await.unwrap()), [other.0]);
    assert!(traced(&*store, "551").await.is_empty());
    assert!(traced(&*store, "").await.is_empty());
    assert!(traced(&*store, "bus/id/none").await.is_empty());
    let of_letter = |reason| letters.iter().find(|letter| letter.reason == reason).unwrap().id;
    let dead_run = store.trace(Sought::DeadLetter(of_letter(Reason::PluginTrap))).await.unwrap();
    assert_eq!(seqs(&dead_run), [other.0]);
    let message = store.trace(Sought::DeadLetter(of_letter(Reason::Undecodable))).await.unwrap();
    assert!(matches!(&message[..], [Found::Message(letter)] if letter.event_key == "bus/position/9"), "{message:?}");
    assert!(matches!(&traced(&*store, "bus/position/9").await[..], [Found::Message(_)]));

    let Found::Event(trace) = &traced(&*store, "bus/id/k1").await[0] else { panic!("an event") };
    assert_eq!((trace.source.as_str(), trace.accepted_at, trace.attributes.len()), ("bus", START, 1));
    assert_eq!(trace.conflicts[0].reason, Reason::IdConflict);
    let run = &trace.runs[0];
    assert_eq!((run.plugin.as_str(), run.state.as_str(), run.attempts), ("orders", "produced", 1));
    assert_eq!((run.plugin_digest.as_deref(), run.in_flight, run.ended_at), (Some("d1"), false, Some(at(3))));
    let sent = &run.deliveries[0];
    assert_eq!((&sent.summary.id, sent.summary.state), (&id, DeliveryState::Dead));
    assert_eq!(sent.dead_letter.as_ref().map(|letter| letter.reason), Some(Reason::Status4xx));
    assert_eq!((sent.last_attempts.len(), sent.last_attempts[0].status), (1, Some(400)));
    let Found::Event(trace) = &dead_run[0] else { panic!("an event") };
    assert_eq!(trace.runs[0].dead_letter.as_ref().map(|letter| letter.detail.as_str()), Some("unreachable"));
}

/// A number may be many things, and then each says how to mean it.
pub async fn tells_numbers_apart(stores: impl Factory) {
    let store = stores();
    let first = accept_of(&*store, "a", "77").await;
    store.accept(vec![dead_message("m", b"{")], START).await.unwrap();
    let letter = store.list_dead_letters(DeadLetterFilter::default()).await.unwrap()[0].id;
    assert_eq!(seqs(&traced(&*store, "77").await), [first.0], "an entity's whole id");
    let number = first.0.to_string();
    let expected =
        if letter == first.0 { vec![format!("event:{number}"), format!("dead-letter:{number}")] } else { vec![] };
    assert_eq!(candidates(&traced(&*store, &number).await), expected);
    let same = accept_of(&*store, "b", &number).await;
    let found = traced(&*store, &number).await;
    assert!(candidates(&found).contains(&format!("entity:{number}").as_str()), "{found:?}");
    assert_eq!(seqs(&store.trace(Sought::Entity(number)).await.unwrap()), [same.0]);
}

/// A name is found whether the store has indexed it or not, and not once it is gone.
pub async fn finds_names_in_a_long_history(stores: impl Factory) {
    const EVENTS: i64 = 9_000;
    let store = stores();
    let batch = 500;
    let mut ids = Vec::new();
    for first in (0..EVENTS).step_by(batch) {
        let names = first..first + batch as i64;
        let arrivals = names
            .clone()
            .map(|name| arrival(of_entity(&name.to_string(), &format!("entity-{name:06}")), &["orders"], HERE));
        let acceptances = store.accept(arrivals.collect(), START).await.unwrap();
        let completions = names.zip(acceptances).map(|(name, acceptance)| {
            let Acceptance::Fresh(seq) = acceptance else { panic!("{acceptance:?}") };
            let new = delivery(&name.to_string(), "orders", "shop", 0, Claim::Here);
            ids.push(new.id.clone());
            completion(seq, "orders", START, RunOutcome::Produced(vec![new]))
        });
        let completions = completions.collect();
        let written = store.complete_runs(completions).await.unwrap();
        let records = written.iter().map(|run| attempt(run.deliveries()[0], 1, at(1), Transition::Delivered));
        store.record_attempts(records.collect()).await.unwrap();
    }
    let check = async |when: &str| {
        for name in [0, 1, 4_095, 4_096, 8_191, EVENTS - 1] {
            let entity = format!("entity-{name:06}");
            assert_eq!(traced(&*store, &entity).await.len(), 1, "{entity} {when}");
            let id = ids[name as usize].clone();
            assert!(store.show_delivery(id).await.unwrap().is_some(), "delivery {name} {when}");
        }
        assert_eq!(candidates(&traced(&*store, "entity-00010").await).len(), 10, "{when}");
        assert!(traced(&*store, "entity-1").await.is_empty(), "{when}");
    };
    check("before it is indexed").await;
    while store.index_some().await.unwrap() {}
    check("after it is indexed").await;
    super::pass_until(at(10_000));
    let ages = Retention { delivered: Duration::ZERO, dead: Duration::MAX, dedup: Duration::MAX };
    while store.sweep(ages).await.unwrap() {}
    assert!(traced(&*store, "entity-000001").await.is_empty());
    assert!(store.show_delivery(ids[0].clone()).await.unwrap().is_none());
    let after = accept_of(&*store, "later", "entity-000001").await;
    while store.index_some().await.unwrap() {}
    assert_eq!(seqs(&traced(&*store, "entity-000001").await), [after.0]);
}

/// A forgotten plugin's parked runs are accounted for, and what it kept is gone.
pub async fn forgets_a_plugin(stores: impl Factory) {
    for (fate, state) in [(ParkedFate::Die, "dead"), (ParkedFate::Discard, "discarded")] {
        let store = stores();
        let known = |name: &str| KnownPlugin { name: name.into(), subjects: Vec::new(), digest: "d".into() };
        store.remember_plugin(known("orders"), START).await.unwrap();
        store.remember_plugin(known("invoices"), START).await.unwrap();
        for index in 0..3 {
            accept(&*store, &format!("parked-{index}"), &["orders", "invoices"], RunStart::Parked, START).await;
        }
        accept(&*store, "waiting", &["orders"], OPEN, START).await;
        accept(&*store, "held", &["orders"], HERE, START).await;
        let would = store.would_forget("orders".into()).await.unwrap();
        assert_eq!(would, Forgotten { known: true, runs: 5, in_flight: 0, keys: 0 });
        let forgotten = store.forget_plugin("orders".into(), fate, at(7)).await.unwrap();
        assert_eq!(forgotten, Forgotten { known: true, runs: 4, in_flight: 1, keys: 0 });
        assert_eq!(store.known_plugins().await.unwrap(), [known("invoices")]);
        let after = status(&*store).await;
        assert_eq!((runs_in(&after, "orders", state), runs_in(&after, "orders", "parked")), (4, 0));
        assert_eq!((runs_in(&after, "orders", "pending"), runs_in(&after, "invoices", "parked")), (1, 3));
        let letters = store.list_dead_letters(DeadLetterFilter::default()).await.unwrap();
        let died = if fate == ParkedFate::Die { 4 } else { 0 };
        assert_eq!(letters.len(), died);
        assert!(letters.iter().all(|letter| letter.reason == Reason::PluginForgotten && letter.died_at == at(7)));
        let again = store.forget_plugin("orders".into(), fate, at(8)).await.unwrap();
        assert_eq!((again.known, again.runs), (false, 0));
        assert!(!store.would_forget("nobody".into()).await.unwrap().is_something());
        // Should it come back, what died is redriven through it.
        store.redrive(DeadLetterFilter::default(), at(9)).await.unwrap();
        assert_eq!(due_runs(&*store, "orders", at(9)).await.len(), died);
        status(&*store).await;
    }
}

/// Every trace of `entity`, and nothing that waits.
pub fn purge(entity: &str) -> Purge {
    Purge {
        entity_id: entity.to_owned(),
        entity_type: None,
        discard_waiting: false,
        dry_run: false,
        given_back: Vec::new(),
    }
}

/// All that came of an entity's events goes, and nothing else; what waits is refused unless it is given up.
pub async fn purges_an_entity(stores: impl Factory) {
    let store = stores();
    for entity in ["x", "y"] {
        let seq = accept_of(&*store, &format!("{entity}-done"), entity).await;
        let new = delivery(&format!("{entity}-done"), "orders", "shop", 0, Claim::Here);
        let written = store.complete_runs(vec![completion(seq, "orders", START, RunOutcome::Produced(vec![new]))]);
        let sent = written.await.unwrap()[0].deliveries()[0];
        let again = Transition::Retry { due_at: at(2) };
        store.record_attempts(vec![attempt(sent, 1, at(1), again)]).await.unwrap();
        due_deliveries(&*store, "shop", at(2)).await;
        store.record_attempts(vec![attempt(sent, 2, at(3), DEAD)]).await.unwrap();
        let key = format!("{entity}-done");
        store.accept(vec![arrival(event_with_body(&key, "another body"), &[], HERE)], at(4)).await.unwrap();
        accept(&*store, &format!("unrouted-{entity}"), &[], HERE, START).await;
    }
    let counted = store.purge(Purge { dry_run: true, ..purge("x") }, START).await.unwrap();
    assert_eq!((counted.events, counted.deliveries, counted.attempts, counted.dead_letters), (1, 1, 2, 2));
    assert_eq!((counted.waiting, counted.in_flight, counted.done), (0, 0, false));
    assert_eq!(status(&*store).await.events, 4, "a dry run deletes nothing");
    let purged = store.purge(purge("x"), START).await.unwrap();
    assert_eq!((purged.events, purged.deliveries, purged.attempts, purged.dead_letters), (1, 1, 2, 2));
    assert!(purged.done);
    assert!(traced(&*store, "x").await.is_empty());
    assert_eq!(traced(&*store, "y").await.len(), 1);
    let after = status(&*store).await;
    assert_eq!((after.events, after.dead_letters.iter().map(|row| row.count).sum::<u64>()), (3, 2));
    assert_eq!(deliveries_in(&after, "shop", DeliveryState::Dead), 1);
    let redelivered = store.accept(vec![arrival(of_entity("x-done", "x"), &["orders"], HERE)], at(9)).await.unwrap();
    assert_eq!(redelivered, [Acceptance::Duplicate], "it does not come back by a redelivery");

    let open = accept_of(&*store, "x-open", "x").await;
    store.release(vec![(open, "orders".into())], Vec::new()).await.unwrap();
    let refused = store.purge(purge("x"), START).await.unwrap();
    assert_eq!((refused.events, refused.waiting, refused.done), (0, 1, false));
    assert_eq!(traced(&*store, "x").await.len(), 1, "nothing was deleted");
    let held = due_runs(&*store, "orders", at(9)).await;
    assert_eq!(held, [(open, 0)]);
    let busy = store.purge(Purge { discard_waiting: true, ..purge("x") }, START).await.unwrap();
    assert_eq!((busy.in_flight, busy.done), (1, false));
    store.release(vec![(open, "orders".into())], Vec::new()).await.unwrap();
    let of_other_type = Purge { entity_type: Some("customer".to_owned()), discard_waiting: true, ..purge("x") };
    assert_eq!(store.purge(of_other_type, START).await.unwrap().events, 0);
    let given_up = store.purge(Purge { discard_waiting: true, ..purge("x") }, START).await.unwrap();
    assert_eq!((given_up.events, given_up.waiting, given_up.done), (1, 1, true));
    assert!(due_runs(&*store, "orders", at(99)).await.is_empty());
    store.rewrite().await.unwrap();
    assert_eq!(status(&*store).await.events, 3);
    accept(&*store, "after", &["orders"], HERE, at(10)).await;
}

/// Over its bound, a store deletes what is finished, the oldest first, and never what waits or is dead.
pub async fn shrinks_by_what_is_finished(stores: impl Factory) {
    let store = stores();
    let body = "b".repeat(10_000);
    let mut sent = Vec::new();
    for index in 0..200 {
        let event = event_with_body(&format!("{index:03}"), &body);
        let acceptances = store.accept(vec![arrival(event, &["orders"], HERE)], START).await.unwrap();
        let Acceptance::Fresh(seq) = acceptances[0] else { panic!("{acceptances:?}") };
        let new = delivery(&index.to_string(), "orders", "shop", 0, Claim::Here);
        let written = store.complete_runs(vec![completion(seq, "orders", at(1), RunOutcome::Produced(vec![new]))]);
        sent.push(written.await.unwrap()[0].deliveries()[0]);
    }
    let end = |index: usize| match index {
        0 => Transition::Retry { due_at: at(9_999) },
        1 => DEAD,
        _ => Transition::Delivered,
    };
    let records = sent.iter().enumerate().map(|(index, seq)| attempt(*seq, 1, at(2), end(index)));
    store.record_attempts(records.collect()).await.unwrap();
    let full = store.bytes().await.unwrap();
    assert!(full > 2_000_000, "{full}");
    assert!(!store.shrink(full + 1).await.unwrap(), "it is not over its bound");
    let bound = full / 2;
    for _ in 0..100 {
        if !store.shrink(bound).await.unwrap() {
            break;
        }
    }
    let after = status(&*store).await;
    assert!(after.events < 200, "{} events", after.events);
    for _ in 0..100 {
        if !store.shrink(0).await.unwrap() {
            break;
        }
    }
    let least = status(&*store).await;
    assert_eq!((least.events, deliveries_in(&least, "shop", DeliveryState::Retrying)), (2, 1));
    assert_eq!(deliveries_in(&least, "shop", DeliveryState::Dead), 1);
    assert!(store.bytes().await.unwrap() < full / 4);
}
