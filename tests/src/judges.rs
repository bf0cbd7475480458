//! The libraries that receivers use, as judges of our signatures: they share no code with them.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::artifacts;
use crate::fake_endpoint::Received;

/// For all the cases of one judge.
const DEADLINE: Duration = Duration::from_secs(60);

/// A request to be judged.
#[derive(Clone, Debug)]
pub struct Case {
    /// Which of the judge's verifiers.
    pub verifier: &'static str,
    /// What arrived.
    pub request: Received,
    /// What the verifier knows.
    pub secret: String,
    /// Where the signature stands, for verifiers that are told.
    pub header: Option<&'static str>,
}

/// Who judges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judge {
    /// `standardwebhooks`, `stripe` and `github` from npm, `ed25519` of node itself.
    Node,
    /// `standardwebhooks` from PyPI.
    Python,
    /// FraiseQL's own receivers, each by its name there.
    Fraiseql,
}

impl Judge {
    /// Judges every case now, and says of each `ok`, or why not.
    pub async fn verdicts(self, cases: &[Case]) -> Result<Vec<String>> {
        let lines: String = cases.iter().map(|case| format!("{}\n", case.line())).collect();
        let mut child = self.command()?.spawn().with_context(|| format!("starting {self:?}"))?;
        let mut input = child.stdin.take().context("its standard input")?;
        // Writing and reading go on together: either pipe may fill up first.
        let feed = async move { input.write_all(lines.as_bytes()).await };
        let work = async { tokio::join!(feed, child.wait_with_output()) };
        let (_, output) =
            tokio::time::timeout(DEADLINE, work).await.with_context(|| format!("{self:?} took too long"))?;
        let output = output?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{self:?} ended with {}: {said}", output.status);
        let verdicts: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        ensure!(verdicts.len() == cases.len(), "{self:?} judged {} of {} cases: {said}", verdicts.len(), cases.len());
        Ok(verdicts)
    }

    /// Fails unless it accepts every case, and refuses it with any other secret.
    pub async fn accepts_all(self, cases: &[Case], other_secret: impl Fn(&Case) -> String) -> Result<()> {
        for (case, verdict) in cases.iter().zip(self.verdicts(cases).await?) {
            ensure!(verdict == "ok", "{self:?} refuses {case:?}: {verdict}");
        }
        let forged: Vec<_> = cases.iter().map(|case| Case { secret: other_secret(case), ..case.clone() }).collect();
        for (case, verdict) in forged.iter().zip(self.verdicts(&forged).await?) {
            ensure!(verdict != "ok", "{self:?} accepts {case:?} by another secret");
        }
        Ok(())
    }

    fn command(self) -> Result<Command> {
        let mut command = match self {
            Self::Node => {
                let mut node = Command::new("node");
                node.arg(script("judge.mjs")).arg(artifacts::tool("verifiers-js")?);
                node
            }
            Self::Python => {
                let mut python = Command::new(artifacts::tool("verifiers-python")?.join("bin/python"));
                python.arg(script("judge.py"));
                python
            }
            Self::Fraiseql => Command::new(artifacts::fraiseql_receiver()?),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Ok(command)
    }
}

impl Case {
    fn line(&self) -> Value {
        let headers: Map<String, Value> =
            self.request.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        json!({
            "judge": self.verifier, "headers": headers, "body_base64": STANDARD.encode(&self.request.body),
            "secret": self.secret, "header": self.header,
        })
    }
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("verifiers").join(name)
}
