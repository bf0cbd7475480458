//! Lanes over simulated time: a queue, its concurrency, rate and breaker, the retry policy, and an endpoint that does as
//! it is told. One seed gives one run.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::delivery::{AttemptResult, Outcome, RetryPolicy, decide};
use crate::dispatcher::breaker::PROBES_TO_CLOSE;
use crate::dispatcher::rate::RATE_BURST;

const WALL: Timestamp = Timestamp(1_800_000_000_000);

/// How an endpoint is for a while.
#[derive(Clone, Debug)]
struct Mood {
    lasts: Duration,
    /// Attempts that fail, of 100.
    failing: u32,
    status: u16,
    latency: Duration,
    retry_after: Option<Duration>,
}

/// What happened, in order.
#[derive(Clone, PartialEq, Debug)]
enum Seen {
    Began { at: Duration, delivery: u32, attempt: u32 },
    Ended { at: Duration, delivery: u32, transition: Transition },
    News { at: Duration, news: GateNews },
}

struct Simulation {
    gate: Gate,
    retry: RetryPolicy,
    concurrency: usize,
    moods: Vec<Mood>,
    rng: fastrand::Rng,
    now: Duration,
    /// By when they are due, then in order.
    waiting: BTreeSet<(Duration, u32)>,
    /// By when they end.
    under_way: BTreeMap<(Duration, u32), (Ticket, Outcome)>,
    attempts: BTreeMap<u32, u32>,
    seen: Vec<Seen>,
}

impl Simulation {
    fn new(gate: GatePolicy, retry: RetryPolicy, concurrency: usize, moods: Vec<Mood>, seed: u64) -> Self {
        Self {
            gate: Gate::new(gate),
            retry,
            concurrency,
            moods,
            rng: fastrand::Rng::with_seed(seed),
            now: Duration::ZERO,
            waiting: BTreeSet::new(),
            under_way: BTreeMap::new(),
            attempts: BTreeMap::new(),
            seen: Vec::new(),
        }
    }

    /// Runs with so many deliveries, all due at once.
    fn run(&mut self, deliveries: u32, time: Duration) {
        self.waiting = (0..deliveries).map(|delivery| (Duration::ZERO, delivery)).collect();
        self.go_on(time);
    }

    /// Until nothing is left that happens by itself, or the time is over.
    fn go_on(&mut self, time: Duration) {
        while self.now < time {
            self.end_what_is_over();
            let opens_at = self.begin_what_may();
            let ends_at = self.under_way.keys().next().map(|(at, _)| *at);
            // What is due already waits for a place or the gate.
            let after_now = (self.now + Duration::from_nanos(1), 0);
            let due_at = self.waiting.range(after_now..).next().map(|(due_at, _)| *due_at);
            let Some(next) = [ends_at, due_at, opens_at].into_iter().flatten().min() else { return };
            assert!(next > self.now, "the simulation stands still at {:?}", self.now);
            self.now = next;
        }
    }

    fn end_what_is_over(&mut self) {
        while let Some(entry) = self.under_way.first_entry()
            && entry.key().0 <= self.now
        {
            let (at, delivery) = *entry.key();
            let (ticket, outcome) = entry.remove();
            let wall = WALL.plus(at);
            let transition = decide(&self.retry, self.attempts[&delivery], &outcome, wall, &mut self.rng);
            let sign = match transition {
                Transition::Delivered => Sign::Well,
                _ => Sign::Ill { asked: outcome.retry_after.map(|asked| asked.since(wall)) },
            };
            let news = self.gate.ended(ticket, Ended { sign, transition: &transition }, wall, at);
            if let Transition::Retry { due_at } = transition {
                self.waiting.insert((at + due_at.since(wall), delivery));
            }
            self.seen.push(Seen::Ended { at, delivery, transition });
            self.seen.extend(news.map(|news| Seen::News { at, news }));
        }
    }

