use proptest::prelude::*;

use super::*;

const ILL: Sign = Sign::Ill { asked: None };
const START: Duration = Duration::from_secs(1_000);

fn policy() -> BreakerPolicy {
    BreakerPolicy { min_attempts: 4, ..BreakerPolicy::default() }
}

/// A breaker with a clock beside it.
struct Scene {
    breaker: Breaker,
    now: Duration,
}

impl Scene {
    fn new() -> Self {
        Self { breaker: Breaker::new(policy()), now: START }
    }

    /// One attempt from its beginning to its end.
    fn attempt(&mut self, sign: Sign) -> Option<Change> {
        assert_eq!(self.breaker.pass(self.now), Pass::Now);
        let ticket = self.breaker.begin();
        self.breaker.ended(ticket, sign, self.now)
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn opened(seconds: u64) -> Option<Change> {
        Some(Change::Opened(Duration::from_secs(seconds)))
    }

    /// Four failures in a row.
    fn open(&mut self) {
        for _ in 0..3 {
            assert_eq!(self.attempt(ILL), None);
        }
        assert_eq!(self.attempt(ILL), Self::opened(5));
    }
}

#[test]
fn it_opens_at_the_ratio_and_not_before_there_were_enough_attempts() {
    let mut scene = Scene::new();
    let signs = [Sign::Well, ILL, ILL, Sign::Well, Sign::Well];
    // Two of three failed, but three are not enough; then the ratio is two of four, which is.
    for sign in &signs[..3] {
        assert_eq!(scene.attempt(*sign), None);
    }
    assert_eq!(scene.attempt(ILL), Scene::opened(5));
    let mut scene = Scene::new();
    for sign in signs {
        assert_eq!(scene.attempt(sign), None);
    }
    assert_eq!(scene.attempt(ILL), Scene::opened(5), "three of six");
}

#[test]
fn failures_are_forgotten_with_the_window() {
    let mut scene = Scene::new();
    for _ in 0..20 {
        assert_eq!(scene.attempt(ILL), None);
        scene.wait(21);
    }
}

#[test]
fn an_open_one_lets_nothing_pass_then_one_at_a_time_and_closes() {
    let mut scene = Scene::new();
    scene.open();
    assert_eq!(scene.breaker.pass(scene.now), Pass::At(START + Duration::from_secs(5)));
    scene.wait(5);
    for succeeded in 0..PROBES_TO_CLOSE {
        assert_eq!(scene.breaker.pass(scene.now), Pass::Now);
        let probe = scene.breaker.begin();
        assert_eq!(scene.breaker.pass(scene.now), Pass::WhenTold, "one at a time");
        let closed = succeeded + 1 == PROBES_TO_CLOSE;
        assert_eq!(scene.breaker.ended(probe, Sign::Well, scene.now), closed.then_some(Change::Closed));
    }
    let together: Vec<_> = (0..10).map(|_| scene.breaker.begin()).collect();
    assert_eq!(together.len(), 10);
    assert_eq!(scene.breaker.pass(scene.now), Pass::Now);
}

#[test]
fn it_is_open_for_longer_with_each_failed_probe_and_never_longer_than_its_bound() {
    let mut scene = Scene::new();
    scene.open();
    for open_s in [10, 20, 40, 80, 160, 300, 300] {
        let Pass::At(at) = scene.breaker.pass(scene.now) else { panic!("it is open") };
        scene.now = at;
        assert_eq!(scene.attempt(ILL), Scene::opened(open_s));
    }
}

#[test]
fn the_open_time_is_remembered_until_it_was_closed_for_a_window() {
    let mut scene = Scene::new();
    let close = |scene: &mut Scene| {
        let Pass::At(at) = scene.breaker.pass(scene.now) else { panic!("it is open") };
        scene.now = at;
        for _ in 0..PROBES_TO_CLOSE {
            scene.attempt(Sign::Well);
        }
        assert_eq!(scene.breaker.phase(), Phase::Closed);
    };
    scene.open();
    close(&mut scene);
    for _ in 0..3 {
        scene.attempt(ILL);
    }
    assert_eq!(scene.attempt(ILL), Scene::opened(10), "it fell ill again at once");
    close(&mut scene);
    scene.wait(60);
    scene.open();
}

#[test]
fn what_the_endpoint_asks_for_lengthens_within_the_bound() {
    let check = |asked_s, open_s| {
        let mut scene = Scene::new();
        for _ in 0..3 {
            scene.attempt(ILL);
        }
        let asked = Some(Duration::from_secs(asked_s));
        assert_eq!(scene.attempt(Sign::Ill { asked }), Scene::opened(open_s));
    };
    check(1, 5);
    check(60, 60);
    check(86_400, 300);
}

#[test]
fn attempts_from_before_say_nothing_of_what_came_after() {
    let mut scene = Scene::new();
    let early: Vec<_> = (0..3).map(|_| scene.breaker.begin()).collect();
    scene.open();
    assert_eq!(scene.breaker.ended(early[0], Sign::Well, scene.now), None);
    scene.wait(5);
    let probe = scene.breaker.begin();
    assert_eq!(scene.breaker.ended(early[1], ILL, scene.now), None);
    assert_eq!(scene.breaker.ended(early[2], Sign::Well, scene.now), None);
    assert_eq!(scene.breaker.phase(), Phase::Probing { under_way: true, succeeded: 0 });
    // A fault of the host's own is no verdict, but makes room.
    assert_eq!(scene.breaker.ended(probe, Sign::None, scene.now), None);
    assert_eq!(scene.breaker.pass(scene.now), Pass::Now);
}

#[test]
fn one_that_is_reset_is_as_new() {
    let mut scene = Scene::new();
    scene.open();
    scene.breaker.reset(scene.now);
    scene.open();
}

#[derive(Clone, Debug)]
enum Step {
    Begin,
    End { which: usize, sign: u8 },
    Wait { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Begin),
        3 => (any::<usize>(), 0..5u8).prop_map(|(which, sign)| Step::End { which, sign }),
        1 => (0..20_000u64).prop_map(|ms| Step::Wait { ms }),
    ];
    prop::collection::vec(step, 1..400)
}

