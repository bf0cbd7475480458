//! What one call of a plugin may use, and the meters that hold it to that.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::clock::{Clock, thread_cpu_time};

mod table;

pub use table::{Held, LIMITS, Limit, Row, SomeLimits, Unit, hold};

/// A call may last this many times its deadline on the wall clock, which leaves room for a busy machine and for waits.
pub const WALL_FACTOR: u32 = 10;
/// The most memory a plugin may have, in bytes; what the engine reserves a slot for.
pub(super) const MEMORY_BYTES_MAX: usize = 256 << 20;

/// Bytes in the bodies of one event's webhooks together.
pub const BODIES_BYTES_MAX: usize = 4 << 20;
/// Bytes in a webhook's endpoint, key and content type, each.
pub const NAME_BYTES_MAX: usize = 512;
/// Lines a plugin may log for one event.
pub const LOG_LINES_MAX: u32 = 100;
/// Bytes of what a plugin or a trap says that are kept as a failure's detail.
pub const DETAIL_BYTES_MAX: usize = 2 << 10;

/// Resources of the component model that one call may hold at once.
pub(super) const HANDLES_MAX: usize = 1_000;
/// Bytes of bookkeeping that lifting one webhook may take besides its texts, and as much again for each header.
const WEBHOOK_OVERHEAD_BYTES: usize = 2 << 10;
const HEADER_OVERHEAD_BYTES: usize = 64;

/// What one call may use, where plugins may differ: see [`LIMITS`] for defaults and bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// CPU time; the wall clock may show [`WALL_FACTOR`] times as much.
    pub deadline: Duration,
    /// Bytes of every memory and table together.
    pub memory_bytes_max: usize,
    /// Bytes logged for one event.
    pub log_bytes_max: usize,
    /// Webhooks for one event.
    pub webhooks_max: usize,
    /// Bytes in the body of one webhook.
    pub body_bytes_max: usize,
    /// Headers of one webhook.
    pub headers_max: usize,
    /// Bytes in the names and values of one webhook's headers together.
    pub header_bytes_max: usize,
    /// Events that one instance serves; 1: each has a fresh one.
    pub events_per_instance_max: usize,
    /// Calls under way at once.
    pub calls_at_once_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self::lesser(&SomeLimits::default(), &SomeLimits::default())
    }
}

impl Limits {
    /// The most bytes that the webhooks of one event have together, but for a bounded rest.
    pub fn result_bytes_max(&self) -> usize {
        let bodies = self.webhooks_max.saturating_mul(self.body_bytes_max).min(BODIES_BYTES_MAX);
        bodies + self.webhooks_max * (self.header_bytes_max + 3 * NAME_BYTES_MAX)
    }

    /// What may cross from the plugin to the host in one crossing, in bytes: everything a valid result can hold, twice
    /// over, so that a result just over a limit is refused by that limit's name.
    pub(super) fn crossing_bytes_max(&self) -> usize {
        let headers = self.header_bytes_max + self.headers_max * HEADER_OVERHEAD_BYTES;
        2 * (BODIES_BYTES_MAX + self.webhooks_max * (headers + 3 * NAME_BYTES_MAX + WEBHOOK_OVERHEAD_BYTES))
    }
}

/// The call ran past its deadline; carries it out through the guest's frames. The text is in [`Deadline`].
#[derive(Debug, thiserror::Error)]
#[error("the deadline passed")]
pub(super) struct DeadlinePassed;

/// How long the present call may still take.
#[derive(Clone)]
pub(super) struct Deadline {
    clock: Arc<dyn Clock>,
    cpu_max: Duration,
    cpu_started: Duration,
    wall_max: Duration,
    wall_started: Duration,
    passed: Option<String>,
}

impl Deadline {
    /// Starts now, on the calling thread.
    pub(super) fn start(clock: Arc<dyn Clock>, cpu_max: Duration) -> Self {
        let wall_started = clock.monotonic();
        Self {
            clock,
            cpu_max,
            cpu_started: thread_cpu_time(),
            wall_max: cpu_max * WALL_FACTOR,
            wall_started,
            passed: None,
        }
    }

    /// CPU time used since the start; only meaningful on the thread that started it.
    pub(super) fn cpu_used(&self) -> Duration {
        thread_cpu_time().saturating_sub(self.cpu_started)
    }

