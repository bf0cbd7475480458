//! One stream of a source: its consumer is looked for, pulled from, and looked for again after a failure, whatever the
//! source's other streams do.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all, select_all};
use tokio::time::Sleep;

use super::JetstreamSource;
use super::acks::Acks;
use super::attach::Attached;
use super::delivered::Delivered;
use super::pull::Pull;
use super::resume::{Floor, Resume};
use crate::source::nats::api::Api;
use crate::source::nats::denial::Denial;
use crate::source::nats::link;
use crate::source::nats::wire::{Delivery, Wire};
use crate::source::{BATCH_MESSAGES_MAX, Backoff, SourceState};

/// A stream of a running source.
pub(super) struct Reader {
    source: Arc<JetstreamSource>,
    stream: String,
    resume: Resume,
    state: SourceState,
    acks: Acks,
    api: Option<Api>,
    backoff: Backoff,
    phase: Phase,
    /// Why it is not up, or was not until it came up last.
    error: Option<String>,
    /// Whether its consumer was never found by this process.
    is_first: bool,
    /// Whether it waits for a message that is larger than may be asked for: its error is over when something comes.
    is_stuck: bool,
}

/// What a reader has to tell.
pub(super) enum News {
    /// It is up.
    Attached,
    /// It knows better how far its consumer has come.
    FloorNoted,
    /// Messages, at most [`BATCH_MESSAGES_MAX`].
    Delivered(Delivered),
    /// It is not up any more, and tries again. What had come until then.
    Failed(Option<Delivered>),
}

enum Phase {
    /// There is no connection.
    Idle,
    Attaching(BoxFuture<'static, Result<(Attached, Pull), String>>),
    Pulling(Box<Pulling>),
    /// Until it tries again.
    Waiting(Pin<Box<Sleep>>),
}

struct Pulling {
    attached: Attached,
    pull: Pull,
    /// Delivered while the inbox takes nothing: the server is told that they wait.
    held: Delivered,
    /// To be acknowledged unread.
    unwanted: Delivered,
    progress: Pin<Box<Sleep>>,
    watch: BoxFuture<'static, Result<(), String>>,
    resume: Resume,
    state: SourceState,
}

/// What comes next from any of `readers`, with its index. While not `fetching`, no messages: they stay at the server, and
/// those that are here already wait. The reader that comes first changes with every `turn`. Dropping the future loses
/// nothing.
pub(super) async fn next(readers: &mut [Reader], turn: &mut usize, fetching: bool) -> (usize, News) {
    *turn = (*turn + 1) % readers.len().max(1);
    let nexts = readers.iter_mut().enumerate();
    let mut nexts: Vec<_> =
        nexts.map(|(index, it)| Box::pin(it.next(fetching).map(move |news| (index, news)))).collect();
    nexts.rotate_left(*turn);
    select_all(nexts).await.0
}

/// Tells the server to deliver at once, to another host or to this one later, what nobody has begun: what has come, and
/// what is on its way.
pub(super) async fn hand_back(readers: &mut [Reader], wire: &Wire) {
    join_all(readers.iter_mut().map(|reader| reader.hand_back(wire))).await;
}

impl Reader {
    /// A reader of `stream`, not connected; `floor` is what an earlier start kept.
    pub(super) fn new(
        source: Arc<JetstreamSource>,
        stream: String,
        floor: Option<Floor>,
        state: SourceState,
        acks: Acks,
    ) -> Self {
        Self {
            source,
            stream,
            resume: Resume::new(floor),
            state,
            acks,
            api: None,
            backoff: Backoff::new(),
            phase: Phase::Idle,
            error: None,
            is_first: true,
            is_stuck: false,
        }
    }

    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    /// How far its consumer has come.
    pub(super) fn floor(&self) -> Option<Floor> {
        self.resume.floor()
    }

    /// Whether its messages can come now.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Pulling(_))
    }

    /// Why it is not up, or what it leaves out while it is.
    pub(super) fn error(&self) -> Option<&str> {
        let lacking = match &self.phase {
            Phase::Pulling(pulling) => pulling.attached.lacking(),
            _ => None,
        };
        self.error.as_deref().or(lacking)
    }

    /// Looks for its consumer, over a connection that is up.
    pub(super) fn attach(&mut self, api: &Api) {
        self.api = Some(api.clone());
        let (source, stream, api) = (Arc::clone(&self.source), self.stream.clone(), api.clone());
        let (resume, is_first) = (self.resume.clone(), self.is_first);
        self.phase =
            Phase::Attaching(Box::pin(async move { Attached::to(&source, &stream, &api, &resume, is_first).await }));
    }

