//! Returns a failure whose text is not UTF-8.

wit_bindgen::generate!({ path: "../../../../wit", world: "subscriber", generate_all });

/// `result<list<webhook>, failure>` as the canonical ABI lays it out.
#[repr(C)]
struct Returned {
    is_failure: u8,
    words: [usize; 3],
}

/// What no UTF-8 text contains.
static TEXT: [u8; 4] = [0xff, 0xfe, 0xfd, 0xfc];

/// The handler's export, written by hand.
#[unsafe(export_name = "wirehook:plugin/handler@0.1.0#on-event")]
pub extern "C" fn on_event(_event: *const u8) -> *const u8 {
    let failure = Returned { is_failure: 1, words: [1, TEXT.as_ptr().addr(), TEXT.len()] };
    // The host reads it after the call; nobody frees it, and the sandbox does not outlive the event.
    Box::into_raw(Box::new(failure)).cast_const().cast()
}
