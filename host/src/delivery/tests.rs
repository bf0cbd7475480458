use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(1_767_225_600_000);

fn outcome(result: AttemptResult) -> Outcome {
    Outcome { result, retry_after: None, location: None, response: Bytes::new(), duration: Duration::ZERO }
}

fn answered(status: u16) -> Outcome {
    outcome(AttemptResult::Status(status))
}

/// What follows a first attempt, in short: `delivered`, `retry` or the reason it died for.
fn after_first(policy: &RetryPolicy, outcome: &Outcome) -> String {
    match decide(policy, 1, outcome, NOW, &mut fastrand::Rng::with_seed(1)) {
        Transition::Delivered => "delivered".to_owned(),
        Transition::Retry { .. } => "retry".to_owned(),
        Transition::Deferred { .. } => "deferred".to_owned(),
        Transition::Dead { reason } => reason.to_string(),
    }
}

fn check(policy: &RetryPolicy, statuses: impl IntoIterator<Item = u16>, expected: &str) {
    for status in statuses {
        assert_eq!(after_first(policy, &answered(status)), expected, "{status}");
    }
}

#[test]
fn every_status_has_its_verdict() {
    let policy = RetryPolicy::default();
    let again = [401, 403, 404, 408, 425, 429];
    check(&policy, 100..=199, "status_invalid");
    check(&policy, 200..=299, "delivered");
    check(&policy, 300..=399, "status_3xx");
    check(&policy, again, "retry");
    check(&policy, [410], "status_410");
    check(&policy, (400..=499).filter(|status| *status != 410 && !again.contains(status)), "status_4xx");
    check(&policy, 500..=999, "retry");
}

#[test]
fn the_statuses_named_as_final_are() {
    check(&RetryPolicy::default(), [400, 405, 406, 409, 411, 413, 414, 415, 422, 431], "status_4xx");
}

#[test]
fn the_page_retries_nothing_below_500() {
    let page = RetryPolicy::page();
    check(&page, 200..=299, "delivered");
    check(&page, 300..=399, "status_3xx");
    check(&page, (400..=499).filter(|status| *status != 410), "status_4xx");
    check(&page, [410], "status_410");
    check(&page, 500..=999, "retry");
}

#[test]
fn what_never_became_a_response() {
    for policy in [RetryPolicy::default(), RetryPolicy::page()] {
        let refused = outcome(AttemptResult::Transport("connection refused".to_owned()));
        assert_eq!(after_first(&policy, &refused), "retry");
        let denied = outcome(AttemptResult::EgressDenied("10.0.0.1".to_owned()));
        assert_eq!(after_first(&policy, &denied), "egress_denied");
        // Of no budget, so nothing exhausts it.
        let deferred = outcome(AttemptResult::Deferred("the proxy is down".to_owned()));
        for attempt in [1, policy.max_attempts, u32::MAX] {
            let transition = decide(&policy, attempt, &deferred, NOW, &mut fastrand::Rng::with_seed(1));
            assert_eq!(transition, Transition::Deferred { due_at: NOW.plus(deferral::DELAY_INITIAL) });
        }
    }
}

/// The milliseconds of each wait, without jitter.
fn waits_ms(policy: &RetryPolicy) -> Vec<u128> {
    (1..policy.max_attempts).map(|attempt| policy.delay_after(attempt).as_millis()).collect()
}

#[test]
fn the_page_waits_100_and_250_milliseconds() {
    assert_eq!(RetryPolicy::page().max_attempts, 3);
    assert_eq!(waits_ms(&RetryPolicy::page()), [100, 250]);
    assert_eq!(RetryPolicy::page().span(), Duration::from_millis(350));
}

#[test]
fn the_default_continues_the_page_for_65_hours() {
    let policy = RetryPolicy::default();
    let waits = waits_ms(&policy);
    assert_eq!(waits[..6], [100, 250, 625, 1_562, 3_906, 9_765]);
    assert_eq!(waits[14..], [37_252_902, 43_200_000, 43_200_000, 43_200_000, 43_200_000]);
    assert_eq!(policy.span().as_secs() / 3600, 65);
}

#[test]
fn standard_webhooks_suggests_ten_attempts_over_three_days() {
    let policy = RetryPolicy::standard_webhooks();
    let minutes: Vec<_> = waits_ms(&policy).iter().map(|wait_ms| wait_ms / 60_000).collect();
    assert_eq!(minutes, [0, 5, 30, 120, 300, 600, 840, 1_200, 1_440]);
    assert_eq!((policy.max_attempts, policy.delay_after(1)), (10, Duration::from_secs(5)));
    assert_eq!(policy.span(), Duration::from_hours(75) + Duration::from_mins(35) + Duration::from_secs(5));
    assert_eq!(policy.max_delay, Duration::from_hours(24));
}

