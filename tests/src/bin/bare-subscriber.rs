//! The bench's yardstick, as a process of its own.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    wirehook_tests::bench::bare::main().await
}
