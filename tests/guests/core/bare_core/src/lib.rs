//! A core module without a component-type section: nothing says which world it is for.

/// Something to export.
#[unsafe(no_mangle)]
pub extern "C" fn on_event() {}
