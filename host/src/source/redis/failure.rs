//! Why a command failed, in the server's own words, and what to change.

use redis::{RedisError, ServerError};

/// What became of a command or a connection.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::source) enum Failure {
    /// The server answered with an error: its code and its words.
    #[error("the server says: {0}")]
    Refused(String),
    /// There was no answer.
    #[error("{0}")]
    Connection(String),
}

impl Failure {
    pub(in crate::source) fn refused(error: &ServerError) -> Self {
        Self::Refused(match error.details() {
            Some(details) => format!("{} {details}", error.code()),
            None => error.code().to_owned(),
        })
    }

    /// With the stream that it concerns, behind the server's words.
    pub(in crate::source) fn of_stream(self, key: &str) -> Self {
        match self {
            Self::Refused(words) => Self::Refused(format!("{words} (stream `{key}`)")),
            Self::Connection(words) => Self::Connection(words),
        }
    }

    /// The first word of the server's, such as `NOGROUP`.
    pub(in crate::source) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(words) => words.split(' ').next(),
            Self::Connection(_) => None,
        }
    }

    /// With what to change, where that is known. `rules` are those that an ACL needs for this kind of source.
    pub(in crate::source) fn advised(&self, rules: &str) -> String {
        match self.code().and_then(|code| advice(code, &self.to_string(), rules)) {
            Some(advice) => format!("{self}; {advice}"),
            None => self.to_string(),
        }
    }
}

fn advice(code: &str, words: &str, rules: &str) -> Option<String> {
    let advice = match code {
        "NOAUTH" => "set `password`, and `user` where the server has ACLs",
        "WRONGPASS" => "set `user` and `password` as the server has them",
        "ERR" if words.contains("AUTH") || words.contains("invalid password") => {
            "set `user` and `password` as the server has them"
        }
        "NOPERM" => return Some(format!("allow the user what this source needs: `ACL SETUSER … {rules}`")),
        "NOGROUP" => "the group is gone, and is made again",
        "WRONGTYPE" => "name streams only in `streams`",
        "MOVED" | "CROSSSLOT" | "CLUSTERDOWN" => {
            "nodes of a Redis Cluster are not followed: make one source for each stream, with the URL of its node"
        }
        "READONLY" => "it is a replica: `url` has to lead to the primary",
        "ERR" if words.contains("unknown command") => "Redis has to be 6.2 or later",
        _ => return None,
    };
    Some(advice.to_owned())
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.clone().into_server_errors() {
            Some(errors) if !errors.is_empty() => Self::refused(&errors[0].1),
            _ if error.is_timeout() => Self::Connection("the server did not answer in time".to_owned()),
            _ if error.is_connection_dropped() => Self::Connection(format!("the connection was lost: {error}")),
            _ => Self::Connection(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_change() {
        let check = |words: &str, code: &str, expected: &str| {
            let failure = Failure::Refused(words.to_owned());
            assert_eq!(failure.code(), Some(code));
            let advised = failure.advised("+subscribe");
            assert!(advised.contains(words) && advised.ends_with(expected), "{advised}");
        };
        check("NOAUTH Authentication required.", "NOAUTH", "where the server has ACLs");
        check("WRONGPASS invalid username-password pair", "WRONGPASS", "as the server has them");
        check("ERR AUTH <password> called without any password configured", "ERR", "as the server has them");
        check("NOPERM this user has no permissions", "NOPERM", "`ACL SETUSER … +subscribe`");
        check("ERR unknown command 'XAUTOCLAIM'", "ERR", "6.2 or later");
        check("MASTERDOWN Link with MASTER is down", "MASTERDOWN", "is down");
        assert_eq!(Failure::Connection("gone".to_owned()).advised("+x"), "gone");
    }
}
