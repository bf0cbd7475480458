use std::io::Write;
use std::os::unix::net::UnixStream;

use wirehook::source::stdin::StdinSource;

use crate::fake_inbox::{FakeInbox, Mode, Running};

fn source(line_bytes_max: usize) -> anyhow::Result<(UnixStream, Box<StdinSource>)> {
    let (writer, reader) = UnixStream::pair()?;
    Ok((writer, Box::new(StdinSource::new("bus".into(), Box::new(reader), line_bytes_max))))
}

#[tokio::test]
async fn lines_are_events_and_the_end_is_the_end() -> anyhow::Result<()> {
    let (mut writer, source) = source(10)?;
    let inbox = FakeInbox::new(Mode::Fail);
    let source = Running::start(source, &inbox);
    writer.write_all(b"{\"a\":1}\n\n12345678901234567890\n")?;
    inbox.until("a refusal", |seen| seen.refused >= 1).await;
    inbox.set(Mode::Accept);
    writer.write_all(b"last")?;
    drop(writer);
    let state = source.state.clone();
    source.ended().await?;
    let mut bodies: Vec<_> = inbox.seen().accepted.into_iter().map(|message| message.payload).collect();
    bodies.sort();
    assert_eq!(bodies, ["12345678901", "last", "{\"a\":1}"]);
    assert!(state.is_ready() && state.status().ended && state.status().messages_lost == 0);
    Ok(())
}

#[tokio::test]
async fn a_drain_does_not_wait_for_the_writer() -> anyhow::Result<()> {
    let (mut writer, source) = source(10)?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(source, &inbox);
    writer.write_all(b"1\n")?;
    inbox.until("the line", |seen| seen.offered == 1).await;
    source.drain.begin();
    inbox.set(Mode::Accept);
    source.ended().await?;
    assert_eq!(inbox.seen().accepted.len(), 1);
    drop(writer);
    Ok(())
}

#[tokio::test]
async fn a_closed_inbox_ends_it() -> anyhow::Result<()> {
    let (mut writer, source) = source(10)?;
    let source = Running::start(source, &FakeInbox::new(Mode::Closed));
    let state = source.state.clone();
    writer.write_all(b"1\n2\n")?;
    assert!(source.ended().await.is_err());
    assert!(state.status().messages_lost >= 1);
    Ok(())
}
