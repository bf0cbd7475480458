//! Rust.

use anyhow::Result;

use crate::check;

#[tokio::test]
async fn the_example_turns_an_event_into_a_verified_webhook() -> Result<()> {
    check::example("orders").await
}

#[tokio::test]
async fn a_new_project_tests_builds_and_delivers() -> Result<()> {
    // What the example's build has compiled is used again.
    let target = wirehook_tests::artifacts::target_folder()?.join("guest-builds");
    check::new_project("rust", &[("CARGO_TARGET_DIR", target.into())]).await
}
