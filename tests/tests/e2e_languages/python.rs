//! Python.

use std::env;

use anyhow::Result;
use wirehook_tests::artifacts;

use crate::check;

#[tokio::test]
async fn the_example_turns_an_event_into_a_verified_webhook() -> Result<()> {
    check::example("orders-python").await
}

#[tokio::test]
async fn a_new_project_tests_builds_and_delivers() -> Result<()> {
    // As in a project's `.venv`, whose programs are in PATH once it is activated.
    let tools = artifacts::target_folder()?.join("tools/python/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(tools).chain(env::split_paths(&path)))?;
    check::new_project("python", &[("PATH", path)]).await
}
