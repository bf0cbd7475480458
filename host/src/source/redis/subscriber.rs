//! Subscriptions over one connection, pulled one message at a time: what nobody pulls stays in the server's buffer.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use redis::{Cmd, Value, cmd};

use super::connect::Wire;
use super::failure::Failure;
use super::glob;
use super::publishing::is_pattern;
use crate::event::Message;

/// After so much silence the server is asked whether it is there; after as much again it is not.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What a source subscribes to.
#[derive(Clone, Debug)]
pub(super) struct Subscriptions {
    channels: Vec<String>,
    patterns: Vec<String>,
}

/// A channel is a name, or a pattern when it has a wildcard in it.
impl From<&[String]> for Subscriptions {
    fn from(names: &[String]) -> Self {
        let (patterns, channels) = names.iter().cloned().partition(|name| is_pattern(name));
        Self { channels, patterns }
    }
}

impl Subscriptions {
    /// Whether this copy is the one to take of a message that came to `channel` by `pattern`, or by its name. Redis sends
    /// a copy for each subscription that matches: the name's is taken, else that of the first pattern.
    fn takes(&self, channel: &[u8], pattern: Option<&[u8]>) -> bool {
        let Some(pattern) = pattern else { return true };
        if self.channels.iter().any(|name| name.as_bytes() == channel) {
            return false;
        }
        let first = self.patterns.iter().find(|pattern| glob::matches(pattern.as_bytes(), channel));
        first.is_none_or(|first| first.as_bytes() == pattern)
    }

    fn len(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    /// `command` for the channels, and with a `P` before it for the patterns.
    fn commands(&self, command: &str) -> Vec<u8> {
        let of = |command: &str, names: &[String]| Cmd::new().arg(command).arg(names).get_packed_command();
        let channels = (!self.channels.is_empty()).then(|| of(command, &self.channels));
        let patterns = (!self.patterns.is_empty()).then(|| of(&format!("P{command}"), &self.patterns));
        [channels, patterns].into_iter().flatten().flatten().collect()
    }
}

/// What came over the connection.
#[derive(Debug)]
pub(super) enum Received {
    /// All subscriptions are confirmed.
    Subscribed,
    Message(Message),
    /// All subscriptions are ended: nothing comes after this.
    Unsubscribed,
}

/// A connection that subscribes.
pub(super) struct Subscriber {
    wire: Wire,
    subscriptions: Subscriptions,
    unconfirmed: usize,
    ended: usize,
    leaving: bool,
    pinged: bool,
    silence_max: Duration,
}

impl Subscriber {
    /// Sends the subscriptions; [`Received::Subscribed`] comes when they hold.
    pub(super) async fn new(mut wire: Wire, subscriptions: Subscriptions) -> Result<Self, Failure> {
        wire.send(subscriptions.commands("SUBSCRIBE")).await?;
        Ok(Self {
            wire,
            unconfirmed: subscriptions.len(),
            subscriptions,
            ended: 0,
            leaving: false,
            pinged: false,
            silence_max: SILENCE_MAX,
        })
    }

    /// Asks for the end: [`Received::Unsubscribed`] comes after the last message.
    pub(super) async fn unsubscribe(&mut self) -> Result<(), Failure> {
        self.leaving = true;
        Ok(self.wire.send(self.subscriptions.commands("UNSUBSCRIBE")).await?)
    }

    /// What comes next. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// When the connection is lost, or the server is silent and does not answer a `PING` either.
    pub(super) async fn next(&mut self) -> Result<Received, Failure> {
        loop {
            match tokio::time::timeout(self.silence_max, self.wire.next()).await {
                Ok(Some(value)) => {
                    self.pinged = false;
                    if let Some(received) = self.sort_out(value?)? {
                        return Ok(received);
                    }
                }
                Ok(None) => {
                    let closed = "the server closed the connection; it does so with subscribers that are slower than \
                                  `client-output-buffer-limit pubsub` allows, too";
                    return Err(Failure::Connection(closed.to_owned()));
                }
                Err(_) if self.pinged => {
                    return Err(Failure::Connection(format!(
                        "the server did not answer within {:?}",
                        self.silence_max
                    )));
                }
                Err(_) => {
                    // Before the send: where that is cut off, an answer is waited for all the same.
                    self.pinged = true;
                    let ping = self.wire.send(cmd("PING").get_packed_command());
                    if let Ok(sent) = tokio::time::timeout(self.silence_max, ping).await {
                        sent?;
                    }
                }
            }
        }
    }