    /// Returns when the gate lets something pass again, where that is what is waited for.
    fn begin_what_may(&mut self) -> Option<Duration> {
        while self.under_way.len() < self.concurrency {
            let (_, delivery) = *self.waiting.first().filter(|(due_at, _)| *due_at <= self.now)?;
            match self.gate.pass(self.now) {
                Err(Pass::At(at)) => return Some(at),
                Err(_) => return None,
                Ok(ticket) => {
                    self.waiting.pop_first();
                    let attempt = self.attempts.entry(delivery).or_default();
                    *attempt += 1;
                    self.seen.push(Seen::Began { at: self.now, delivery, attempt: *attempt });
                    let (outcome, latency) = self.answer();
                    self.under_way.insert((self.now + latency, delivery), (ticket, outcome));
                }
            }
        }
        None
    }

    fn answer(&mut self) -> (Outcome, Duration) {
        let mut since = self.now;
        let mood = self.moods.iter().find(|mood| match since.checked_sub(mood.lasts) {
            Some(rest) => {
                since = rest;
                false
            }
            None => true,
        });
        let well = (200, Duration::from_millis(5), None);
        let (status, latency, asked) = match mood {
            Some(mood) if self.rng.u32(0..100) < mood.failing => (mood.status, mood.latency, mood.retry_after),
            Some(mood) => (200, mood.latency, None),
            None => well,
        };
        let retry_after = asked.map(|asked| WALL.plus(self.now + latency + asked));
        let result = AttemptResult::Status(status);
        // An answer takes time: else nothing would ever be under way.
        (
            Outcome { result, retry_after, location: None, response: Bytes::new(), duration: latency },
            latency.max(Duration::from_millis(1)),
        )
    }

    fn count(&self, wanted: impl Fn(&Transition) -> bool) -> usize {
        let ended =
            self.seen.iter().filter(|seen| matches!(seen, Seen::Ended { transition, .. } if wanted(transition)));
        ended.count()
    }

    fn delivered(&self) -> usize {
        self.count(|transition| *transition == Transition::Delivered)
    }

    fn dead(&self) -> usize {
        self.count(|transition| matches!(transition, Transition::Dead { .. }))
    }

    fn begun(&self) -> Vec<Duration> {
        self.seen.iter().filter_map(|seen| if let Seen::Began { at, .. } = seen { Some(*at) } else { None }).collect()
    }
}

/// Ten minutes of 401.
fn ten_minutes_of(status: u16) -> Vec<Mood> {
    let (lasts, latency) = (Duration::from_mins(10), Duration::from_millis(20));
    vec![Mood { lasts, failing: 100, status, latency, retry_after: None }]
}

/// Four attempts within a second: without a breaker, everything that is tried in those ten minutes dies.
fn impatient() -> RetryPolicy {
    RetryPolicy { max_attempts: 4, max_delay: Duration::from_secs(1), ..RetryPolicy::default() }
}

#[test]
fn ten_minutes_of_401_to_a_full_backlog_kill_nothing() {
    const BACKLOG: u32 = 100_000;
    for status in [401, 403, 404, 500, 503] {
        let mut run = Simulation::new(GatePolicy::default(), impatient(), 32, ten_minutes_of(status), 1);
        run.run(BACKLOG, Duration::from_hours(24));
        assert_eq!((run.delivered(), run.dead()), (BACKLOG as usize, 0), "{status}");
        let within = run.begun().iter().filter(|at| **at < Duration::from_mins(10)).count();
        assert!(within < 60, "{within} attempts were spent on an endpoint that refused all");
        assert!(run.now < Duration::from_mins(16), "the last was delivered after {:?}", run.now);
    }
}

#[test]
fn without_a_breaker_it_would_have_killed_them() {
    let gate = GatePolicy { breaker: None, ..GatePolicy::default() };
    let mut run = Simulation::new(gate, impatient(), 32, ten_minutes_of(401), 1);
    run.run(10_000, Duration::from_hours(24));
    assert_eq!((run.delivered(), run.dead()), (0, 10_000));
}