fn policies() -> impl Strategy<Value = BreakerPolicy> {
    (0.01..=1.0f64, 1..30u32, 100..100_000u64, 100..10_000u64, 1..50u32).prop_map(
        |(failure_ratio, min_attempts, window_ms, open_ms, growth)| BreakerPolicy {
            failure_ratio,
            min_attempts,
            window: Duration::from_millis(window_ms),
            open: Duration::from_millis(open_ms),
            max_open: Duration::from_millis(open_ms) * growth,
        },
    )
}

proptest! {
    /// Whatever attempts come to and in whatever order they end: nothing begins while it is open, one at a time while it
    /// probes, it is never open for longer than its bound, and it never opens where nothing failed.
    #[test]
    fn nothing_passes_that_must_not(policy in policies(), steps in steps()) {
        let (open, max_open) = (policy.open, policy.max_open);
        let mut breaker = Breaker::new(policy);
        let mut now = START;
        let mut under_way: Vec<Ticket> = Vec::new();
        let mut open_until = None;
        for step in steps {
            match step {
                Step::Begin if breaker.pass(now) == Pass::Now => {
                    prop_assert!(open_until.is_none_or(|until| now >= until));
                    under_way.push(breaker.begin());
                    if let Phase::Probing { under_way, .. } = breaker.phase() {
                        prop_assert!(under_way);
                        prop_assert_eq!(breaker.pass(now), Pass::WhenTold);
                    }
                }
                Step::Begin => {}
                Step::End { which, sign } if !under_way.is_empty() => {
                    let ticket = under_way.swap_remove(which % under_way.len());
                    let sign = match sign { 0..=1 => Sign::Well, 2..=3 => ILL, _ => Sign::None };
                    match breaker.ended(ticket, sign, now) {
                        Some(Change::Opened(open_for)) => {
                            prop_assert_eq!(sign, ILL);
                            prop_assert!((open..=max_open).contains(&open_for));
                            prop_assert_eq!(breaker.pass(now), Pass::At(now + open_for));
                            open_until = Some(now + open_for);
                        }
                        Some(Change::Closed) => {
                            prop_assert_eq!(sign, Sign::Well);
                            open_until = None;
                        }
                        None => {}
                    }
                }
                Step::End { .. } => {}
                Step::Wait { ms } => now += Duration::from_millis(ms),
            }
        }
        // However it stands, an endpoint that works again is let in again.
        for ticket in under_way {
            breaker.ended(ticket, Sign::None, now);
        }
        for _ in 0..=PROBES_TO_CLOSE {
            if let Pass::At(at) = breaker.pass(now) {
                now = at;
            }
            prop_assert_eq!(breaker.pass(now), Pass::Now);
            let ticket = breaker.begin();
            breaker.ended(ticket, Sign::Well, now);
        }
        prop_assert_eq!(breaker.phase(), Phase::Closed);
    }

    /// The window counts what lies within it: never more than the last window's attempts, never less than nine tenths of it.
    #[test]
    fn the_window_has_the_attempts_of_its_time(gaps_ms in prop::collection::vec(0..3_000u64, 1..300)) {
        let window_length = Duration::from_secs(10);
        let mut window = Window::default();
        let (mut now, mut times) = (START, Vec::new());
        for gap_ms in gaps_ms {
            now += Duration::from_millis(gap_ms);
            times.push(now);
            window.count(now, window_length, false);
            let within = |span: Duration| times.iter().filter(|time| now - **time < span).count();
            let counted = window.sums().0 as usize;
            prop_assert!(counted <= within(window_length), "{counted}");
            prop_assert!(counted >= within(window_length * 9 / 10), "{counted}");
        }
    }
}
