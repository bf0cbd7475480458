//! Who may be inside the sandbox at once, and the tick that lets a call be interrupted.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a running call is asked whether it may go on. A deadline is exact to one tick.
pub(super) const TICK: Duration = Duration::from_millis(5);
/// Ticks without a call before the ticker parks: it must not be woken for every event of a slow stream.
const IDLE_TICKS_BEFORE_PARK: u32 = 100;

/// Permits for the slots of the engine's pool, and the ticker's state.
///
/// The pool answers exhaustion with an error; a permit makes it a wait.
pub(super) struct Gate {
    slots: usize,
    state: Mutex<State>,
    /// A slot became free.
    room: Condvar,
    /// A call entered while the ticker was parked, or the gate closed.
    work: Condvar,
}

#[derive(Default)]
struct State {
    inside: usize,
    waiting: usize,
    entered_total: u64,
    ticker_parked: bool,
    closed: bool,
}

/// A slot of the pool, given back when dropped.
pub(super) struct Permit<'a>(&'a Gate);

impl Gate {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots, state: Mutex::default(), room: Condvar::new(), work: Condvar::new() }
    }

    /// Waits for a free slot.
    pub(super) fn enter(&self) -> Permit<'_> {
        let mut state = self.lock();
        while state.inside >= self.slots {
            state.waiting += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.inside += 1;
        state.entered_total += 1;
        if std::mem::take(&mut state.ticker_parked) {
            self.work.notify_one();
        }
        Permit(self)
    }

    /// Calls `tick` every [`TICK`] while a call is inside; parked while none is; returns once the gate is closed.
    pub(super) fn tick_until_closed(&self, tick: impl Fn()) {
        let mut idle_ticks = 0;
        let mut entered_seen = 0;
        let mut state = self.lock();
        while !state.closed {
            if state.inside == 0 && state.entered_total == entered_seen {
                idle_ticks += 1;
            } else {
                idle_ticks = 0;
                entered_seen = state.entered_total;
            }
            if idle_ticks >= IDLE_TICKS_BEFORE_PARK {
                state.ticker_parked = true;
                let parked = |state: &mut State| state.ticker_parked && !state.closed;
                state = self.work.wait_while(state, parked).unwrap_or_else(PoisonError::into_inner);
                idle_ticks = 0;
            }
            state = self.work.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
            if state.inside > 0 {
                tick();
            }
        }
    }

    /// Ends the ticker.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn is_parked(&self) -> bool {
        self.lock().ticker_parked
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.inside -= 1;
        if state.waiting > 0 {
            self.0.room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_full_gate_makes_the_next_call_wait() {
        let gate = Arc::new(Gate::new(1));
        let (sender, entered) = mpsc::channel();
        let first = gate.enter();
        let second = thread::spawn({
            let gate = gate.clone();
            move || {
                let _permit = gate.enter();
                sender.send(()).unwrap();
            }
        });
        while gate.lock().waiting == 0 {
            thread::yield_now();
        }
        assert!(entered.try_recv().is_err(), "the only slot is taken");
        drop(first);
        entered.recv().unwrap();
        second.join().unwrap();
    }

    #[test]
    fn the_ticker_parks_when_idle_and_wakes_for_a_call() {
        let gate = Arc::new(Gate::new(1));
        let (sender, ticks) = mpsc::channel();
        let ticker = thread::spawn({
            let gate = gate.clone();
            move || gate.tick_until_closed(|| sender.send(()).unwrap())
        });
        while !gate.is_parked() {
            thread::yield_now();
        }
        assert!(ticks.try_recv().is_err(), "nothing was inside, so nothing may tick");
        let permit = gate.enter();
        ticks.recv().unwrap();
        drop(permit);
        gate.close();
        ticker.join().unwrap();
    }
}
