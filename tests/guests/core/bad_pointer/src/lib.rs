//! Returns a pointer outside its memory as the result.

wit_bindgen::generate!({ path: "../../../../wit", world: "subscriber", generate_all });

/// Aligned as the result must be, and far past the end of the memory.
const OUTSIDE: usize = 0xffff_fff0;

/// The handler's export, written by hand.
#[unsafe(export_name = "wirehook:plugin/handler@0.1.0#on-event")]
pub extern "C" fn on_event(_event: *const u8) -> *const u8 {
    OUTSIDE as *const u8
}