#[test]
fn a_410_disables_and_the_rest_waits_untouched() {
    let mut run = Simulation::new(GatePolicy::default(), RetryPolicy::default(), 1, ten_minutes_of(410), 1);
    run.run(1_000, Duration::from_hours(24));
    assert_eq!((run.dead(), run.waiting.len(), run.begun().len()), (1, 999, 1));
    assert!(matches!(run.seen.last(), Some(Seen::News { news: GateNews::Disable(DisableReason::Gone), .. })));
    assert_eq!(run.gate.pass(run.now), Err(Pass::WhenTold));
    run.gate.set_state(EndpointState::Active, run.now);
    run.moods.clear();
    run.go_on(Duration::from_hours(24));
    assert_eq!((run.delivered(), run.dead()), (999, 1));
}

#[test]
fn failing_for_so_long_disables_and_not_before() {
    let moods = |failing| {
        let (lasts, latency) = (Duration::from_hours(24 * 30), Duration::from_millis(20));
        vec![Mood { lasts, failing, status: 503, latency, retry_after: None }]
    };
    let patient = RetryPolicy { max_attempts: 1000, max_delay: Duration::from_hours(1), ..RetryPolicy::default() };
    let mut run = Simulation::new(GatePolicy::default(), patient.clone(), 4, moods(100), 1);
    run.run(500, Duration::from_hours(24 * 30));
    let Some(Seen::News { at, news: GateNews::Disable(DisableReason::Failing(failing_for)) }) = run.seen.last() else {
        panic!("{:?}", run.seen.last());
    };
    assert!((DISABLE_AFTER..DISABLE_AFTER + Duration::from_hours(2)).contains(failing_for), "{failing_for:?}");
    assert!(*at < DISABLE_AFTER + Duration::from_hours(3), "{at:?}");
    assert_eq!((run.dead(), run.waiting.len()), (0, 500));

    let never = GatePolicy { disable_after: None, ..GatePolicy::default() };
    let mut run = Simulation::new(never, patient.clone(), 4, moods(100), 1);
    run.run(500, Duration::from_hours(24 * 10));
    assert_eq!(run.gate.state(), EndpointState::Active);
    // One success in ten is enough to go on.
    let mut run = Simulation::new(GatePolicy::default(), patient, 4, moods(90), 1);
    run.run(500, Duration::from_hours(24 * 30));
    assert_eq!((run.gate.state(), run.delivered()), (EndpointState::Active, 500));
}

#[test]
fn a_paused_gate_lets_nothing_pass_and_spends_nothing() {
    let mut gate = Gate::new(GatePolicy { rate: Some("1/s".parse().unwrap()), ..GatePolicy::default() });
    let now = Duration::from_secs(9);
    gate.set_state(EndpointState::Paused, now);
    assert_eq!(gate.pass(now), Err(Pass::WhenTold));
    gate.set_state(EndpointState::Active, now);
    assert!(gate.pass(now).is_ok(), "the rate was not spent by asking");
    assert_eq!(gate.pass(now), Err(Pass::At(now + Duration::from_secs(1) - RATE_BURST)));
}

#[test]
fn a_probe_waits_for_the_rate_too() {
    let policy = BreakerPolicy { min_attempts: 1, ..BreakerPolicy::default() };
    let rate = Some("1/m".parse().unwrap());
    let mut gate = Gate::new(GatePolicy { rate, breaker: Some(policy), ..GatePolicy::default() });
    let now = Duration::from_secs(100);
    let ticket = gate.pass(now).unwrap();
    let transition = Transition::Retry { due_at: WALL };
    let ended = Ended { sign: Sign::Ill { asked: None }, transition: &transition };
    assert!(matches!(gate.ended(ticket, ended, WALL, now), Some(GateNews::Breaker(Change::Opened(_)))));
    let at = now + Duration::from_secs(5);
    assert_eq!(gate.pass(at), Err(Pass::At(now + Duration::from_mins(1) - RATE_BURST)), "open no more, but too early");
    assert!(gate.pass(now + Duration::from_mins(1)).is_ok());
}