    fn sort_out(&mut self, value: Value) -> Result<Option<Received>, Failure> {
        let parts = match value {
            Value::Array(parts) => parts,
            Value::ServerError(error) if self.unconfirmed > 0 => return Err(Failure::refused(&error)),
            // To a user who may not unsubscribe, what was published before has been sent now, too.
            Value::ServerError(_) if self.leaving => return Ok(Some(Received::Unsubscribed)),
            // A user who may not `PING` is told so by a server that is alive.
            _ => return Ok(None),
        };
        let mut parts = parts.into_iter().map(|part| match part {
            Value::BulkString(bytes) => Bytes::from(bytes),
            _ => Bytes::new(),
        });
        let mut next = || parts.next().unwrap_or_default();
        let (channel, pattern, payload) = match &next()[..] {
            b"message" => (next(), None, next()),
            b"pmessage" => {
                let pattern = next();
                (next(), Some(pattern), next())
            }
            b"subscribe" | b"psubscribe" => {
                self.unconfirmed = self.unconfirmed.saturating_sub(1);
                return Ok((self.unconfirmed == 0).then_some(Received::Subscribed));
            }
            b"unsubscribe" | b"punsubscribe" => {
                self.ended += 1;
                return Ok((self.ended == self.subscriptions.len()).then_some(Received::Unsubscribed));
            }
            _ => return Ok(None),
        };
        let taken = self.subscriptions.takes(&channel, pattern.as_deref());
        let message = || Message {
            subject: String::from_utf8_lossy(&channel).into(),
            payload,
            headers: Vec::new(),
            position: None,
        };
        Ok(taken.then(|| Received::Message(message())))
    }
}

#[cfg(test)]
mod tests {
    use redis::ValueCodec;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio_util::codec::Decoder;

    use super::super::connect::Io;
    use super::*;

    const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n1\r\n";

    /// A subscriber of `a` that soon loses patience, and what plays the server.
    async fn subscriber() -> (Subscriber, DuplexStream) {
        let (client, server) = tokio::io::duplex(1024);
        let wire = ValueCodec::default().framed(Box::new(client) as Box<dyn Io>);
        let mut subscriber = Subscriber::new(wire, subscriptions(&["a"])).await.unwrap();
        subscriber.silence_max = Duration::from_millis(20);
        (subscriber, server)
    }

    /// Waits until the subscriber has sent something that ends so.
    async fn sent(server: &mut DuplexStream, end: &[u8]) {
        let mut sent = Vec::new();
        while !sent.ends_with(end) {
            sent.push(server.read_u8().await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_server_that_is_silent_and_answers_no_ping_is_dead() {
        let (mut subscriber, mut server) = subscriber().await;
        let failure = subscriber.next().await.unwrap_err();
        assert!(failure.to_string().contains("did not answer within 20ms"), "{failure}");
        sent(&mut server, b"PING\r\n").await;
    }

    #[tokio::test]
    async fn a_server_that_answers_pings_is_alive() {
        let (mut subscriber, mut server) = subscriber().await;
        let answers = async {
            server.write_all(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await.unwrap();
            for answer in [&b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"[..], b"-NOPERM may not ping\r\n", MESSAGE] {
                sent(&mut server, b"PING\r\n").await;
                server.write_all(answer).await.unwrap();
            }
        };
        let receives = async {
            assert!(matches!(subscriber.next().await, Ok(Received::Subscribed)));
            assert!(matches!(subscriber.next().await, Ok(Received::Message(_))));
        };
        tokio::join!(answers, receives);
    }

    fn subscriptions(names: &[&str]) -> Subscriptions {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        Subscriptions::from(&names[..])
    }

    #[test]
    fn one_copy_of_a_message_is_taken() {
        let subscriptions = subscriptions(&["a.*", "a.b", "a.?", "[ab].c"]);
        let check = |channel: &str, expected: &[Option<&str>]| {
            let matching = |pattern: &&String| glob::matches(pattern.as_bytes(), channel.as_bytes());
            let patterns = subscriptions.patterns.iter().filter(matching).map(|pattern| Some(pattern.as_str()));
            let copies = subscriptions.channels.iter().filter(|name| *name == channel).map(|_| None).chain(patterns);
            let taken = copies.filter(|pattern| subscriptions.takes(channel.as_bytes(), pattern.map(str::as_bytes)));
            assert_eq!(taken.collect::<Vec<_>>(), expected, "{channel}");
        };
        check("a.b", &[None]);
        check("a.c", &[Some("a.*")]);
        check("b.c", &[Some("[ab].c")]);
        check("a.bc", &[Some("a.*")]);
        check("c", &[]);
        assert!(subscriptions.takes(b"unexpected", Some(b"of the server")), "what is not understood is not dropped");
    }

    #[test]
    fn names_and_patterns_are_subscribed_apart() {
        let check = |names: &[&str], expected: &str| {
            let sent = String::from_utf8(subscriptions(names).commands("SUBSCRIBE")).unwrap();
            let words = sent.split("\r\n").filter(|word| !word.starts_with(['*', '$']));
            assert_eq!(words.collect::<Vec<_>>().join(" ").trim(), expected);
        };
        check(&["a", "b?", "[c]"], "SUBSCRIBE a PSUBSCRIBE b? [c]");
        check(&["a"], "SUBSCRIBE a");
        check(&["b.*"], "PSUBSCRIBE b.*");
    }
}
