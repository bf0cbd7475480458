//! The wish to stop: begun once by its owner, seen by everyone who holds a [`Drain`].

use std::future::Future;

use tokio::sync::watch;

/// The owner's side. Dropping it begins the drain too: nobody would be left to do so.
#[derive(Debug)]
pub struct DrainHandle {
    begun: watch::Sender<bool>,
}

/// Tells whether the drain has begun. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain {
    begun: watch::Receiver<bool>,
}

/// A drain that has not begun, and the handle that begins it.
pub fn channel() -> (DrainHandle, Drain) {
    let (sender, receiver) = watch::channel(false);
    (DrainHandle { begun: sender }, Drain { begun: receiver })
}

impl DrainHandle {
    /// Begins the drain; beginning it again changes nothing.
    pub fn begin(&self) {
        self.begun.send_replace(true);
    }
}

impl Drain {
    /// Resolves when the drain begins, at once where it has begun.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        let mut begun = self.begun.clone();
        async move {
            // An error means that the handle is gone, which begins the drain.
            let _ = begun.wait_for(|begun| *begun).await;
        }
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        *self.begun.borrow() || self.begun.has_changed().is_err()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn begins_once_for_everyone() {
        let (handle, drain) = channel();
        let other = drain.clone();
        assert!(!drain.is_draining());
        assert!(other.begun().now_or_never().is_none());
        handle.begin();
        handle.begin();
        assert!(drain.is_draining() && other.is_draining());
        assert!(drain.begun().now_or_never().is_some());
        assert!(drain.begun().now_or_never().is_some());
    }

    #[test]
    fn a_dropped_handle_begins_it() {
        let (handle, drain) = channel();
        drop(handle);
        assert!(drain.is_draining());
        assert!(drain.begun().now_or_never().is_some());
    }
}
