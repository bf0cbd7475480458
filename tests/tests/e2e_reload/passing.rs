//! A failure to load that is nobody's fault and passes: it is tried again by itself.

use anyhow::{Result, ensure};
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::TestHost;
use wirehook_tests::wait;

use super::cold_start::state_of;
use super::{DEADLINE, build, compilers};

/// Compilations that are killed, as by the kernel when memory runs out.
const KILLS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compiler_that_is_killed_is_started_again() -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let source = HttpPublisher::new()?;
    let builder = TestHost::builder().http(source.port, "").endpoint("orders", &endpoint, "").plugin(build(0)?);
    let mut host = builder.build()?;
    host.spawn(&[]).await?;
    let pid = host.pid()?;
    for _ in 0..KILLS {
        let killed = wait::until("a compiler to kill", DEADLINE, async || {
            let killed = compilers(pid)?.into_iter().find(|child| {
                // SAFETY: kill takes two integers and touches no memory; the compiler is a child of the host that was just seen.
                unsafe { libc::kill(*child, libc::SIGKILL) == 0 }
            });
            Ok(killed)
        });
        let killed = killed.await?;
        wait::until("the compiler to be gone", DEADLINE, async || {
            Ok((!compilers(pid)?.contains(&killed)).then_some(()))
        })
        .await?;
    }
    host.wait_ready().await?;
    source.publish_orders(0..3).await?;
    endpoint.wait_for("the webhooks", DEADLINE, |log| log.ids() == 3).await?;
    host.logs().wait_for("is tried again", DEADLINE).await?;
    let (state, error) = state_of(&host, "orders").await?;
    ensure!((state.as_str(), error.as_str()) == ("serving", ""), "{state}: {error}");
    host.expect_all_accounted().await?;
    host.stop().await
}