fn moods() -> impl Strategy<Value = Vec<Mood>> {
    let mood = (1..600u64, 0..=100u32, prop::sample::select(vec![401u16, 404, 429, 500, 503]), 1..2_000u64, 0..600u64)
        .prop_map(|(lasts_s, failing, status, latency_ms, asked_s)| Mood {
            lasts: Duration::from_secs(lasts_s),
            failing,
            status,
            latency: Duration::from_millis(latency_ms),
            // Half of them ask for nothing.
            retry_after: (asked_s < 300).then_some(Duration::from_secs(asked_s)),
        });
    prop::collection::vec(mood, 0..6)
}

fn gates() -> impl Strategy<Value = GatePolicy> {
    let rate = prop::option::of((1..500u32).prop_map(|count| format!("{count}/s").parse().unwrap()));
    let breaker = prop::option::weighted(
        0.8,
        (1..40u32, 1..100u32, 1..100u64, 1..20u64, 1..20u32).prop_map(
            |(min_attempts, percent, window_s, open_s, growth)| BreakerPolicy {
                failure_ratio: f64::from(percent) / 100.0,
                min_attempts,
                window: Duration::from_secs(window_s),
                open: Duration::from_secs(open_s),
                max_open: Duration::from_secs(open_s) * growth,
            },
        ),
    );
    (rate, breaker).prop_map(|(rate, breaker)| GatePolicy { rate, disable_after: None, breaker })
}

fn retries() -> impl Strategy<Value = RetryPolicy> {
    let curve = (1..12u32, 1..5_000u64, 1.0..4.0f64, 5_000..100_000u64, 0.0..=1.0f64).prop_map(
        |(max_attempts, initial_ms, multiplier, max_ms, jitter)| RetryPolicy {
            max_attempts,
            initial_delay: Duration::from_millis(initial_ms),
            multiplier,
            max_delay: Duration::from_millis(max_ms),
            jitter,
            ..RetryPolicy::default()
        },
    );
    let schedule = prop::collection::vec(1..60_000u64, 1..8)
        .prop_map(|waits_ms| RetryPolicy::scheduled(waits_ms.into_iter().map(Duration::from_millis).collect()));
    prop_oneof![curve, schedule]
}