#[test]
fn a_schedule_has_its_own_waits_and_attempts() {
    let policy = RetryPolicy::scheduled(vec![Duration::from_secs(5), Duration::from_mins(5)]);
    assert_eq!((policy.max_attempts, waits_ms(&policy)), (3, vec![5_000, 300_000]));
    assert_eq!(policy.max_delay, Duration::from_hours(12), "an endpoint may ask for more than the schedule has");
    assert_eq!(policy.delay_after(1_000), Duration::from_mins(5));
}

#[test]
fn what_the_operator_says_of_a_status_goes_before_the_rule() {
    let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let statuses = Statuses::new(patterns(&["409", "3xx", "410"]), patterns(&["5xx", "404"])).unwrap();
    for page in [RetryPolicy::page(), RetryPolicy::default()] {
        let policy = RetryPolicy { statuses: statuses.clone(), ..page };
        check(&policy, [409, 410], "retry");
        check(&policy, 300..=399, "retry");
        check(&policy, [404], "status_4xx");
        check(&policy, 500..=999, "status_5xx");
        check(&policy, 200..=299, "delivered");
        check(&policy, [400, 422], "status_4xx");
    }
    let gone = Statuses::new(Vec::new(), patterns(&["4xx"])).unwrap();
    check(&RetryPolicy { statuses: gone, ..RetryPolicy::default() }, [410], "status_410");
}

#[test]
fn the_last_attempt_allowed_is_the_last() {
    let policy = RetryPolicy::default();
    let mut rng = fastrand::Rng::with_seed(1);
    let exhausted = Transition::Dead { reason: Reason::AttemptsExhausted };
    assert!(matches!(decide(&policy, 19, &answered(503), NOW, &mut rng), Transition::Retry { .. }));
    assert_eq!(decide(&policy, 20, &answered(503), NOW, &mut rng), exhausted);
    assert_eq!(decide(&policy, 21, &answered(503), NOW, &mut rng), exhausted);
    assert_eq!(decide(&policy, 20, &answered(200), NOW, &mut rng), Transition::Delivered);
    // A final answer keeps its own reason, however late.
    assert_eq!(decide(&policy, 20, &answered(400), NOW, &mut rng), Transition::Dead { reason: Reason::Status4xx });
}

