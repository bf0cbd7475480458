//! Zig, which stands for any language without an SDK: the example follows `wit/abi.md`.

use anyhow::{Context, Result};
use wirehook_tests::test_host::PluginFile;
use wirehook_tests::{artifacts, full};

use crate::check;

#[tokio::test]
async fn a_module_by_the_page_alone_turns_an_event_into_a_verified_webhook() -> Result<()> {
    if !full::wanted("the example in Zig") {
        return Ok(());
    }
    let file = artifacts::target_folder()?.join("zig/orders.wasm");
    let wasm = std::fs::read(&file).with_context(|| format!("{}: run `cargo xtask test --full`", file.display()))?;
    check::whole_path(PluginFile::of_bytes("orders-zig", &wasm)).await
}
