//! One budget of bytes for the process: whatever is on its way through memory is counted here, by whom it is held for.
//!
//! Each [`Kind`] of content has a part that is its own, an eighth of the budget; what nobody has as their own is for
//! whoever comes. Within a kind each [`Account`] (a source, a plugin, an endpoint) that holds something may take at most
//! half of what is left beyond what it holds already. So of `n` accounts that want all they can get, each holds about
//! `1/(n + 1)` of what there is, and as much stays free for the next: a flood slows others by that factor and no more.
//! An account that holds nothing may take whatever is free, so that one large piece makes progress alone; where nothing
//! of a kind is held, one piece is let in whatever there is. So the budget is exceeded by one piece for each kind at most,
//! and by what a source had received before it was told to wait: one batch for each.
//!
//! Nobody waits here for a permit. What is taken is taken at once or not at all; who gets nothing leaves its work where it
//! is (in the store, at the bus, with the HTTP client) and asks again when something was given back. The way of an event
//! needs room in this order: intake, runs, results, deliveries. Each kind drains by the disk or an endpoint alone, never
//! by room of another kind: results are committed and attempts recorded whatever room there is. Only a worker waits for
//! room while it is to call a plugin, and results drain by commits. So no two can wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

pub mod memory;

/// What content is on its way to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Messages that a source has received and the store has not accepted yet.
    Intake,
    /// Events whose runs wait or are under way.
    Runs,
    /// What plugins returned, until it is durable.
    Results,
    /// Webhooks that wait for an attempt, or whose attempt is not recorded yet.
    Deliveries,
}

impl Kind {
    /// All of them, in the order of the path.
    pub const ALL: [Self; 4] = [Self::Intake, Self::Runs, Self::Results, Self::Deliveries];

    /// Its name in metrics and in `wirehook status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Runs => "runs",
            Self::Results => "results",
            Self::Deliveries => "deliveries",
        }
    }

    fn bit(self) -> usize {
        1 << self as usize
    }
}

/// Each kind has this part of the budget for itself: an eighth.
pub const OWN_PARTS: usize = 8;

/// A piece of at most so many bytes is small: a part of the budget, see [`SMALL_PARTS`], is for such alone, so that they
/// need not wait behind large ones.
pub const SMALL_BYTES_MAX: usize = 64 * 1024;

/// What large pieces leave free for small ones: this part of the budget, for each kind.
pub const SMALL_PARTS: usize = 32;

/// Pure: the budget as one account meets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct View {
    bytes_max: usize,
    used: [usize; Kind::ALL.len()],
    kind: Kind,
    held: usize,
}

impl View {
    /// What its kind may still take: what is free, but for what the others have as their own.
    fn room(&self) -> usize {
        let own = self.bytes_max / OWN_PARTS;
        let others = Kind::ALL.iter().filter(|kind| **kind != self.kind);
        let kept: usize = others.map(|kind| own.saturating_sub(self.used[*kind as usize])).sum();
        self.bytes_max.saturating_sub(self.used.iter().sum::<usize>()).saturating_sub(kept)
    }

    /// What the account may take at most, for pieces of which the first has `least` bytes.
    fn allowance(&self, least: usize) -> usize {
        let kept = if least > SMALL_BYTES_MAX { self.bytes_max / SMALL_PARTS } else { 0 };
        let room = self.room().saturating_sub(kept);
        match self.held {
            0 => room,
            held => room.saturating_sub(held) / 2,
        }
    }
}

/// The bytes that the process may hold of what passes through it. See the [module](self).
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    used: AtomicUsize,
    parts: [Part; Kind::ALL.len()],
    /// The kinds that want to be told when something was given back, as bits.
    wanting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Part {
    used: AtomicUsize,
    waits: AtomicU64,
    refusals: AtomicU64,
    /// An account that holds nothing was denied: what becomes free is for it, and nobody else's offers are taken.
    starved: AtomicBool,
    freed: Notify,
}

/// What is used of a budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Bytes in memory.
    pub used: usize,
    /// How often somebody began to wait for room.
    pub waits: u64,
    /// How often somebody was sent away who can't wait.
    pub refusals: u64,
}

impl Budget {
    /// A budget of `bytes_max` bytes, none of it used.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        let (used, wanting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { bytes_max, used, parts: Default::default(), wanting })
    }

    /// One that nothing fills: for a part of the path by itself.
    pub fn unbounded() -> Arc<Self> {
        // What is left over must not overflow when a piece is added.
        Self::new(usize::MAX / 4)
    }

    /// The bytes it allows.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// An account of somebody who holds nothing yet.
    pub fn account(self: &Arc<Self>, kind: Kind) -> Arc<Account> {
        let (held, waits) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Account { budget: Arc::clone(self), kind, held, waits })
    }

    /// What is used for `kind`.
    pub fn usage(&self, kind: Kind) -> Usage {
        let part = &self.parts[kind as usize];
        Usage {
            used: part.used.load(Ordering::Relaxed),
            waits: part.waits.load(Ordering::Relaxed),
            refusals: part.refusals.load(Ordering::Relaxed),
        }
    }

    /// What `kind` may take at present.
    pub fn room(&self, kind: Kind) -> usize {
        let used = Kind::ALL.map(|kind| self.parts[kind as usize].used.load(Ordering::SeqCst));
        View { bytes_max: self.bytes_max, used, kind, held: 0 }.room()
    }

    /// Told once something was given back after somebody of `kind` was denied.
    pub fn freed(&self, kind: Kind) -> &Notify {
        &self.parts[kind as usize].freed
    }

    /// Says whether an account of `kind` that holds nothing is waiting: decided anew by whoever shares out in turn.
    pub fn set_starved(&self, kind: Kind, starved: bool) {
        self.parts[kind as usize].starved.store(starved, Ordering::SeqCst);
    }

    fn tell_freed(&self) {
        // Taken as a whole: who is denied from here on sees what was given back, or is told the next time.
        let wanting = self.wanting.swap(0, Ordering::SeqCst);
        for kind in Kind::ALL.into_iter().filter(|kind| wanting & kind.bit() != 0) {
            self.freed(kind).notify_waiters();
            self.freed(kind).notify_one();
        }
    }
}