#[test]
fn retry_after_lengthens_up_to_the_longest_wait() {
    let policy = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
    let due_after = |asked: Duration| {
        let outcome = Outcome { retry_after: Some(NOW.plus(asked)), ..answered(429) };
        match decide(&policy, 3, &outcome, NOW, &mut fastrand::Rng::with_seed(1)) {
            Transition::Retry { due_at } => due_at.since(NOW),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(due_after(Duration::ZERO), Duration::from_millis(625));
    assert_eq!(due_after(Duration::from_secs(60)), Duration::from_secs(60));
    assert_eq!(due_after(Duration::from_hours(100)), policy.max_delay);
    assert_eq!(due_after(Duration::MAX), policy.max_delay);
    let past = Outcome { retry_after: Some(NOW.minus(Duration::from_secs(60))), ..answered(429) };
    let first = decide(&policy, 1, &past, NOW, &mut fastrand::Rng::with_seed(1));
    assert_eq!(first, Transition::Retry { due_at: NOW.plus(Duration::from_millis(100)) });
}

#[test]
fn policies_at_the_edge_of_their_types_do_not_panic() {
    let absurd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, f64::MAX];
    for (multiplier, share) in absurd.into_iter().flat_map(|multiplier| absurd.map(|share| (multiplier, share))) {
        for delay in [Duration::ZERO, Duration::from_secs(1), Duration::MAX] {
            let (initial_delay, max_delay) = (delay, delay);
            let policy = RetryPolicy { multiplier, jitter: share, initial_delay, max_delay, ..RetryPolicy::default() };
            for attempt in [0, 1, 2, 19] {
                decide(&policy, attempt, &answered(503), NOW, &mut fastrand::Rng::with_seed(1));
            }
        }
    }
}

fn policies() -> impl Strategy<Value = RetryPolicy> {
    let delays = (1..100_000u64, 1..100_000_000u64);
    (1..40u32, delays, 1.0..10.0f64, 0.0..=1.0f64, any::<bool>()).prop_map(
        |(max_attempts, (initial_ms, max_ms), multiplier, jitter, page)| RetryPolicy {
            max_attempts,
            initial_delay: Duration::from_millis(initial_ms),
            multiplier,
            max_delay: Duration::from_millis(max_ms),
            jitter,
            rule: if page { RetryRule::Page } else { RetryRule::Default },
            ..RetryPolicy::default()
        },
    )
}

proptest! {
    #[test]
    fn waits_keep_to_the_curve_the_jitter_and_the_bound(
        policy in policies(),
        attempt in 1..40u32,
        asked_ms in proptest::option::of(0..200_000_000u64),
        seed in any::<u64>(),
    ) {
        let retry_after = asked_ms.map(|asked_ms| NOW.plus(Duration::from_millis(asked_ms)));
        let outcome = Outcome { retry_after, ..answered(503) };
        match decide(&policy, attempt, &outcome, NOW, &mut fastrand::Rng::with_seed(seed)) {
            Transition::Dead { reason } => {
                prop_assert_eq!(reason, Reason::AttemptsExhausted);
                prop_assert!(attempt >= policy.max_attempts);
            }
            Transition::Retry { due_at } => {
                prop_assert!(attempt < policy.max_attempts);
                let millisecond = Duration::from_millis(1);
                let (wait, curve) = (due_at.since(NOW) + millisecond, policy.delay_after(attempt));
                let asked = Duration::from_millis(asked_ms.unwrap_or(0)).min(policy.max_delay);
                prop_assert!(wait >= curve, "shorter than the curve: {:?} < {:?}", wait, curve);
                prop_assert!(wait >= asked, "shorter than asked: {:?} < {:?}", wait, asked);
                let longest = (curve + curve.mul_f64(policy.jitter)).max(asked) + millisecond;
                prop_assert!(wait <= longest, "longer than jitter allows: {:?} > {:?}", wait, longest);
                prop_assert!(wait <= policy.max_delay.mul_f64(1.0 + policy.jitter) + millisecond);
            }
            other => prop_assert!(false, "503 is {other:?}"),
        }
    }

    #[test]
    fn waits_never_get_shorter(policy in policies(), attempt in 1..2_000u32) {
        prop_assert!(policy.delay_after(attempt) <= policy.delay_after(attempt + 1));
    }

    #[test]
    fn the_same_seed_gives_the_same_transition(policy in policies(), seed in any::<u64>()) {
        let decided = || decide(&policy, 1, &answered(503), NOW, &mut fastrand::Rng::with_seed(seed));
        prop_assert_eq!(decided(), decided());
    }

    #[test]
    fn ids_differ_wherever_their_parts_do(
        parts in proptest::collection::hash_set(("[ab/]{0,3}", "[ab]{0,2}", "[ab]{0,2}", "[ab]{0,2}", 0..2u32), 2..40),
    ) {
        let ids: HashSet<_> = parts
            .iter()
            .map(|(event, plugin, endpoint, key, generation)| {
                let event = EventKey::from_stored(event.as_str());
                DeliveryId::derive(&event, plugin, endpoint, Distinct::Key(key), *generation)
            })
            .collect();
        prop_assert_eq!(ids.len(), parts.len());
    }
}

fn id(event: &str, plugin: &str, endpoint: &str, distinct: Distinct<'_>, generation: u32) -> String {
    DeliveryId::derive(&EventKey::from_stored(event), plugin, endpoint, distinct, generation).as_str().to_owned()
}

/// Ids are in receivers' tables: whatever changes one of these makes every webhook a new one to them.
#[test]
fn ids_never_change() {
    let index = Distinct::Index;
    assert_eq!(id("bus/seq/42", "orders", "crm", index(0), 0), "msg_86ecebd36d4d8a3f1535a67af34d20fc");
    assert_eq!(id("bus/seq/42", "orders", "crm", index(1), 0), "msg_ef3c67d99a26b06b03c06e5c2b87c4b7");
    assert_eq!(id("bus/seq/42", "orders", "crm", index(0), 1), "msg_206a117364d4d3208786865a8bd9d6ea");
    assert_eq!(id("bus/seq/42", "orders", "crm", Distinct::Key("line-7"), 0), "msg_7819241dc5cef32c401be87f853110b8");
    assert_eq!(id("bus/id/é", "", "", Distinct::Key(""), u32::MAX), "msg_9a334ca4924fa94e74dd6631f77bcb4e");
}

#[test]
fn parts_are_framed() {
    let key = Distinct::Key;
    assert_ne!(id("ab", "c", "d", key("e"), 0), id("a", "bc", "d", key("e"), 0));
    assert_ne!(id("a", "bc", "d", key("e"), 0), id("a", "b", "cd", key("e"), 0));
    assert_ne!(id("a", "b", "cd", key("e"), 0), id("a", "b", "c", key("de"), 0));
    // A key can't pose as an index, nor an index as a key.
    assert_ne!(id("a", "b", "c", key("\0\0\0\x01"), 0), id("a", "b", "c", Distinct::Index(1), 0));
    assert_ne!(id("a", "b", "c", key("0"), 0), id("a", "b", "c", Distinct::Index(0), 0));
}
