//! The plugin's memory: a piece that is there from its start, then what std's allocator gets from the host.
//!
//! A plugin begins each event in fresh memory. To let it grow, and to take that back afterwards, costs the host as much as
//! calling a small plugin does; most events fit into the piece that needs neither. In an instance that is reused, what a plugin
//! keeps for good keeps the piece from beginning anew: once it is used up, std's allocator does the rest.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;

/// Bytes of the first piece: what an event of some tens of kilobytes needs. It is not in the plugin's file, and what is never touched costs nothing.
#[cfg(target_family = "wasm")]
const PIECE_BYTES: usize = 256 * 1024;

#[cfg(target_family = "wasm")]
#[global_allocator]
static MEMORY: Memory<PIECE_BYTES> = Memory::new();

/// Hands out the piece from its beginning to its end, and begins anew once everything was given back. What doesn't fit
/// is std's.
#[repr(C, align(16))]
struct Memory<const BYTES: usize> {
    piece: UnsafeCell<MaybeUninit<[u8; BYTES]>>,
    /// Where the free part begins.
    next: Cell<usize>,
    /// Allocations in the piece.
    live: Cell<usize>,
}

// SAFETY: a plugin has one thread. Native builds have several, and there this is in the tests below only, each with its own.
unsafe impl<const BYTES: usize> Sync for Memory<BYTES> {}

impl<const BYTES: usize> Memory<BYTES> {
    const fn new() -> Self {
        Self { piece: UnsafeCell::new(MaybeUninit::uninit()), next: Cell::new(0), live: Cell::new(0) }
    }

    /// The place of `at` in the piece; `None` where it is std's.
    fn offset(&self, at: *mut u8) -> Option<usize> {
        (at as usize).checked_sub(self.piece.get() as usize).filter(|offset| *offset < BYTES)
    }

    /// A place in the free part, with where it ends.
    fn fit(&self, layout: Layout) -> Option<(usize, usize)> {
        let free = self.piece.get() as usize + self.next.get();
        let start = self.next.get() + (free.next_multiple_of(layout.align()) - free);
        let end = start.checked_add(layout.size()).filter(|end| *end <= BYTES)?;
        Some((start, end))
    }
}

// SAFETY: places in the piece are aligned as asked, within its bounds, and above `next` until they are handed out; so two
// that are live never overlap. `next` falls only over a place that was given back, or when none is live. Everything else
// is std's allocator's, which is asked for exactly what it handed out.
unsafe impl<const BYTES: usize> GlobalAlloc for Memory<BYTES> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((start, end)) = self.fit(layout) else {
            // SAFETY: the caller's own promise.
            return unsafe { System.alloc(layout) };
        };
        self.next.set(end);
        self.live.set(self.live.get() + 1);
        // SAFETY: `start` is within the piece.
        unsafe { self.piece.get().cast::<u8>().add(start) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let Some(start) = self.offset(at) else {
            // SAFETY: it is not in the piece, so std's allocator handed it out; on wasm32-wasip2 perhaps wasi-libc's `malloc`, which
            // is std's there.
            return unsafe { System.dealloc(at, layout) };
        };
        self.live.set(self.live.get() - 1);
        if self.live.get() == 0 {
            self.next.set(0);
        } else if start + layout.size() == self.next.get() {
            self.next.set(start);
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(start) = self.offset(at) else {
            // SAFETY: as above.
            return unsafe { System.realloc(at, layout, new_size) };
        };
        let end = start.checked_add(new_size).filter(|end| *end <= BYTES);
        if let (true, Some(end)) = (start + layout.size() == self.next.get(), end) {
            self.next.set(end);
            return at;
        }
        if new_size <= layout.size() {
            return at;
        }
        // SAFETY: the caller promises that `new_size` fits the alignment; the two places don't overlap, since both are live.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(at, layout.size());
                self.dealloc(at, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("a layout")
    }

    /// Fills `size` bytes and gives where they are.
    fn filled(memory: &Memory<1024>, size: usize, align: usize, with: u8) -> *mut u8 {
        // SAFETY: the size is not zero, and what comes back is that large.
        unsafe {
            let at = memory.alloc(layout(size, align));
            assert!(!at.is_null());
            assert_eq!(at as usize % align, 0);
            at.write_bytes(with, size);
            at
        }
    }

    #[test]
    fn what_is_live_is_apart_and_aligned() {
        let memory = Memory::<1024>::new();
        let places: Vec<_> = (1..=20usize).map(|n| (filled(&memory, n * 7, 1 << (n % 6), n as u8), n)).collect();
        for (at, n) in places {
            // SAFETY: so many bytes were written there.
            assert!(unsafe { std::slice::from_raw_parts(at, n * 7) }.iter().all(|byte| *byte == n as u8), "{n}");
            // SAFETY: it was handed out with this layout.
            unsafe { memory.dealloc(at, layout(n * 7, 1 << (n % 6))) };
        }
        assert_eq!((memory.live.get(), memory.next.get()), (0, 0));
    }

    #[test]
    fn the_last_one_grows_where_it_is_and_others_move_with_their_content() {
        let memory = Memory::<1024>::new();
        let (first, last) = (filled(&memory, 16, 8, 1), filled(&memory, 16, 8, 2));
        // SAFETY: both were handed out with this layout.
        unsafe {
            assert_eq!(memory.realloc(last, layout(16, 8), 64), last);
            let moved = memory.realloc(first, layout(16, 8), 32);
            assert_ne!(moved, first);
            assert!(std::slice::from_raw_parts(moved, 16).iter().all(|byte| *byte == 1));
            assert!(std::slice::from_raw_parts(last, 16).iter().all(|byte| *byte == 2));
            memory.dealloc(moved, layout(32, 8));
            assert_eq!(memory.next.get(), 16 + 64, "given back, the last one leaves its place");
            memory.dealloc(last, layout(64, 8));
        }
        assert_eq!((memory.live.get(), memory.next.get()), (0, 0));
    }

    #[test]
    fn what_does_not_fit_is_stds() {
        let memory = Memory::<1024>::new();
        let (inside, outside) = (filled(&memory, 1000, 1, 1), filled(&memory, 100, 1, 2));
        assert!(memory.offset(inside).is_some() && memory.offset(outside).is_none());
        // SAFETY: both were handed out with these layouts.
        unsafe {
            let grown = memory.realloc(inside, layout(1000, 1), 4000);
            assert!(memory.offset(grown).is_none());
            assert!(std::slice::from_raw_parts(grown, 1000).iter().all(|byte| *byte == 1));
            memory.dealloc(grown, layout(4000, 1));
            memory.dealloc(outside, layout(100, 1));
        }
        assert_eq!((memory.live.get(), memory.next.get()), (0, 0));
    }
}
