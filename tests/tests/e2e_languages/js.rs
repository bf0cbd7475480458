//! JavaScript and TypeScript.

use anyhow::Result;

use crate::check;

#[tokio::test]
async fn the_example_in_javascript_turns_an_event_into_a_verified_webhook() -> Result<()> {
    check::example("orders-js").await
}

#[tokio::test]
async fn the_example_in_typescript_turns_an_event_into_a_verified_webhook() -> Result<()> {
    check::example("orders-ts").await
}

#[tokio::test]
async fn a_new_project_in_javascript_tests_builds_and_delivers() -> Result<()> {
    check::new_project("js", &[]).await
}

#[tokio::test]
async fn a_new_project_in_typescript_tests_builds_and_delivers() -> Result<()> {
    check::new_project("ts", &[]).await
}