/// What is held for one source, plugin or endpoint.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    kind: Kind,
    held: AtomicUsize,
    /// It was denied and has got nothing since.
    waits: AtomicBool,
}

impl Account {
    /// The bytes it holds.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// The budget that it draws from.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Takes `bytes` for a piece that came by itself, where there is room and nobody of its kind starves.
    pub fn try_take(&self, bytes: usize) -> bool {
        let may_take = !self.part().starved.load(Ordering::SeqCst) || (bytes <= SMALL_BYTES_MAX && self.held() == 0);
        if may_take && self.take_between(bytes, bytes).is_some() {
            self.served();
            return true;
        }
        self.denied()
    }

    /// Takes what it may, `least` to `most`; for whoever shares out in turn. Returns how much.
    pub fn reserve(&self, least: usize, most: usize) -> Option<usize> {
        let taken = self.take_between(least, most).or_else(|| {
            self.denied();
            // Something may have been given back before that was known.
            self.take_between(least, most)
        });
        if taken.is_some() {
            self.served();
        }
        taken
    }

    /// Counts what is in memory whatever room there is: it came before anybody could be asked, or takes the place of what
    /// has just left.
    pub fn take_anyway(&self, bytes: usize) {
        self.budget.used.fetch_add(bytes, Ordering::SeqCst);
        self.part().used.fetch_add(bytes, Ordering::SeqCst);
        self.held.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Gives back what left the memory.
    pub fn give(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        for counter in [&self.held, &self.part().used, &self.budget.used] {
            // A count that is wrong must not keep everybody out for ever.
            if counter.fetch_sub(bytes, Ordering::SeqCst) < bytes {
                counter.store(0, Ordering::SeqCst);
            }
        }
        if self.budget.wanting.load(Ordering::SeqCst) != 0 {
            self.budget.tell_freed();
        }
    }

    /// As [`Self::give`] and [`Self::take_anyway`]: `before` bytes turned out to be `after`.
    pub fn true_up(&self, before: usize, after: usize) {
        if after > before {
            self.take_anyway(after - before);
        } else {
            self.give(before - after);
        }
    }

    /// Counts that somebody was sent away.
    pub fn refuse(&self) {
        self.part().refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it may take `bytes` more now. One that may not is counted among those that wait.
    pub fn has_room(&self, bytes: usize) -> bool {
        if self.part().used.load(Ordering::SeqCst) == 0 || bytes <= self.view().allowance(bytes) {
            self.served();
            return true;
        }
        self.denied()
    }

    fn part(&self) -> &Part {
        &self.budget.parts[self.kind as usize]
    }

    fn view(&self) -> View {
        let used = Kind::ALL.map(|kind| self.budget.parts[kind as usize].used.load(Ordering::SeqCst));
        View { bytes_max: self.budget.bytes_max, used, kind: self.kind, held: self.held() }
    }

    fn take_between(&self, least: usize, most: usize) -> Option<usize> {
        let allowance = self.view().allowance(least);
        if allowance < least {
            // The first of its kind is let in, whatever its size.
            let first = self.part().used.compare_exchange(0, least, Ordering::SeqCst, Ordering::SeqCst);
            first.ok()?;
            self.budget.used.fetch_add(least, Ordering::SeqCst);
            self.held.fetch_add(least, Ordering::SeqCst);
            return Some(least);
        }
        let bytes = allowance.min(most);
        // Others may have taken meanwhile: together they stay within the budget.
        let taken = self.budget.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
            used.checked_add(bytes).filter(|used| *used <= self.budget.bytes_max)
        });
        taken.ok()?;
        self.part().used.fetch_add(bytes, Ordering::SeqCst);
        self.held.fetch_add(bytes, Ordering::SeqCst);
        Some(bytes)
    }

    fn served(&self) {
        if self.waits.load(Ordering::Relaxed) {
            self.waits.store(false, Ordering::Relaxed);
        }
    }

    /// Notes that it wants to be told of room. Always `false`.
    fn denied(&self) -> bool {
        self.budget.wanting.fetch_or(self.kind.bit(), Ordering::SeqCst);
        if !self.waits.swap(true, Ordering::Relaxed) {
            self.part().waits.fetch_add(1, Ordering::Relaxed);
        }
        false
    }
}

/// Bytes that are given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    account: Arc<Account>,
    bytes: usize,
}

impl Permit {
    /// `bytes` that were taken from `account`.
    pub fn of_taken(account: Arc<Account>, bytes: usize) -> Self {
        Self { account, bytes }
    }

    /// It turned out to be `bytes`.
    pub fn true_up(&mut self, bytes: usize) {
        self.account.true_up(self.bytes, bytes);
        self.bytes = bytes;
    }

    /// Widens it to `bytes` where there is room.
    pub fn widen(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 && !self.account.try_take(more) {
            return false;
        }
        self.bytes += more;
        true
    }

    /// Whose it is.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.account.give(self.bytes);
    }
}

#[cfg(test)]
mod tests;
