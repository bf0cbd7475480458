//! The long tests, which `cargo xtask test --full` runs and every other run leaves out.

/// What xtask sets for them.
const FULL_VARIABLE: &str = "WIREHOOK_TEST_FULL";

/// Whether the long tests are wanted. Where they are not, `what` is said to be left out; xtask says so of all of them.
pub fn wanted(what: &str) -> bool {
    let wanted = std::env::var_os(FULL_VARIABLE).is_some_and(|value| value == "1");
    if !wanted {
        eprintln!("left out: {what} (`cargo xtask test --full` runs it)");
    }
    wanted
}
