//! The long tests, which `cargo xtask test --full` runs and every other run leaves out.

/// What xtask sets for them.
const FULL_VARIABLE: &str = "WIREHOOK_TEST_FULL";

/// Whether this is a run of the long tests.
pub fn is_full() -> bool {
    std::env::var_os(FULL_VARIABLE).is_some_and(|value| value == "1")
}

/// Whether a test of `what` is to run, which only a run of the long tests does. Where it is not, that is said; xtask
/// says so of all of them.
pub fn wanted(what: &str) -> bool {
    if !is_full() {
        eprintln!("left out: {what} (`cargo xtask test --full` runs it)");
    }
    is_full()
}
