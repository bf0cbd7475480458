//! What a host writes to its standard error.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStderr;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Lines kept; older ones go.
const LINES_MAX: usize = 20_000;

/// Lines of [`Logs::tail`].
const TAIL_LINES: usize = 100;

/// After the process is gone, for the rest in the pipe.
const REST_DEADLINE: Duration = Duration::from_secs(5);

/// The lines of every start of one host.
#[derive(Debug)]
pub struct Logs {
    lines: Arc<Mutex<VecDeque<String>>>,
    arrived: Arc<watch::Sender<()>>,
    reader: Option<JoinHandle<()>>,
}

impl Default for Logs {
    fn default() -> Self {
        Self { lines: Arc::default(), arrived: Arc::new(watch::Sender::new(())), reader: None }
    }
}

impl Logs {
    /// Every line kept.
    pub fn lines(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    /// The last lines, as one text.
    pub fn tail(&self) -> String {
        let lines = self.lock();
        let skipped = lines.len().saturating_sub(TAIL_LINES);
        lines.iter().skip(skipped).cloned().collect::<Vec<_>>().join("\n")
    }

    /// Waits for a line that contains `part`, among those kept or to come.
    pub async fn wait_for(&self, part: &str, deadline: Duration) -> Result<()> {
        let mut arrived = self.arrived.subscribe();
        let wait = async {
            while !self.lock().iter().any(|line| line.contains(part)) {
                arrived.changed().await.context("the logs are gone")?;
            }
            anyhow::Ok(())
        };
        let waited = tokio::time::timeout(deadline, wait).await;
        waited.with_context(|| format!("no line of the host's logs contains `{part}`:\n{}", self.tail()))?
    }

    pub(super) async fn follow(&mut self, stderr: ChildStderr) {
        self.finish().await;
        let (lines, arrived) = (self.lines.clone(), self.arrived.clone());
        self.reader = Some(tokio::spawn(async move {
            let mut source = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = source.next_line().await {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == LINES_MAX {
                    lines.pop_front();
                }
                lines.push_back(line);
                drop(lines);
                arrived.send_replace(());
            }
        }));
    }

    /// Waits until the last line of an ended process is here.
    pub(super) async fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = tokio::time::timeout(REST_DEADLINE, reader).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
