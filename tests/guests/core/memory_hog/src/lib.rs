//! Takes memory until it is refused, then traps.

use std::hint::black_box;

use wirehook_sdk::{Event, Failure, Webhook};

const PIECE_BYTES: usize = 1 << 20;

fn on_event(_event: Event) -> Result<Vec<Webhook>, Failure> {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut piece = Vec::new();
        if piece.try_reserve_exact(PIECE_BYTES).is_err() {
            panic!("no more memory after {} MiB", held.len());
        }
        // Memory that is never written costs the host nothing.
        piece.resize(PIECE_BYTES, 1);
        held.push(black_box(piece));
    }
}

wirehook_sdk::export!(on_event);
