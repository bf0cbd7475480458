//! How much address space the pool of sandboxes reserves, where the process may have only so much (`ulimit -v`).
//!
//! By default each memory has 4 GiB of it, so that 32 bits of index need no check, and each worker has room for several
//! kept instances: hundreds of GiB, which cost nothing but numbers. Where a limit stands, memories are as large as a
//! plugin may have them, indices are checked, and fewer instances are kept.

use super::limits::MEMORY_BYTES_MAX;

/// A memory whose indices need no check, in bytes.
const MEMORY_WHOLE: u64 = 4 << 30;
/// What stands behind each memory, in bytes, so that small offsets need no check: the runtime's default.
const MEMORY_GUARD: u64 = 32 << 20;
/// From this limit on, memories are whole. It depends on nothing else, as the process that compiles must decide alike.
const WHOLE_FROM: u64 = 512 << 30;
/// The part of the limit that the pool may have: the rest is for stacks, heaps, compiled code and files.
const POOL_SHARE: u64 = 2;

/// What a pool of sandboxes has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reservation {
    /// Instances kept for later events, besides one for each worker.
    pub(super) kept: u32,
    /// Bytes of address space for each memory, where it is not the runtime's default.
    pub(super) memory: Option<u64>,
}

/// The limit on address space is too low.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLittle {
    /// The limit, in bytes.
    pub(super) allowed: u64,
    /// What these workers need, in bytes.
    pub(super) needed: u64,
}

/// Bytes of address space for each memory, where not the runtime's default, with `allowed` bytes over all.
pub(super) fn memory(allowed: Option<u64>) -> Option<u64> {
    allowed.filter(|allowed| *allowed < WHOLE_FROM).map(|_| MEMORY_BYTES_MAX as u64)
}

/// What to reserve for `workers` that would keep `kept_max` instances, each with `memories` memories and `others` bytes of
/// tables. As many are kept as there is room for.
pub(super) fn plan(
    allowed: Option<u64>,
    workers: u32,
    kept_max: u32,
    (memories, others): (u32, u64),
) -> Result<Reservation, TooLittle> {
    let memory = memory(allowed);
    let Some(allowed) = allowed else { return Ok(Reservation { kept: kept_max, memory }) };
    let slot = (memory.unwrap_or(MEMORY_WHOLE) + MEMORY_GUARD) * u64::from(memories) + others;
    let slots = allowed / POOL_SHARE / slot;
    match slots.checked_sub(u64::from(workers)) {
        Some(kept) => Ok(Reservation { kept: u32::try_from(kept).unwrap_or(kept_max).min(kept_max), memory }),
        None => Err(TooLittle { allowed, needed: slot * u64::from(workers) * POOL_SHARE }),
    }
}

/// The bytes of address space that this process may have; `None` where nothing limits them.
pub(super) fn allowed() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid and writable for the whole call, which keeps no pointer to it.
    let found = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
    (found && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn check(allowed: Option<u64>, workers: u32, expected: Result<(u32, bool), u64>) {
        let planned = plan(allowed, workers, workers * 8, (4, 32 << 20));
        let found = planned.map(|plan| (plan.kept, plan.memory.is_none())).map_err(|error| error.needed / GIB);
        assert_eq!(found, expected, "{allowed:?} bytes, {workers} workers");
    }

    #[test]
    fn fewer_are_kept_where_there_is_less_room() {
        check(None, 2, Ok((16, true)));
        check(Some(1024 * GIB), 2, Ok((16, true)));
        check(Some(600 * GIB), 16, Ok((2, true)));
        check(Some(64 * GIB), 2, Ok((16, false)));
        check(Some(8 * GIB), 2, Ok((1, false)));
        check(Some(5 * GIB), 2, Ok((0, false)));
        check(Some(4 * GIB), 2, Err(4));
        check(Some(0), 1, Err(2));
        check(Some(600 * GIB), 1000, Err(32_312));
    }

    #[test]
    fn whoever_compiles_decides_alike() {
        for allowed in [None, Some(GIB), Some(511 * GIB), Some(512 * GIB)] {
            if let Ok(planned) = plan(allowed, 1, 0, (4, 0)) {
                assert_eq!(planned.memory, memory(allowed));
            }
        }
    }
}
