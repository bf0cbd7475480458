//! What a receiver answers: one status, or one after another for each webhook.

use std::collections::{HashMap, VecDeque};
use std::str::FromStr;
use std::sync::Arc;

use http::StatusCode;

/// The longest script.
pub const SCRIPT_STATUSES_MAX: usize = 64;

/// Webhooks remembered; the oldest is forgotten first, and begins the script again.
pub const WEBHOOKS_REMEMBERED_MAX: usize = 65_536;

/// The longest `webhook-id` remembered, in bytes.
pub const WEBHOOK_ID_BYTES_MAX: usize = 256;

/// The statuses a webhook meets, one an attempt; the last one stays. `503,503,200` fails twice, then succeeds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script(Vec<StatusCode>);

/// A script that can't be followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScriptError {
    /// One of its parts.
    #[error("`{0}` is not a status from 200 to 999; write them as 503,503,200")]
    Status(String),
    /// Too many parts.
    #[error("a script has at most {SCRIPT_STATUSES_MAX} statuses")]
    Length,
}

impl Script {
    /// The answer to attempt number `attempt` (from 1) of one webhook.
    pub fn answer(&self, attempt: u32) -> StatusCode {
        let position = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        self.0.get(position).or(self.0.last()).copied().unwrap_or(StatusCode::OK)
    }
}

impl Default for Script {
    /// Always 200.
    fn default() -> Self {
        Self(vec![StatusCode::OK])
    }
}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let statuses = text.split(',').map(|part| {
            let status = part.trim().parse().ok().filter(|status: &StatusCode| status.as_u16() >= 200);
            status.ok_or_else(|| ScriptError::Status(part.trim().to_owned()))
        });
        let statuses: Vec<_> = statuses.take(SCRIPT_STATUSES_MAX + 1).collect::<Result<_, _>>()?;
        if statuses.len() > SCRIPT_STATUSES_MAX { Err(ScriptError::Length) } else { Ok(Self(statuses)) }
    }
}

/// How often each webhook was seen, as far back as memory goes.
#[derive(Debug, Default)]
pub(super) struct Seen {
    attempts: HashMap<Arc<str>, u32>,
    oldest_first: VecDeque<Arc<str>>,
}

impl Seen {
    /// Counts one more attempt of `id` and returns its number, from 1.
    pub(super) fn attempt(&mut self, id: &str) -> u32 {
        if id.len() > WEBHOOK_ID_BYTES_MAX {
            return 1;
        }
        if let Some(attempts) = self.attempts.get_mut(id) {
            *attempts = attempts.saturating_add(1);
            return *attempts;
        }
        if self.oldest_first.len() >= WEBHOOKS_REMEMBERED_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.attempts.remove(&oldest);
        }
        let id: Arc<str> = id.into();
        self.oldest_first.push_back(Arc::clone(&id));
        self.attempts.insert(id, 1);
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(script: &str, expected: [u16; 4]) {
        let script: Script = script.parse().unwrap();
        assert_eq!([1, 2, 3, u32::MAX].map(|attempt| script.answer(attempt).as_u16()), expected);
    }

    #[test]
    fn the_last_status_stays() {
        check("200", [200; 4]);
        check("503, 503, 200", [503, 503, 200, 200]);
        check("503,200,410,302", [503, 200, 410, 302]);
        assert_eq!(Script::default().answer(7), StatusCode::OK);
    }

    #[test]
    fn what_is_no_script() {
        for (text, part) in [("", ""), ("503,", ""), ("abc", "abc"), ("100", "100"), ("99", "99"), ("2000", "2000")] {
            assert_eq!(text.parse::<Script>(), Err(ScriptError::Status(part.to_owned())));
        }
        assert_eq!(["200"; 65].join(",").parse::<Script>(), Err(ScriptError::Length));
        assert!(["200"; 64].join(",").parse::<Script>().is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        assert_eq!([seen.attempt("first"), seen.attempt("first")], [1, 2]);
        for number in 0..WEBHOOKS_REMEMBERED_MAX {
            seen.attempt(&format!("msg_{number}"));
        }
        assert_eq!(seen.attempts.len(), WEBHOOKS_REMEMBERED_MAX);
        assert_eq!(seen.oldest_first.len(), WEBHOOKS_REMEMBERED_MAX);
        assert_eq!(seen.attempt("first"), 1, "it was the oldest");
        let long = "x".repeat(WEBHOOK_ID_BYTES_MAX + 1);
        assert_eq!([seen.attempt(&long), seen.attempt(&long)], [1, 1]);
    }
}
