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

/// Where a subscriber's language is, and which way of its script it is.
struct Script {
    program: &'static str,
    packages: &'static str,
    way: Option<&'static str>,
}

impl HandWritten {
    fn script(self) -> Script {
        let python = |way| Script { program: "subscriber.py", packages: "subscribers-python", way: Some(way) };
        match self {
            Self::PythonPage => python("page"),
            Self::PythonTuned => python("tuned"),
            Self::PythonAiohttp => python("aiohttp"),
            Self::Node => Script { program: "subscriber.mjs", packages: "subscribers-js", way: None },
        }
    }

    /// Starts it as a process of its own and waits until it has subscribed.
    pub async fn start(self, nats: &str, receiver: &str) -> Result<Child> {
        let Script { program, way, .. } = self.script();
        let (packages, program) = (self.packages()?, source(program));
        let mut command = match self {
            Self::Node => Command::new("node"),
            _ => Command::new(packages.join("bin/python")),
        };
        command.arg(program);
        if self == Self::Node {
            command.arg(packages);
        }
        command.args([nats, receiver]).args(way).env(SECRET_VARIABLE, SECRET);
        child::start(command).await
    }

    /// Why it can't be started here; `None` where it can.
    pub fn missing(self) -> Option<String> {
        self.packages().err().map(|error| format!("{error:#}"))
    }

    fn packages(self) -> Result<PathBuf> {
        artifacts::tool(self.script().packages)
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("subscribers").join(name)
}
