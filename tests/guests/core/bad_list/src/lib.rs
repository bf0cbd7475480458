//! Returns a list that claims more elements than the whole memory could hold.

wit_bindgen::generate!({ path: "../../../../wit", world: "subscriber", generate_all });

/// `result<list<webhook>, failure>` as the canonical ABI lays it out.
#[repr(C)]
struct Returned {
    is_failure: u8,
    words: [usize; 3],
}

static RETURNED: Returned = Returned { is_failure: 0, words: [8, 0x0fff_ffff, 0] };

/// The handler's export, written by hand.
#[unsafe(export_name = "wirehook:plugin/handler@0.1.0#on-event")]
pub extern "C" fn on_event(_event: *const u8) -> *const u8 {
    (&raw const RETURNED).cast()
}