    /// Stops, and gives what had come: else it would wait for `ack_wait` to pass.
    pub(super) fn stop(&mut self) -> Option<Delivered> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Pulling(mut pulling) => {
                pulling.take_ready();
                Some(pulling.held).filter(|held| !held.is_empty())
            }
            _ => None,
        }
    }

    async fn next(&mut self, fetching: bool) -> News {
        loop {
            match &mut self.phase {
                Phase::Idle => return std::future::pending().await,
                Phase::Waiting(pause) => {
                    pause.await;
                    match self.api.take() {
                        Some(api) => self.attach(&api),
                        None => self.phase = Phase::Idle,
                    }
                }
                Phase::Attaching(attached) => match attached.await {
                    Ok((attached, pull)) => {
                        self.phase = Phase::Pulling(Box::new(Pulling::new(
                            attached,
                            pull,
                            &self.resume,
                            &self.state,
                            &self.acks,
                        )));
                        if !self.is_stuck {
                            self.error = None;
                        }
                        self.is_first = false;
                        return News::Attached;
                    }
                    Err(error) => return self.fail(error),
                },
                Phase::Pulling(pulling) => match pulling.next(fetching).await {
                    Ok(news) => {
                        if let News::Delivered(_) = news {
                            self.backoff.reset();
                            if std::mem::take(&mut self.is_stuck) {
                                self.error = None;
                            }
                        }
                        return news;
                    }
                    Err(error) if pulling.pull.is_stuck() => {
                        self.is_stuck = true;
                        return self.fail_for(Backoff::MAX, error);
                    }
                    Err(error) => {
                        self.is_stuck = false;
                        return self.fail(error);
                    }
                },
            }
        }
    }

    fn fail(&mut self, error: String) -> News {
        let delay = self.backoff.after_failure();
        self.fail_for(delay, error)
    }

    fn fail_for(&mut self, delay: Duration, error: String) -> News {
        let rest = self.stop();
        self.error = Some(error);
        self.phase = Phase::Waiting(Box::pin(tokio::time::sleep(delay)));
        News::Failed(rest)
    }

    /// Notes that the server forbids something; nothing where the reader does without, or has failed already.
    pub(super) fn denied(&mut self, denial: &Denial) -> Option<News> {
        let is_inbox = !denial.is_publish && denial.subject.starts_with("_INBOX.");
        if !is_inbox && !denial.subject.split('.').any(|token| token == self.stream) {
            return None;
        }
        match &self.phase {
            // Trying again shows nothing before something is delivered again.
            Phase::Pulling(pulling) if denial.subject.starts_with("$JS.ACK.") => {
                let delay = pulling.attached.ack_wait();
                let error = format!("{}; what is not acknowledged comes again and again", denial.describe());
                Some(self.fail_for(delay, error))
            }
            Phase::Pulling(_) | Phase::Attaching(_) => {
                Some(self.fail(format!("can't read the stream `{}`: {}", self.stream, denial.describe())))
            }
            Phase::Idle | Phase::Waiting(_) => None,
        }
    }

    async fn hand_back(&mut self, wire: &Wire) {
        if let Phase::Pulling(pulling) = &mut self.phase {
            pulling.hand_back(wire).await;
        }
    }

    /// Deletes its consumer, where it has one.
    pub(super) async fn delete_consumer(&mut self) -> Result<(), String> {
        match &self.phase {
            Phase::Pulling(pulling) => pulling.attached.delete().await,
            _ => Ok(()),
        }
    }
}

impl Pulling {
    fn new(attached: Attached, pull: Pull, resume: &Resume, state: &SourceState, acks: &Acks) -> Self {
        let held = Delivered::new(attached.ack_wait(), acks);
        let unwanted = Delivered::new(attached.ack_wait(), acks);
        let progress = Box::pin(tokio::time::sleep(held.progress_interval()));
        let watch = attached.watch(resume).boxed();
        Self { attached, pull, held, unwanted, progress, watch, resume: resume.clone(), state: state.clone() }
    }

    async fn next(&mut self, fetching: bool) -> Result<News, String> {
        loop {
            self.unwanted.pass_over().await;
            if fetching && !self.held.is_empty() {
                return Ok(News::Delivered(self.held.take_first(BATCH_MESSAGES_MAX)));
            }
            tokio::select! {
                biased;
                watched = &mut self.watch => {
                    self.watch = self.attached.watch(&self.resume).boxed();
                    return watched.map(|()| News::FloorNoted);
                }
                () = &mut self.progress => self.report_progress().await,
                messages = self.pull.next(), if fetching => {
                    let messages = messages.map_err(|error| self.attached.describe(&error))?;
                    self.hold(messages);
                }
            }
        }
    }

    /// Takes what has come, and says that it waits. Until all is said, the time for it has not passed.
    async fn report_progress(&mut self) {
        self.take_ready();
        self.held.report_progress().await;
        self.progress.set(tokio::time::sleep(self.held.progress_interval()));
    }

    fn take_ready(&mut self) {
        loop {
            let messages = self.pull.take_ready();
            if messages.is_empty() {
                return;
            }
            self.hold(messages);
        }
    }

    fn hold(&mut self, deliveries: Vec<Delivery>) {
        let (mut headers_dropped, mut markers) = (0, 0);
        for mut delivery in deliveries {
            let Some(reply) = delivery.reply.take() else { continue };
            let headers = link::headers(&delivery);
            // A body is never passed over, whatever a publisher wrote before it.
            let is_marker = delivery.payload.is_empty() && headers.marker().is_some();
            let dropped = headers.dropped;
            let (message, is_odd) = link::message(delivery, headers, self.attached.position(&reply));
            if is_marker || !self.attached.wants(&message.subject) {
                markers += usize::from(is_marker);
                self.unwanted.push(message, reply, None);
                continue;
            }
            headers_dropped += dropped;
            let set_aside = is_odd.then(|| self.state.set_aside(self.attached.odd(&message, &reply)));
            self.held.push(message, reply, set_aside);
        }
        self.state.headers_dropped(headers_dropped);
        self.state.delete_markers(markers);
    }

    async fn hand_back(&mut self, wire: &Wire) {
        self.hand_back_ready().await;
        // Each time round, what was asked for may have come. The server delivers and answers pings on threads of its own: a
        // round without messages is not yet the end of them.
        while !self.pull.is_fulfilled() {
            wire.round_trip().await;
            if !self.hand_back_ready().await {
                break;
            }
        }
        self.pull.stop().await;
        self.hand_back_ready().await;
    }

    /// Whether there was anything to hand back.
    async fn hand_back_ready(&mut self) -> bool {
        self.take_ready();
        self.unwanted.pass_over().await;
        let ready = self.held.take_first(usize::MAX);
        let has_any = !ready.is_empty();
        ready.hand_back().await;
        has_any
    }
}