/// Every rule of a lane, read off what happened.
fn check_rules(run: &Simulation, deliveries: u32) -> Result<(), TestCaseError> {
    let (mut under_way, mut open_until) = (0usize, Duration::ZERO);
    let mut due = BTreeMap::new();
    for seen in &run.seen {
        match seen {
            Seen::Began { at, delivery, attempt } => {
                under_way += 1;
                prop_assert!(under_way <= run.concurrency);
                prop_assert!(*at >= open_until, "an attempt began while the breaker was open");
                prop_assert!(
                    *at >= due.get(delivery).copied().unwrap_or_default(),
                    "an attempt began before it was due"
                );
                prop_assert!(*attempt <= run.retry.max_attempts, "an attempt more than the budget has");
            }
            Seen::Ended { at, delivery, transition } => {
                under_way -= 1;
                if let Transition::Retry { due_at } = transition {
                    due.insert(*delivery, *at + due_at.since(WALL.plus(*at)));
                }
            }
            Seen::News { at, news: GateNews::Breaker(Change::Opened(open_for)) } => {
                open_until = *at + *open_for;
            }
            Seen::News { news: GateNews::Breaker(Change::Closed), .. } => {}
            Seen::News { .. } => prop_assert!(false, "nothing here disables"),
        }
    }
    if let Some(rate) = run.gate.rate() {
        // Each shorter time is checked with the bucket.
        let begun = run.begun();
        let time = begun.last().copied().unwrap_or_default() + RATE_BURST;
        let share = time.as_nanos() / rate.interval().as_nanos();
        prop_assert!(begun.len() as u128 <= share + 1, "{} attempts, {} is the rate's share", begun.len(), share);
    }
    prop_assert_eq!(run.delivered() + run.dead(), deliveries as usize, "{} are left", run.waiting.len());
    let of_other_causes =
        run.count(|it| matches!(it, Transition::Dead { reason } if *reason != Reason::AttemptsExhausted));
    prop_assert_eq!(of_other_causes, 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever an endpoint does for a while: every rule holds, and once it works, everything comes to its end.
    #[test]
    fn a_lane_keeps_every_rule(
        gate in gates(), retry in retries(), concurrency in 1..40usize, moods in moods(),
        deliveries in 1..300u32, seed in any::<u64>(),
    ) {
        let mut run = Simulation::new(gate, retry, concurrency, moods, seed);
        run.run(deliveries, Duration::from_hours(24 * 30));
        check_rules(&run, deliveries)?;
    }

    /// While it probes, attempts are made one after the other, and a breaker closes only after enough of them.
    #[test]
    fn probes_are_one_at_a_time(moods in moods(), concurrency in 1..40usize, seed in any::<u64>()) {
        let mut run = Simulation::new(GatePolicy::default(), RetryPolicy::default(), concurrency, moods, seed);
        run.run(300, Duration::from_hours(24 * 30));
        let (mut probing, mut before, mut probes) = (false, BTreeSet::new(), Vec::new());
        let mut under_way = BTreeSet::new();
        for seen in &run.seen {
            match seen {
                Seen::Began { delivery, .. } => {
                    under_way.insert(*delivery);
                    if probing {
                        probes.push(*delivery);
                        let beside = under_way.difference(&before).count();
                        prop_assert_eq!(beside, 1, "a probe beside another");
                    }
                }
                Seen::Ended { delivery, .. } => {
                    under_way.remove(delivery);
                    before.remove(delivery);
                }
                Seen::News { news: GateNews::Breaker(Change::Opened(_)), .. } => {
                    // What began before it opened may still be under way.
                    (probing, before) = (true, under_way.clone());
                    probes.clear();
                }
                Seen::News { news: GateNews::Breaker(Change::Closed), .. } => {
                    prop_assert!(probes.len() >= PROBES_TO_CLOSE as usize, "{} probes", probes.len());
                    probing = false;
                }
                Seen::News { .. } => {}
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_run(
        gate in gates(), retry in retries(), moods in moods(), seed in any::<u64>(),
    ) {
        let run = || {
            let mut run = Simulation::new(gate.clone(), retry.clone(), 8, moods.clone(), seed);
            run.run(100, Duration::from_hours(24 * 30));
            run.seen
        };
        prop_assert_eq!(run(), run());
    }

    /// `Retry-After` only lengthens: beside the same run without it, no wait is shorter.
    #[test]
    fn what_an_endpoint_asks_for_is_waited_for(
        retry in retries(), asked_s in 0..1_000u64, attempt in 1..12u32, seed in any::<u64>(),
    ) {
        let due = |retry_after| {
            let result = AttemptResult::Status(429);
            let outcome = Outcome { result, retry_after, location: None, response: Bytes::new(), duration: Duration::ZERO };
            match decide(&retry, attempt, &outcome, WALL, &mut fastrand::Rng::with_seed(seed)) {
                Transition::Retry { due_at } => Some(due_at),
                _ => None,
            }
        };
        let asked = Duration::from_secs(asked_s);
        let (without, with) = (due(None), due(Some(WALL.plus(asked))));
        prop_assert_eq!(without.is_some(), with.is_some(), "it gives nobody an attempt more or less");
        if let (Some(without), Some(with)) = (without, with) {
            prop_assert!(with >= without);
            prop_assert!(with >= WALL.plus(asked.min(retry.max_delay)));
            prop_assert_eq!(with, without.max(WALL.plus(asked.min(retry.max_delay))));
        }
    }
}
