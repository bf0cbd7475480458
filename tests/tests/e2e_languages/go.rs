//! Go.

use std::env;
use std::ffi::OsString;

use anyhow::Result;
use wirehook_tests::artifacts;

use crate::check;

#[tokio::test]
async fn the_example_turns_an_event_into_a_verified_webhook() -> Result<()> {
    check::example("orders-go").await
}

#[tokio::test]
async fn a_new_project_tests_builds_and_delivers() -> Result<()> {
    let target = artifacts::target_folder()?;
    // What setup installed comes first, where it had to.
    let tools = target.join("tools/go/go/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(tools).chain(env::split_paths(&path)))?;
    let offline = [("GOPROXY", "off"), ("GOTOOLCHAIN", "local")].map(|(name, value)| (name, OsString::from(value)));
    // What the example's build has compiled is used again.
    let cache = ("GOCACHE", target.join("go-cache").into());
    check::new_project("go", &[&offline[..], &[("PATH", path), cache]].concat()).await
}
