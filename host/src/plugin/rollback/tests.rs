use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Goes through `calls` of which `faults` are faults, evenly spread; the number of the call that rolled it back.
fn run(mut standing: Standing, calls: u32, faults: u32) -> (Standing, Option<u32>) {
    for call in 0..calls {
        let fault = (call + 1) * faults / calls > call * faults / calls;
        let (next, verdict) = standing.after(if fault { Outcome::Fault } else { Outcome::Answered }, NOW);
        standing = next;
        if verdict == Verdict::RollBack {
            return (standing, Some(call + 1));
        }
    }
    (standing, None)
}

fn served(calls: u32, faults: u32) -> Standing {
    run(Standing::default(), calls, faults).0
}

#[test]
fn a_build_that_always_fails_is_rolled_back_as_soon_as_it_may_be_judged() {
    assert_eq!(run(served(1_000, 0).replaced(NOW), 1_000, 1_000).1, Some(CALLS_MIN));
    assert_eq!(run(Standing::default().replaced(NOW), 1_000, 1_000).1, Some(CALLS_MIN));
}

#[test]
fn a_build_that_replaced_none_is_never_rolled_back() {
    assert_eq!(run(Standing::default(), 1_000, 1_000).1, None);
}

#[test]
fn the_build_put_back_has_its_counts_again_and_no_probation() {
    let before = served(500, 3);
    assert_eq!(run(before.replaced(NOW), 100, 100).0, before);
}

#[test]
fn a_second_bad_build_is_compared_with_the_last_good_one() {
    let bad = run(served(1_000, 0).replaced(NOW), CALLS_MIN - 1, CALLS_MIN - 1).0;
    assert_eq!(run(bad.replaced(NOW), 100, 100).1, Some(CALLS_MIN));
}

#[test]
fn probation_ends_with_time() {
    let late = NOW.plus(PROBATION);
    let (kept, verdict) = served(100, 0).replaced(NOW).after(Outcome::Answered, late);
    assert_eq!((verdict, run(kept, 1_000, 1_000).1), (Verdict::Serve, None));
}

#[test]
fn a_standing_survives_being_written_down() {
    let standing = run(served(100, 7).replaced(NOW), 10, 10).0;
    let text = serde_json::to_string(&standing).unwrap();
    assert_eq!(serde_json::from_str::<Standing>(&text).unwrap(), standing);
}

#[test]
fn what_the_plugin_answered_is_not_redriven() {
    assert!(killed_by_build(Reason::PluginTrap) && killed_by_build(Reason::PluginDeadline));
    assert!(!killed_by_build(Reason::PluginRejected) && !killed_by_build(Reason::HostCrash));
}

proptest! {
    #[test]
    fn few_samples_never_roll_back(before in 0u32..2_000, faults in 0..CALLS_MIN) {
        prop_assert_eq!(run(served(before, 0).replaced(NOW), CALLS_MIN - 1, faults.min(CALLS_MIN - 1)).1, None);
    }

    #[test]
    fn a_build_as_bad_as_the_one_before_is_kept(calls in 100u32..2_000, percent in 0u32..=100) {
        let faults = calls * percent / 100;
        prop_assert_eq!(run(served(calls, faults).replaced(NOW), calls, faults).1, None);
    }

    #[test]
    fn a_build_no_worse_than_the_margin_is_kept(calls in 100u32..2_000, percent in 0u32..=15) {
        prop_assert_eq!(run(served(calls, 0).replaced(NOW), calls, calls * percent / 100).1, None);
    }

    #[test]
    fn counts_are_bounded(calls in 0u32..30_000, percent in 0u32..=100) {
        let counts = served(calls, calls * percent / 100).counts;
        prop_assert!(counts.calls <= CALLS_MAX && counts.faults <= counts.calls);
    }
}
