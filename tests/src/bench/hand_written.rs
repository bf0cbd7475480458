//! Subscribers that somebody wrote by hand, on core NATS: the page's own in Python, two tuned ones, and one in Node.
//! Their sources and the lists of their packages are in `tests/subscribers`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tokio::process::{Child, Command};

use super::child;
use crate::artifacts;
use crate::fake_endpoint::SECRET;

const SECRET_VARIABLE: &str = "SUBSCRIBER_SECRET";

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandWritten {
    /// As the page has it: a client of httpx for each event, one event after the other.
    PythonPage,
    /// One client of httpx, 64 requests under way.
    PythonTuned,
    /// One session of aiohttp, 64 requests under way.
    PythonAiohttp,
    /// Node and undici, 64 requests under way.
    Node,
}

impl HandWritten {
    /// Starts it as a process of its own and waits until it has subscribed.
    pub async fn start(self, nats: &str, receiver: &str) -> Result<Child> {
        let mut command = self.command()?;
        command.args([nats, receiver]).env(SECRET_VARIABLE, SECRET);
        match self {
            Self::PythonPage => command.arg("page"),
            Self::PythonTuned => command.arg("tuned"),
            Self::PythonAiohttp => command.arg("aiohttp"),
            Self::Node => &mut command,
        };
        child::start(command).await
    }

    /// Why it can't be started here; `None` where it can.
    pub fn missing(self) -> Option<String> {
        self.packages().err().map(|error| format!("{error:#}"))
    }

    fn command(self) -> Result<Command> {
        let packages = self.packages()?;
        let mut command = match self {
            Self::PythonPage | Self::PythonTuned | Self::PythonAiohttp => Command::new(packages.join("bin/python")),
            Self::Node => Command::new("node"),
        };
        match self {
            Self::PythonPage | Self::PythonTuned | Self::PythonAiohttp => command.arg(source("subscriber.py")),
            Self::Node => command.arg(source("subscriber.mjs")).arg(packages),
        };
        Ok(command)
    }

    fn packages(self) -> Result<PathBuf> {
        artifacts::tool(match self {
            Self::PythonPage | Self::PythonTuned | Self::PythonAiohttp => "subscribers-python",
            Self::Node => "subscribers-js",
        })
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("subscribers").join(name)
}