    /// Time on the wall clock since the start.
    pub(super) fn wall_used(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.wall_started)
    }

    /// Time on the wall clock that the call may take in all.
    pub(super) fn wall_max(&self) -> Duration {
        self.wall_max
    }

    /// Time on the wall clock that is left: the longest a plugin may wait for anything.
    pub(super) fn wall_left(&self) -> Duration {
        self.wall_max.saturating_sub(self.wall_used())
    }

    /// Whether the call may go on.
    pub(super) fn check(&mut self) -> Result<(), DeadlinePassed> {
        let cpu_used = self.cpu_used();
        if cpu_used >= self.cpu_max {
            self.passed = Some(format!(
                "used {} ms of CPU time, its deadline is {} ms",
                cpu_used.as_millis(),
                self.cpu_max.as_millis()
            ));
            return Err(DeadlinePassed);
        }
        if self.wall_left().is_zero() {
            return Err(self.pass_on_the_wall());
        }
        Ok(())
    }

    /// Ends the call because it lasted too long, however little CPU time it used.
    pub(super) fn pass_on_the_wall(&mut self) -> DeadlinePassed {
        self.passed = Some(format!(
            "lasted longer than {} ms, {WALL_FACTOR} times its deadline of {} ms of CPU time",
            self.wall_max.as_millis(),
            self.cpu_max.as_millis()
        ));
        DeadlinePassed
    }

    /// How the deadline was passed, if it was.
    pub(super) fn passed(&self) -> Option<&str> {
        self.passed.as_deref()
    }
}

/// Bytes of all memories and tables of one call, summed: the limit is the plugin's, not each memory's.
#[derive(Debug)]
pub(super) struct MemoryMeter {
    bytes_max: usize,
    bytes_used: usize,
    bytes_peak: usize,
    /// The growth that was allowed last, taken back if the allocation then fails.
    bytes_last_grown: usize,
    refused: Option<String>,
}

impl MemoryMeter {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes_used: 0, bytes_peak: 0, bytes_last_grown: 0, refused: None }
    }

    /// The most that was in use at once.
    pub(super) fn bytes_peak(&self) -> usize {
        self.bytes_peak
    }

    /// What is in use now.
    pub(super) fn bytes_used(&self) -> usize {
        self.bytes_used
    }

    /// The same memories at the beginning of another call.
    pub(super) fn next_call(self) -> Self {
        Self { bytes_used: self.bytes_used, bytes_peak: self.bytes_used, ..Self::new(self.bytes_max) }
    }

    /// The last growth that was refused: a guest told "no" mostly traps next, and that trap is then the limit's.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    fn grow(&mut self, bytes: usize) -> bool {
        let wanted = self.bytes_used.saturating_add(bytes);
        if wanted > self.bytes_max {
            self.refused = Some(format!(
                "asked for {wanted} bytes of memory, its limit is {}, the lesser of what its sidecar's [limits] memory asks for and what [plugins.limits] or [plugin.limits] in the settings grants",
                self.bytes_max
            ));
            return false;
        }
        self.bytes_used = wanted;
        self.bytes_peak = self.bytes_peak.max(wanted);
        self.bytes_last_grown = bytes;
        true
    }

    fn take_back(&mut self) {
        self.bytes_used = self.bytes_used.saturating_sub(std::mem::take(&mut self.bytes_last_grown));
    }
}

impl ResourceLimiter for MemoryMeter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if let Some(maximum) = maximum.filter(|maximum| desired > *maximum) {
            self.refused = Some(format!("asked for a memory of {desired} bytes, which can't exceed {maximum}"));
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        self.refused = Some(format!("was within its memory limit, but the host could not provide it: {error:#}"));
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if let Some(maximum) = maximum.filter(|maximum| desired > *maximum) {
            self.refused = Some(format!("asked for a table of {desired} elements, which can't exceed {maximum}"));
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(size_of::<usize>())))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }
}

/// Lines and bytes a plugin may still log for the present event.
#[derive(Debug)]
pub(super) struct LogBudget {
    lines_left: u32,
    bytes_left: usize,
    lines_dropped: u64,
    line_cut: bool,
}

