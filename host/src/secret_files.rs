//! Secrets that stand in files are read again while the host runs, so that they can be changed without a restart.
//!
//! They are read at an interval instead of being watched: a secret is often mounted through symbolic links, or from another
//! machine, where a watch on its folder tells of nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::drain::Drain;
use crate::secret::Secret;
use crate::settings::value::read_value_file;

/// How long until every file is read again. What is new in one is used once two readings found the same.
pub const READ_INTERVAL: Duration = Duration::from_secs(2);

/// How long reading every file may take before that is said.
const READING_MAX: Duration = Duration::from_secs(10);

type Adopt = Box<dyn Fn(&Secret) -> Result<(), String> + Send + Sync>;

/// A file that a secret came from, and whose it is.
pub struct SecretFile {
    endpoint: Arc<str>,
    /// From 1, in the order of the settings.
    number: usize,
    path: PathBuf,
    known: Known,
    adopt: Adopt,
}

/// What is known of a file's content.
struct Known {
    in_force: Secret,
    /// What the last reading found, where that was something else.
    last: Option<Finding>,
    /// What was already complained of.
    refused: Option<Finding>,
}

/// What a reading found.
#[derive(Clone)]
enum Finding {
    Content(Secret),
    Unreadable,
}

/// What follows a reading.
enum Step {
    /// It is as it was, or not yet settled, or was complained of.
    Nothing,
    /// Use this from now on.
    Adopt(Secret),
    /// Say that the secret that was read before goes on.
    Complain,
    /// Say that the file has the secret in force again.
    Restored,
}

impl SecretFile {
    /// The file at `path`, which has `in_force` in it, secret `number` of `endpoint`. What is new in it is given to `adopt`,
    /// which says as a predicate why it can't be used.
    pub fn new(
        (endpoint, number): (Arc<str>, usize),
        path: PathBuf,
        in_force: Secret,
        adopt: impl Fn(&Secret) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { endpoint, number, path, known: Known { in_force, last: None, refused: None }, adopt: Box::new(adopt) }
    }

    fn look(&mut self) {
        let (finding, why) = match read(&self.path) {
            Ok(secret) => (Finding::Content(secret), String::new()),
            Err(why) => (Finding::Unreadable, why),
        };
        match self.known.step(finding) {
            Step::Nothing => {}
            Step::Restored => self.say("the secret's file is as it was"),
            Step::Complain => self.complain(&why),
            Step::Adopt(secret) => match (self.adopt)(&secret) {
                Ok(()) => {
                    self.known.adopted(secret);
                    self.say("a secret has changed and is used from now on");
                }
                Err(wrong) => {
                    self.known.refused = Some(Finding::Content(secret));
                    self.complain(&format!("what is in it {wrong}"));
                }
            },
        }
    }

    fn say(&self, what: &str) {
        tracing::info!(endpoint = %self.endpoint, secret_number = self.number, path = %self.path.display(), "{what}");
    }

    fn complain(&self, why: &str) {
        tracing::error!(
            endpoint = %self.endpoint, secret_number = self.number, path = %self.path.display(), error = why,
            "a secret's file can't be used; the secret that was read before goes on"
        );
    }
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretFile").field("endpoint", &self.endpoint).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Known {
    /// A file that is being written is met half written: only what two readings found is there.
    fn step(&mut self, found: Finding) -> Step {
        if found.is(&self.in_force) {
            self.last = None;
            return if self.refused.take().is_some() { Step::Restored } else { Step::Nothing };
        }
        let is_settled = self.last.as_ref().is_some_and(|last| last.same_as(&found));
        self.last = Some(found.clone());
        if !is_settled || self.refused.as_ref().is_some_and(|refused| refused.same_as(&found)) {
            return Step::Nothing;
        }
        match found {
            Finding::Content(secret) => Step::Adopt(secret),
            Finding::Unreadable => {
                self.refused = Some(found);
                Step::Complain
            }
        }
    }

    fn adopted(&mut self, secret: Secret) {
        *self = Self { in_force: secret, last: None, refused: None };
    }
}

impl Finding {
    fn is(&self, secret: &Secret) -> bool {
        matches!(self, Self::Content(content) if content.expose() == secret.expose())
    }

    fn same_as(&self, other: &Self) -> bool {
        match other {
            Self::Content(secret) => self.is(secret),
            Self::Unreadable => matches!(self, Self::Unreadable),
        }
    }
}

