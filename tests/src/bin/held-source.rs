//! A source whose inbox holds everything, in a process of its own, so that its memory can be looked at.
//!
//! `held-source SETTINGS` runs the first `[[source]]` of a file. It prints what its inbox sees, a line each time that
//! changes, and what is wrong with the source to standard error. A line on standard input lets the inbox accept; the input's end drains the source.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use wirehook::source::SourceState;
use wirehook_tests::conformance::source::HeldSource;
use wirehook_tests::fake_inbox::{FakeInbox, Mode, Running, build};

#[tokio::main]
async fn main() -> Result<()> {
    let file = std::env::args().nth(1).context("name the settings file")?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(build(&std::fs::read_to_string(file)?)?, &inbox);
    source.connected().await;
    let telling = tokio::spawn(tell(Arc::clone(&inbox)));
    let explaining = tokio::spawn(explain(source.state.clone()));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        inbox.set(if line == "hold" { Mode::Hold } else { Mode::Accept });
    }
    inbox.set(Mode::Accept);
    source.drained().await?;
    telling.abort();
    explaining.abort();
    Ok(())
}

/// What is wrong with the source, for those who wonder why nothing comes.
async fn explain(state: SourceState) {
    let mut changes = state.on_change();
    while changes.changed().await.is_ok() {
        let status = changes.borrow_and_update().clone();
        eprintln!("the source is {status:?}");
    }
}

async fn tell(inbox: Arc<FakeInbox>) {
    let mut last = None;
    loop {
        let Ok(seen) = inbox.changed(|seen| Some(HeldSource::of(seen)) != last).await else { return };
        let news = HeldSource::of(&seen);
        println!("{}", serde_json::to_string(&news).unwrap());
        last = Some(news);
    }
}
