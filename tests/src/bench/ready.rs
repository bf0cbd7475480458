//! From the start of the process to `/readyz` 200, with and without compiled code in the cache.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::publisher::HttpPublisher;
use crate::test_host::{HostFolderBuilder, PluginFile, READY_DEADLINE, TestHost};

/// Between two polls; far below what is measured.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// What a host logs of a plugin that can be called.
const LOADED: &str = "the plugin is loaded";

/// Starts: the first of each pair compiles the plugin, the second finds it compiled.
#[derive(Debug, Default)]
pub struct Starts {
    /// Without a cache.
    pub cold: Vec<Duration>,
    /// With it.
    pub warm: Vec<Duration>,
}

/// Starts `count` hosts with the example plugin in folders within `folder`, each cold and then warm.
pub async fn measure(folder: &Path, count: usize) -> Result<Starts> {
    let mut starts = Starts::default();
    for _ in 0..count {
        let (cold, warm) = measure_one(TestHost::builder().within(folder)).await?;
        starts.cold.push(cold);
        starts.warm.push(warm);
    }
    Ok(starts)
}

/// One start without a cache, and one with it.
pub(super) async fn measure_one(builder: HostFolderBuilder) -> Result<(Duration, Duration)> {
    let source = HttpPublisher::new()?;
    let mut host = builder
        .http(source.port, "")
        .endpoint_at("orders", "http://127.0.0.1:9/hook", "")
        .plugin(PluginFile::example("orders")?)
        .build()?;
    let mut times = [Duration::ZERO; 2];
    for time in &mut times {
        host.forget_logs();
        let started = Instant::now();
        host.spawn(&[]).await?;
        // Until then it is not asked: a request a millisecond would take a tenth of the machine from the compiler.
        host.logs().wait_for(LOADED, READY_DEADLINE).await?;
        until_ready(&host).await?;
        *time = started.elapsed();
        host.stop().await?;
    }
    host.forget_logs();
    let [cold, warm] = times;
    Ok((cold, warm))
}

/// Starts `host` and leaves it running.
pub(super) async fn time_to_ready(host: &mut TestHost) -> Result<Duration> {
    let started = Instant::now();
    host.spawn(&[]).await?;
    until_ready(host).await?;
    Ok(started.elapsed())
}

async fn until_ready(host: &TestHost) -> Result<()> {
    let (address, until) = (host.folder.admin_address(), Instant::now() + READY_DEADLINE);
    // On a thread of its own: the runtime's timers have whole milliseconds.
    let polled = tokio::task::spawn_blocking(move || {
        while !is_ready(&address).unwrap_or(false) {
            ensure!(Instant::now() < until, "the host did not become ready");
            #[allow(clippy::disallowed_methods, reason = "it polls what is measured, on a thread of its own")]
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    });
    polled.await?
}

/// One request on a connection of its own: no client's pool or back-off is part of the figure.
fn is_ready(address: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(&status == b"HTTP/1.1 200")
}
