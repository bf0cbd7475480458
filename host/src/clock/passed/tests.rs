use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const MONTH: i64 = 31 * DAY;
/// 2027-01-15.
const START: i64 = 1_800_000_000_000;

fn ms(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs())
}

/// A machine with a store: what is true, and what its clocks show.
struct Machine {
    /// Milliseconds that have truly passed.
    truth: i64,
    boot: u32,
    booted: i64,
    wall_off: i64,
    is_synchronised: bool,
    clock: PassedClock,
    kept: Kept,
    began: i64,
}

impl Machine {
    fn new(wall_off: i64, is_synchronised: bool) -> Self {
        let reading =
            Reading { boot: "0".into(), since_boot: ms(HOUR), wall: Timestamp(START + wall_off), is_synchronised };
        let mut clock = PassedClock::new(&reading);
        let (kept, began) = (clock.look(&reading), clock.at(reading.since_boot).0);
        Self { truth: 0, boot: 0, booted: -HOUR, wall_off, is_synchronised, clock, kept, began }
    }

    fn reading(&self) -> Reading {
        Reading {
            boot: self.boot.to_string().into(),
            since_boot: ms(self.truth - self.booted),
            wall: self.wall(),
            is_synchronised: self.is_synchronised,
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp(START + self.truth + self.wall_off)
    }

    /// Milliseconds that have passed by the store's clock.
    fn passed(&self) -> i64 {
        self.clock.at(self.reading().since_boot).0 - self.began
    }

    fn look(&mut self) {
        let reading = self.reading();
        self.kept = self.clock.look(&reading);
    }

    fn set(&mut self, wall_off: i64, is_synchronised: bool) {
        (self.wall_off, self.is_synchronised) = (wall_off, is_synchronised);
    }

    fn pass(&mut self, millis: i64) {
        self.truth += millis;
    }

    fn restart_host(&mut self, down: i64) {
        self.pass(down);
        let reading = self.reading();
        self.clock = PassedClock::resume(&self.kept, self.clock.stretches().to_vec(), &reading);
    }

    fn restart_machine(&mut self, off: i64, wall_off: i64, is_synchronised: bool) {
        self.pass(off);
        (self.boot, self.booted) = (self.boot + 1, self.truth);
        self.set(wall_off, is_synchronised);
        self.restart_host(0);
    }
}

#[test]
fn only_time_that_passes_moves_it() {
    let mut machine = Machine::new(0, false);
    machine.pass(HOUR);
    for step in [MONTH, -MONTH, 56 * 365 * DAY, 0] {
        machine.set(step, false);
        machine.look();
        assert_eq!(machine.passed(), HOUR, "{step}");
    }
    machine.restart_host(2 * HOUR);
    assert_eq!(machine.passed(), 3 * HOUR, "the machine was on while no host ran");
}

#[test]
fn time_that_the_machine_was_off_counts_where_the_wall_clock_is_known_to_be_right() {
    let off = |before, wall_off, after, expected: i64, why: &str| {
        let mut machine = Machine::new(0, before);
        machine.pass(HOUR);
        machine.look();
        machine.restart_machine(MONTH, wall_off, after);
        machine.pass(HOUR);
        assert_eq!(machine.passed(), 2 * HOUR + expected, "{why}");
    };
    off(true, 0, true, MONTH, "synchronised at both ends");
    off(true, 0, false, 0, "nobody knows");
    off(false, 0, true, 0, "nobody knew");
    off(true, -56 * 365 * DAY, false, 0, "no battery");
    off(true, MONTH, false, 0, "set ahead while it was off");
}

#[test]
fn a_wall_clock_that_is_synchronised_later_tells_for_how_long_the_machine_was_off() {
    let mut machine = Machine::new(0, true);
    machine.restart_machine(MONTH, -56 * 365 * DAY, false);
    machine.pass(HOUR);
    machine.look();
    assert_eq!(machine.passed(), HOUR);
    machine.set(0, true);
    machine.look();
    assert_eq!(machine.passed(), MONTH + HOUR);
    machine.look();
    assert_eq!(machine.passed(), MONTH + HOUR, "once");
}

#[test]
fn what_the_wall_clock_stamps_is_found_old_whatever_it_shows_now() {
    let mut machine = Machine::new(0, false);
    let before = |machine: &Machine| machine.clock.wall_before(ms(DAY), &machine.reading());
    machine.pass(HOUR);
    let first = machine.wall();
    machine.set(MONTH, false);
    machine.look();
    assert!(first >= before(&machine), "an hour is no day");
    machine.pass(DAY + HOUR);
    assert!(first < before(&machine));
    assert!(machine.wall().minus(ms(DAY - 1)) >= before(&machine));
    // A clock that was ahead has stamped this.
    let ahead = machine.wall();
    machine.set(0, false);
    machine.look();
    machine.pass(HOUR);
    let since = machine.wall();
    assert!(ahead >= before(&machine) && since >= before(&machine));
    machine.pass(DAY + 1);
    assert!(since < before(&machine), "what came after it is not held up");
}

#[test]
fn the_ways_the_clock_was_set_are_bounded() {
    let mut machine = Machine::new(0, false);
    machine.pass(DAY);
    for step in 0..5_000 {
        machine.set(if step % 2 == 0 { -MONTH } else { MONTH }, false);
        machine.pass(1_000);
        machine.look();
    }
    assert_eq!(machine.clock.stretches().len(), STRETCHES_MAX);
    let whole = machine.clock.wall_before(ms(MONTH), &machine.reading());
    assert!(whole <= Timestamp(START), "what was forgotten keeps what it may have stamped");
}

#[derive(Clone, Debug)]
enum Step {
    Pass(i64),
    Set(i64, bool),
    RestartHost(i64),
    RestartMachine(i64, i64, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wall = prop_oneof![Just(0), Just(MONTH), Just(-MONTH), Just(-56 * 365 * DAY), -DAY..DAY];
    // A clock that follows a reference shows the right time.
    let set = (wall, any::<bool>()).prop_map(|(off, right)| if right { (0, true) } else { (off, false) });
    let step = prop_oneof![
        (0..10 * DAY).prop_map(Step::Pass),
        set.clone().prop_map(|(off, right)| Step::Set(off, right)),
        (0..DAY).prop_map(Step::RestartHost),
        (0..DAY, set).prop_map(|(down, (off, right))| Step::RestartMachine(down, off, right)),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn nothing_is_older_than_it_truly_is_and_nothing_is_kept_for_ever(steps in steps(), age in 1..40_i64) {
        let age = age * DAY;
        let mut machine = Machine::new(0, false);
        let (mut off, mut stamped) = (0, Vec::new());
        for step in steps {
            let before = machine.passed();
            match step {
                Step::Pass(millis) => machine.pass(millis),
                Step::Set(wall_off, right) => machine.set(wall_off, right),
                Step::RestartHost(down) => machine.restart_host(down),
                Step::RestartMachine(down, wall_off, right) => {
                    off += down;
                    machine.restart_machine(down, wall_off, right);
                }
            }
            machine.look();
            prop_assert!(machine.passed() >= before, "it went back");
            prop_assert!(machine.passed() <= machine.truth, "it is ahead of the truth");
            prop_assert!(machine.passed() >= machine.truth - off, "time is missing in which the machine was on");
            let oldest = machine.clock.wall_before(ms(age), &machine.reading());
            stamped.push((machine.passed(), machine.wall()));
            for (passed, wall) in &stamped {
                // A clock that is off by less than a second was not set.
                let young = machine.passed() - passed <= age - 1_000;
                prop_assert!(!young || *wall >= oldest.minus(ms(1_000)), "stamped within its age, and found old");
            }
        }
        machine.pass(age + 60 * 365 * DAY);
        let oldest = machine.clock.wall_before(ms(age), &machine.reading());
        prop_assert!(stamped.iter().all(|(_, wall)| *wall < oldest), "something is kept for ever");
    }
}