impl LogBudget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { lines_left: LOG_LINES_MAX, bytes_left: bytes, lines_dropped: 0, line_cut: false }
    }

    /// Whether another line may be logged at all; counts it as dropped where not.
    pub(super) fn admit(&mut self) -> bool {
        let admitted = self.lines_left > 0 && self.bytes_left > 0;
        if !admitted {
            self.lines_dropped += 1;
        }
        admitted
    }

    /// The part of `line` there is room for.
    pub(super) fn cut<'a>(&self, line: &'a str) -> &'a str {
        &line[..line.floor_char_boundary(self.bytes_left)]
    }

    /// Pays for a line of `bytes`, of which `bytes_logged` fitted.
    pub(super) fn spend(&mut self, bytes: usize, bytes_logged: usize) {
        self.lines_left = self.lines_left.saturating_sub(1);
        // A cut line ends the budget, even where a character did not fit into its last bytes.
        self.bytes_left = if bytes_logged < bytes { 0 } else { self.bytes_left - bytes_logged };
        self.line_cut |= bytes_logged < bytes;
    }

    /// Lines that were not logged.
    pub(super) fn lines_dropped(&self) -> u64 {
        self.lines_dropped
    }

    /// Whether anything was kept back.
    pub(super) fn overspent(&self) -> bool {
        self.lines_dropped > 0 || self.line_cut
    }
}

/// `text` as it may be kept and shown: at most [`DETAIL_BYTES_MAX`], and nothing in it that would move a terminal's cursor.
pub(super) fn detail(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(DETAIL_BYTES_MAX)];
    let mut kept: String = cut
        .chars()
        .map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if cut.len() < text.len() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[test]
    fn memory_is_summed_over_memories_and_tables() {
        let mut meter = MemoryMeter::new(100_000);
        assert!(meter.memory_growing(0, 40_000, None).unwrap());
        assert!(meter.memory_growing(0, 40_000, None).unwrap());
        assert!(meter.table_growing(0, 1_000, None).unwrap(), "1000 elements are 8000 bytes");
        assert!(!meter.memory_growing(40_000, 60_000, None).unwrap(), "would be 108000 in all");
        assert!(meter.refused().unwrap().contains("108000"), "{:?}", meter.refused());
        assert_eq!(meter.bytes_peak(), 88_000);
    }

    #[test]
    fn a_growth_that_then_fails_is_taken_back() {
        let mut meter = MemoryMeter::new(100);
        assert!(meter.memory_growing(0, 90, None).unwrap());
        meter.memory_grow_failed(wasmtime::format_err!("no pages")).unwrap();
        assert!(meter.refused().unwrap().contains("no pages"));
        assert!(meter.memory_growing(0, 90, None).unwrap(), "the failed growth must not count");
    }

    #[test]
    fn a_memory_s_own_maximum_is_a_refusal() {
        let mut meter = MemoryMeter::new(1_000);
        assert!(!meter.memory_growing(0, 200, Some(100)).unwrap());
        assert!(meter.refused().unwrap().contains("can't exceed 100"));
    }

    #[test]
    fn a_table_s_own_maximum_is_a_refusal() {
        let mut meter = MemoryMeter::new(1_000_000);
        assert!(!meter.table_growing(0, 200, Some(100)).unwrap());
        assert!(meter.refused().unwrap().contains("a table of 200 elements, which can't exceed 100"));
    }

    #[test]
    fn the_wall_cap_ends_a_call_that_uses_no_cpu() {
        let clock = ManualClock::starting_at(Timestamp(0));
        let mut deadline = Deadline::start(clock.clone(), Duration::from_secs(5));
        assert!(deadline.check().is_ok());
        clock.advance(Duration::from_secs(49));
        assert!(deadline.check().is_ok());
        assert_eq!(deadline.wall_left(), Duration::from_secs(1));
        clock.advance(Duration::from_secs(1));
        assert!(deadline.check().is_err());
        assert!(deadline.passed().unwrap().contains("50000 ms"), "{:?}", deadline.passed());
    }

    #[test]
    fn a_line_that_does_not_fit_is_cut_and_ends_the_budget() {
        const BYTES: usize = 1 << 10;
        let mut budget = LogBudget::new(BYTES);
        let line = "é".repeat(BYTES);
        assert!(budget.admit());
        let logged = budget.cut(&line).len();
        assert_eq!(logged, BYTES);
        budget.spend(line.len(), logged);
        assert!(!budget.admit());
        assert!(budget.overspent());
        assert_eq!(budget.lines_dropped(), 1);
    }

    #[test]
    fn detail_is_bounded_and_harmless() {
        assert_eq!(detail("a\u{1b}[31m\nb"), "a\u{fffd}[31m\nb");
        let long = detail(&"é".repeat(DETAIL_BYTES_MAX));
        assert!(long.len() <= DETAIL_BYTES_MAX + '…'.len_utf8() && long.ends_with('…'));
    }
}