/// Reads every file again and again until the drain begins.
pub async fn keep_reading(mut files: Vec<SecretFile>, drain: Drain) {
    loop {
        tokio::select! {
            () = drain.begun() => return,
            () = tokio::time::sleep(READ_INTERVAL) => {}
        }
        if files.is_empty() {
            continue;
        }
        // A file may be on a disk that hangs.
        let looked = tokio::task::spawn_blocking(move || {
            files.iter_mut().for_each(SecretFile::look);
            files
        });
        match told_where_it_hangs(looked).await {
            Ok(looked_at) => files = looked_at,
            Err(error) => {
                tracing::error!(%error, "secrets' files are no longer read again; please report this");
                return drain.begun().await;
            }
        }
    }
}

/// Waits for a reading, and says once that it takes long: until it ends, no secret is read again.
async fn told_where_it_hangs<T>(looked: tokio::task::JoinHandle<T>) -> Result<T, tokio::task::JoinError> {
    let mut looked = std::pin::pin!(looked);
    match tokio::time::timeout(READING_MAX, &mut looked).await {
        Ok(looked) => looked,
        Err(_) => {
            tracing::error!(
                deadline_s = READING_MAX.as_secs(),
                "secrets' files can't be read: their disk hangs; the secrets that were read before go on"
            );
            let looked = looked.await;
            tracing::info!("secrets' files can be read again");
            looked
        }
    }
}

fn read(path: &Path) -> Result<Secret, String> {
    match read_value_file(path) {
        Ok(text) if text.is_empty() => Err("it is empty".to_owned()),
        Ok(text) => Ok(Secret::new(text)),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn content(text: &str) -> Finding {
        Finding::Content(Secret::new(text))
    }

    /// What each of these readings leads to; a secret that begins with `bad` is refused.
    fn check(readings: &[(Finding, &str)]) {
        let mut known = Known { in_force: Secret::new("old"), last: None, refused: None };
        for (index, (finding, expected)) in readings.iter().enumerate() {
            let step = match known.step(finding.clone()) {
                Step::Nothing => "nothing",
                Step::Complain => "complain",
                Step::Restored => "restored",
                Step::Adopt(secret) if secret.expose().starts_with(b"bad") => {
                    known.refused = Some(Finding::Content(secret));
                    "refuse"
                }
                Step::Adopt(secret) => {
                    known.adopted(secret);
                    "adopt"
                }
            };
            assert_eq!(step, *expected, "reading {index}");
        }
    }

    #[test]
    fn a_new_secret_is_used_once_it_was_found_twice() {
        check(&[(content("old"), "nothing"), (content("new"), "nothing"), (content("new"), "adopt")]);
        check(&[(content("n"), "nothing"), (content("ne"), "nothing"), (content("new"), "nothing")]);
        check(&[(content("new"), "nothing"), (content("old"), "nothing"), (content("new"), "nothing")]);
    }

    #[test]
    fn what_can_not_be_used_is_told_once() {
        use Finding::Unreadable;
        check(&[
            (Unreadable, "nothing"),
            (Unreadable, "complain"),
            (Unreadable, "nothing"),
            (content("old"), "restored"),
        ]);
        check(&[
            (Unreadable, "nothing"),
            (Unreadable, "complain"),
            (content("new"), "nothing"),
            (content("new"), "adopt"),
        ]);
        check(&[(content("bad"), "nothing"), (content("bad"), "refuse"), (content("bad"), "nothing")]);
        check(&[
            (content("bad 1"), "nothing"),
            (content("bad 1"), "refuse"),
            (content("bad 2"), "nothing"),
            (content("bad 2"), "refuse"),
        ]);
        check(&[(Unreadable, "nothing"), (content("old"), "nothing"), (Unreadable, "nothing")]);
    }

    #[test]
    fn a_file_is_read_as_the_settings_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let adopted = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&adopted);
        let adopt = move |secret: &Secret| {
            keep.lock().unwrap().push(secret.expose().to_vec());
            Ok(())
        };
        let mut file = SecretFile::new(("orders".into(), 1), path.clone(), Secret::new("old"), adopt);
        for (text, looks) in [("old\n", 2), ("new\n", 1), ("new\n", 1), ("", 2), ("newer", 3)] {
            std::fs::write(&path, text).unwrap();
            (0..looks).for_each(|_| file.look());
        }
        assert_eq!(*adopted.lock().unwrap(), [b"new".to_vec(), b"newer".to_vec()]);
        assert!(!format!("{file:?}").contains("newer"));
    }
}
