//! JSON lines on standard input. Its writer waits when the inbox does; its end ends the source.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::batches::{Batches, Ended, weight};
use super::{Accept, AcceptError, BATCH_MESSAGES_MAX, Backoff, Source, SourceError, SourceState};
use crate::drain::Drain;
use crate::event::Message;

/// Bytes of lines after which a batch is full.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Batches read and not yet begun.
const BATCHES_READ_MAX: usize = 2;

/// Lines of an input.
pub struct StdinSource {
    name: Arc<str>,
    input: Box<dyn Read + Send>,
    line_bytes_max: usize,
}

impl StdinSource {
    /// Reads lines of `input`. Of a line longer than `line_bytes_max` one byte more is kept, by which the inbox sees
    /// that it is too large, and the rest is skipped.
    pub fn new(name: Arc<str>, input: Box<dyn Read + Send>, line_bytes_max: usize) -> Self {
        Self { name, input, line_bytes_max }
    }
}

impl Source for StdinSource {
    fn run(
        self: Box<Self>,
        inbox: Arc<dyn Accept>,
        state: SourceState,
        drain: Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(async move {
            let Self { name, input, line_bytes_max } = *self;
            let (sender, mut read) = mpsc::channel(BATCHES_READ_MAX);
            // A thread of its own that nobody waits for: a read of a terminal may never return.
            let reader = thread::Builder::new().name(format!("source-{name}"));
            let reader = reader.spawn(move || send_lines(Lines::new(input, line_bytes_max), &sender));
            reader.map_err(|error| SourceError::Read { name: Arc::clone(&name), error })?;
            state.connected();
            let mut batches = Batches::within(inbox.intake());
            let mut end = Ok(());
            let mut draining = false;
            loop {
                tokio::select! {
                    biased;
                    () = drain.begun(), if !draining => {
                        // What was read already is accepted still.
                        draining = true;
                        read.close();
                    }
                    ended = batches.next() => if let Err(AcceptError::Closed) = ended {
                        end = Err(SourceError::InboxClosed { name: Arc::clone(&name) });
                        break;
                    },
                    lines = read.recv(), if batches.has_room() => match lines {
                        Some(Ok(lines)) => {
                            let messages: Vec<_> = lines.into_iter().map(message).collect();
                            let bytes = weight(&messages);
                            let (inbox, state, drain) = (Arc::clone(&inbox), state.clone(), drain.clone());
                            batches.begin(bytes, keep(Arc::clone(&name), messages, inbox, state, drain)).await;
                        }
                        Some(Err(error)) => {
                            end = Err(SourceError::Read { name: Arc::clone(&name), error });
                            break;
                        }
                        None => break,
                    },
                }
            }
            if let Err(AcceptError::Closed) = batches.finish().await {
                end = end.and(Err(SourceError::InboxClosed { name }));
            }
            state.ended();
            end
        })
    }
}

fn message(line: Bytes) -> Message {
    Message { subject: "stdin".into(), payload: line, headers: Vec::new(), position: None }
}

/// Offers a batch until it is accepted; once the drain has begun, once more.
async fn keep(
    name: Arc<str>,
    messages: Vec<Message>,
    inbox: Arc<dyn Accept>,
    state: SourceState,
    drain: Drain,
) -> Ended {
    let mut backoff = Backoff::new();
    loop {
        let last = drain.is_draining();
        match inbox.accept(&name, messages.clone()).await {
            Ok(_) => {
                state.recovered();
                return Ok(());
            }
            Err(error) if last || matches!(error, AcceptError::Closed) => {
                state.lost(messages.len(), &error);
                return Err(error);
            }
            Err(error) => state.failed(&error),
        }
        backoff.wait(&drain).await;
    }
}

fn send_lines(mut lines: Lines, batches: &mpsc::Sender<io::Result<Vec<Bytes>>>) {
    loop {
        let batch = lines.next_batch().transpose();
        let last = !matches!(batch, Some(Ok(_)));
        if batch.is_some_and(|batch| batches.blocking_send(batch).is_err()) || last {
            return;
        }
    }
}

/// Splits an input into lines of bounded length.
struct Lines {
    input: BufReader<Box<dyn Read + Send>>,
    line_bytes_max: usize,
}

impl Lines {
    fn new(input: Box<dyn Read + Send>, line_bytes_max: usize) -> Self {
        Self { input: BufReader::with_capacity(64 * 1024, input), line_bytes_max }
    }

    /// Waits for a line, and takes what else is there without waiting. `None` at the end of the input.
    fn next_batch(&mut self) -> io::Result<Option<Vec<Bytes>>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.is_empty() || self.has_whole_line() {
            let Some(line) = self.next_line()? else { break };
            if !line.trim_ascii().is_empty() {
                bytes += line.len();
                batch.push(Bytes::from(line));
            }
            if batch.len() == BATCH_MESSAGES_MAX || bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    fn has_whole_line(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }

    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut begun = false;
        loop {
            let buffer = match self.input.fill_buf() {
                Ok([]) => return Ok(begun.then_some(line)),
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            begun = true;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            let room = (self.line_bytes_max + 1).saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            let consumed = part.len() + usize::from(end.is_some());
            self.input.consume(consumed);
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(input: &'static [u8], line_bytes_max: usize) -> Vec<Vec<Bytes>> {
        let mut lines = Lines::new(Box::new(input), line_bytes_max);
        std::iter::from_fn(|| lines.next_batch().unwrap()).collect()
    }

    #[test]
    fn lines_are_split_and_bounded() {
        let check = |input: &'static [u8], expected: &[&str]| assert_eq!(batches(input, 4).concat(), expected);
        check(b"", &[]);
        check(b"\n \r\n\n", &[]);
        check(b"1\n2\r\n3", &["1", "2\r", "3"]);
        check(b"1234\n12345\n123456789\n1\n", &["1234", "12345", "12345", "1"]);
        check(b"123456789", &["12345"]);
    }

    #[test]
    fn a_batch_is_bounded() {
        let input: &'static [u8] = Box::leak(b"1\n".repeat(600).into_boxed_slice());
        assert_eq!(batches(input, 4).iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 88]);
    }
}
