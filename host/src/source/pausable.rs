//! A source that can be told to wait: it is ended as at the host's own end, and made anew when it is resumed. So a
//! paused source holds no connection and no address, and what a bus keeps for it stays at the bus.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{Accept, Backoff, Source, SourceError, SourceState};
use crate::drain::{self, Drain};

/// How to make a source again. It may fail for a while: somebody else may have its address.
pub type Make = Box<dyn Fn() -> Result<Box<dyn Source>, SourceError> + Send + Sync>;

/// A source with what pauses it.
pub struct Pausable {
    /// The source, made before anything was begun.
    pub first: Box<dyn Source>,
    /// Makes it again.
    pub make: Make,
    /// Whether it is to wait. The source goes on as it is once the sender is gone.
    pub wish: watch::Receiver<bool>,
}

/// Why a run of the source, or a pause, ended.
enum Told {
    ToDrain,
    AsWished,
}

impl Source for Pausable {
    fn run(
        self: Box<Self>,
        inbox: Arc<dyn Accept>,
        state: SourceState,
        drain: Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(async move {
            let Self { first, make, mut wish } = *self;
            let mut made = Some(first);
            let mut backoff = Backoff::new();
            while !drain.is_draining() {
                if *wish.borrow_and_update() {
                    // Its address is free from here on.
                    drop(made.take());
                    state.paused(true);
                    if let Told::ToDrain = told(&mut wish, false, &drain).await {
                        return Ok(());
                    }
                    state.paused(false);
                    continue;
                }
                let source = match made.take().map_or_else(&make, Ok) {
                    Ok(source) => source,
                    Err(error) => {
                        state.failed(&error);
                        backoff.wait(&drain).await;
                        continue;
                    }
                };
                backoff.reset();
                let (handle, own) = drain::channel();
                let mut run = source.run(Arc::clone(&inbox), state.clone(), own);
                let told = tokio::select! {
                    biased;
                    ended = &mut run => return ended,
                    told = told(&mut wish, true, &drain) => told,
                };
                handle.begin();
                run.await?;
                if let Told::ToDrain = told {
                    return Ok(());
                }
            }
            Ok(())
        })
    }
}

/// Waits until the wish is `paused`, or the drain has begun.
async fn told(wish: &mut watch::Receiver<bool>, paused: bool, drain: &Drain) -> Told {
    let wished = async {
        // An error means that nobody is left to wish anything.
        if wish.wait_for(|now| *now == paused).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = drain.begun() => Told::ToDrain,
        () = wished => Told::AsWished,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::event::Message;
    use crate::source::AcceptError;
    use crate::store::Acceptance;

    /// Takes nothing.
    struct Nowhere;

    impl Accept for Nowhere {
        fn accept_at(
            &self,
            _: &Arc<str>,
            _: Vec<Message>,
            _: Option<Bytes>,
        ) -> BoxFuture<'_, Result<Vec<Acceptance>, AcceptError>> {
            Box::pin(async { Err(AcceptError::Closed) })
        }

        fn cursor(&self, _: &Arc<str>) -> BoxFuture<'_, Result<Option<Bytes>, AcceptError>> {
            Box::pin(async { Ok(None) })
        }
    }

    /// Connected until it is drained; counts what was made and what is gone.
    struct Counted(Arc<Counts>);

    #[derive(Default)]
    struct Counts {
        made: AtomicUsize,
        gone: AtomicUsize,
        /// Makes that fail.
        failing: AtomicUsize,
    }

    impl Source for Counted {
        fn run(
            self: Box<Self>,
            _: Arc<dyn Accept>,
            state: SourceState,
            drain: Drain,
        ) -> BoxFuture<'static, Result<(), SourceError>> {
            Box::pin(async move {
                state.connected();
                drain.begun().await;
                state.disconnected();
                drop(self);
                Ok(())
            })
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.gone.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Rig {
        counts: Arc<Counts>,
        state: SourceState,
        wish: watch::Sender<bool>,
        handle: drain::DrainHandle,
        task: tokio::task::JoinHandle<Result<(), SourceError>>,
    }

    fn rig(paused: bool) -> Rig {
        let counts = Arc::new(Counts::default());
        let made = Arc::clone(&counts);
        let make = move || -> Result<Box<dyn Source>, SourceError> {
            let fails = made.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if fails.is_ok() {
                return Err(SourceError::InboxClosed { name: "bus".into() });
            }
            made.made.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Counted(Arc::clone(&made))))
        };
        let (wish, wished) = watch::channel(paused);
        let first = make().unwrap();
        let source = Box::new(Pausable { first, make: Box::new(make), wish: wished });
        let state = SourceState::new("bus".into(), "nats");
        let (handle, drain) = drain::channel();
        let task = tokio::spawn(source.run(Arc::new(Nowhere), state.clone(), drain));
        Rig { counts, state, wish, handle, task }
    }

    impl Rig {
        async fn until(&self, word: &str) {
            let mut changes = self.state.on_change();
            let waited = tokio::time::timeout(Duration::from_secs(60), changes.wait_for(|it| it.word() == word)).await;
            waited.unwrap_or_else(|_| panic!("it was never {word}")).unwrap();
        }

        fn lives(&self) -> usize {
            self.counts.made.load(Ordering::SeqCst) - self.counts.gone.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_paused_and_is_made_again_when_resumed() {
        let rig = rig(false);
        rig.until("connected").await;
        for times in 1..3 {
            rig.wish.send_replace(true);
            rig.until("paused").await;
            assert_eq!(rig.lives(), 0);
            rig.wish.send_replace(false);
            rig.until("connected").await;
            assert_eq!((rig.lives(), rig.counts.made.load(Ordering::SeqCst)), (1, times + 1));
        }
        rig.handle.begin();
        rig.task.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_paused_from_the_start_gives_its_place_up_and_ends_with_the_host() {
        let rig = rig(true);
        rig.until("paused").await;
        assert_eq!(rig.lives(), 0);
        rig.handle.begin();
        rig.task.await.unwrap().unwrap();
        assert_eq!(rig.state.status().word(), "paused", "the end of the host resumes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_can_not_be_made_again_tries_again() {
        let rig = rig(true);
        rig.until("paused").await;
        rig.counts.failing.store(3, Ordering::SeqCst);
        rig.wish.send_replace(false);
        rig.until("connected").await;
        assert_eq!(rig.lives(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_where_nobody_is_left_to_pause_it() {
        let Rig { wish, state, handle, task, .. } = rig(false);
        drop(wish);
        state.on_change().wait_for(|it| it.connected).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(!task.is_finished() && state.status().connected);
        handle.begin();
        task.await.unwrap().unwrap();
    }
}
