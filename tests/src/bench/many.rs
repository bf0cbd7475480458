//! A host with fifty plugins: how long it takes to be ready, and the memory that it has then.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{child, ready};
use crate::publisher::HttpPublisher;
use crate::test_host::{HostFolderBuilder, PluginFile, TestHost};

/// Plugins in the folder, each a file of its own.
pub const PLUGINS: usize = 50;

/// What was measured.
#[derive(Debug, Default)]
pub struct Many {
    /// The first start, which compiles them all.
    pub cold: Duration,
    /// Starts with compiled code in the cache.
    pub warm: Vec<Duration>,
    /// Bytes in memory of an idle host with all of them, the last time.
    pub resident_bytes: u64,
    /// The same of a host with none.
    pub resident_bytes_without: u64,
}

/// Starts a host with [`PLUGINS`] plugins in a folder within `folder` once cold and `starts` times warm.
///
/// # Errors
/// A host does not start, or does not end.
pub async fn measure(folder: &Path, starts: usize) -> Result<Many> {
    let mut many = Many::default();
    let mut empty = host(folder, 0)?;
    ready::time_to_ready(&mut empty).await?;
    many.resident_bytes_without = child::resident_bytes(empty.pid()?)?;
    retire(&mut empty).await?;
    let mut host = host(folder, PLUGINS)?;
    many.cold = ready::time_to_ready(&mut host).await?;
    for _ in 0..starts {
        retire(&mut host).await?;
        many.warm.push(ready::time_to_ready(&mut host).await?);
        many.resident_bytes = child::resident_bytes(host.pid()?)?;
    }
    retire(&mut host).await?;
    Ok(many)
}

fn host(folder: &Path, plugins: usize) -> Result<TestHost> {
    let source = HttpPublisher::new()?;
    let builder = TestHost::builder().within(folder).http(source.port, "");
    let builder = builder.endpoint_at("orders", "http://127.0.0.1:9/hook", "");
    copies(plugins)?.into_iter().fold(builder, HostFolderBuilder::plugin).build()
}

/// The example so many times, each a plugin of its own with the endpoint `orders`.
pub(super) fn copies(count: usize) -> Result<Vec<PluginFile>> {
    let example = PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders");
    let copy = |number| {
        let mut plugin = example.clone();
        plugin.name = format!("orders-{number}");
        // A custom section makes it another file, with code of its own in the cache.
        let content = format!("\x05build{number:08}");
        plugin.wasm.extend([0, u8::try_from(content.len())?]);
        plugin.wasm.extend(content.as_bytes());
        Ok(plugin)
    };
    (0..count).map(copy).collect()
}

async fn retire(host: &mut TestHost) -> Result<()> {
    host.stop().await?;
    host.forget_logs();
    Ok(())
}
