//! C.

use anyhow::Result;

use crate::check;

#[tokio::test]
async fn the_example_turns_an_event_into_a_verified_webhook() -> Result<()> {
    check::example("orders-c").await
}

#[tokio::test]
async fn a_new_project_tests_builds_and_delivers() -> Result<()> {
    check::new_project("c", &[]).await
}
