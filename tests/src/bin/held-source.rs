//! A source whose inbox holds everything, in a process of its own, so that its memory can be looked at.
//!
//! `held-source SETTINGS` runs the first `[[source]]` of a file. It prints what its inbox sees, a line each time that
//! changes. A line on standard input lets the inbox accept; the input's end drains the source.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use wirehook_tests::conformance::source::HeldSource;
use wirehook_tests::fake_inbox::{FakeInbox, Mode, Running, build};

#[tokio::main]
async fn main() -> Result<()> {
    let file = std::env::args().nth(1).context("name the settings file")?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(build(&std::fs::read_to_string(file)?)?, &inbox);
    source.connected().await;
    let telling = tokio::spawn(tell(Arc::clone(&inbox)));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        inbox.set(Mode::Accept);
    }
    inbox.set(Mode::Accept);
    source.drained().await?;
    telling.abort();
    Ok(())
}

async fn tell(inbox: Arc<FakeInbox>) {
    let mut last = None;
    loop {
        let seen = inbox.until("news", |seen| Some(HeldSource::of(seen)) != last).await;
        let news = HeldSource::of(&seen);
        println!("{}", serde_json::to_string(&news).unwrap());
        last = Some(news);
    }
}
