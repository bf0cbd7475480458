//! What the operator says of an endpoint's statuses: which are tried again, which are final.

use std::fmt;
use std::str::FromStr;

/// The most statuses and classes that one list may name.
pub const STATUSES_MAX: usize = 64;

/// What becomes of a delivery that was answered a status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is tried again.
    Retried,
    /// It is a dead letter.
    Final,
}

/// One status, or a class of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StatusPattern {
    /// All of a class: 3 to 5, where 5 is everything from 500.
    Class(u16),
    /// One.
    One(u16),
}

/// Not a status that an operator can decide about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is neither a status from 300 to 599 nor \"3xx\", \"4xx\" or \"5xx\"")]
pub struct NoPattern;

impl StatusPattern {
    /// One status. 1xx is no answer and 2xx always a delivery: nothing can be said of those.
    pub fn one(status: u16) -> Result<Self, NoPattern> {
        if (300..=599).contains(&status) { Ok(Self::One(status)) } else { Err(NoPattern) }
    }
}

impl FromStr for StatusPattern {
    type Err = NoPattern;

    fn from_str(text: &str) -> Result<Self, NoPattern> {
        match text.to_ascii_lowercase().as_str() {
            "3xx" => Ok(Self::Class(3)),
            "4xx" => Ok(Self::Class(4)),
            "5xx" => Ok(Self::Class(5)),
            digits => digits.parse().map_err(|_| NoPattern).and_then(Self::one),
        }
    }
}

impl fmt::Display for StatusPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(f, "{class}xx"),
            Self::One(status) => write!(f, "{status}"),
        }
    }
}

/// Statuses whose fate the operator decides. A single status goes before its class.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Statuses {
    retried: Vec<StatusPattern>,
    finals: Vec<StatusPattern>,
}

impl Statuses {
    /// Fails with what is in both lists: only one can hold.
    pub fn new(retried: Vec<StatusPattern>, finals: Vec<StatusPattern>) -> Result<Self, StatusPattern> {
        match retried.iter().find(|pattern| finals.contains(pattern)) {
            Some(both) => Err(*both),
            None => Ok(Self { retried, finals }),
        }
    }

    /// What the operator says of `status`, if anything.
    pub fn fate(&self, status: u16) -> Option<Fate> {
        let patterns = [StatusPattern::One(status), StatusPattern::Class((status / 100).min(5))];
        patterns.iter().find_map(|pattern| {
            let retried = self.retried.contains(pattern).then_some(Fate::Retried);
            retried.or(self.finals.contains(pattern).then_some(Fate::Final))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(retried: &[&str], finals: &[&str]) -> Result<Statuses, StatusPattern> {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Statuses::new(read(retried), read(finals))
    }

    #[test]
    fn a_status_goes_before_its_class() {
        let said = statuses(&["4xx", "503"], &["400", "5xx", "302"]).unwrap();
        let check = |status, expected| assert_eq!(said.fate(status), expected, "{status}");
        check(400, Some(Fate::Final));
        check(401, Some(Fate::Retried));
        check(410, Some(Fate::Retried));
        check(500, Some(Fate::Final));
        check(503, Some(Fate::Retried));
        check(700, Some(Fate::Final));
        check(302, Some(Fate::Final));
        check(301, None);
        check(100, None);
        check(0, None);
    }

    #[test]
    fn what_can_not_be_decided_is_refused() {
        for text in ["200", "2xx", "100", "1xx", "600", "6xx", "xx", "", "5x", "-1", "4 xx"] {
            assert_eq!(text.parse::<StatusPattern>(), Err(NoPattern), "{text}");
        }
        assert_eq!(statuses(&["5xx", "409"], &["409"]), Err(StatusPattern::One(409)));
    }
}
