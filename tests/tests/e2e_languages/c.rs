//! C.

use anyhow::{Result, ensure};
use wirehook_tests::artifacts;

use crate::check;

#[tokio::test]
async fn the_example_turns_an_event_into_a_verified_webhook() -> Result<()> {
    check::example("orders-c").await
}

#[tokio::test]
async fn a_new_project_tests_builds_and_delivers() -> Result<()> {
    check::new_project("c", &[]).await
}

#[test]
fn a_build_that_would_not_run_leaves_the_one_before_it() -> Result<()> {
    let root = tempfile::tempdir()?;
    let wirehook = |arguments: &[&str]| -> Result<std::process::Output> {
        let program = artifacts::host_binary()?;
        Ok(std::process::Command::new(program).args(arguments).current_dir(root.path()).output()?)
    };
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let made = wirehook(&["plugin", "new", "mails", "--lang", "c"])?;
    ensure!(made.status.success(), "{}", said(&made));
    let built = wirehook(&["plugin", "build", "mails"])?;
    ensure!(built.status.success(), "{}", said(&built));
    let file = |name: &str| std::fs::read(root.path().join("mails").join(name));
    let before = (file("dist/mails.wasm")?, file("dist/mails.toml")?);

    std::fs::write(root.path().join("mails/mails.toml"), "[limits]\nmemory = \"64KiB\"\ndeadlin = \"1s\"\n")?;
    let refused = wirehook(&["plugin", "build", "mails"])?;
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    ensure!(said(&refused).contains("deadlin") && said(&refused).contains("is as it was"), "{}", said(&refused));
    ensure!(!said(&refused).contains(".wirehook-build"), "{}", said(&refused));
    ensure!((file("dist/mails.wasm")?, file("dist/mails.toml")?) == before, "something was put there");
    let left = std::fs::read_dir(root.path().join("mails/dist"))?.count();
    ensure!(left == 2, "{left} files are in dist");
    Ok(())
}
