//! What PostgreSQL's errors mean, in words, and what to change.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

/// An error with the server's own words, its SQLSTATE and what to change.
pub(crate) fn explain(error: &Error) -> String {
    match error.as_db_error() {
        Some(said) => server_said(said),
        None => chain(error),
    }
}

/// [`explain`] for what happens before the server has let the client in.
pub(super) fn connect_error(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return server_said(said);
    }
    let text = chain(error);
    if let Some(advice) = crate::tls::cause(error).and_then(crate::tls::advice) {
        return format!("{text}; {advice}");
    }
    let hint = if text.contains("password missing") {
        "; the server asks for a password: set `password`"
    } else if text.contains("server does not support TLS") {
        "; turn on `ssl` at the server, or write sslmode=disable in `url`"
    } else {
        ""
    };
    format!("{text}{hint}")
}

/// The library's words for the kind of error, and each cause.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn server_said(said: &DbError) -> String {
    let mut text = format!("the server says: {} (SQLSTATE {})", said.message(), said.code().code());
    for more in [said.detail(), said.hint(), hint(said.code(), said.message())].into_iter().flatten() {
        text = format!("{text}; {more}");
    }
    text
}

/// What to change.
fn hint(code: &SqlState, words: &str) -> Option<&'static str> {
    Some(match *code {
        SqlState::INVALID_PASSWORD => "set the role's `password`, and the role in `url`",
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "set the role in `url`; pg_hba.conf at the server decides who may connect from where, and whether without TLS"
        }
        SqlState::INVALID_CATALOG_NAME => "set the database in `url`",
        SqlState::TOO_MANY_CONNECTIONS => "raise max_connections at the server, or let others go",
        SqlState::CANNOT_CONNECT_NOW => "it is starting, stopping or recovering, and is tried again",
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN => "it is stopping, or its operator ended the connection",
        // PgBouncer's words come with this code and no other.
        SqlState::PROTOCOL_VIOLATION if words.contains("statement pooling") => {
            "pool by transaction or by session: write pool_mode = transaction at the pooler"
        }
        SqlState::PROTOCOL_VIOLATION if words.contains("parameter") => {
            "it is a pooler's: leave `options` out of `url`, or have the pooler pass it (PgBouncer: ignore_startup_parameters)"
        }
        SqlState::PROTOCOL_VIOLATION => "is it a pooler? connect to the server itself, or pool by session",
        SqlState::INVALID_SQL_STATEMENT_NAME | SqlState::DUPLICATE_PSTATEMENT => {
            "a pooler in between gives each transaction another session; connect to the server itself, or pool by session"
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => "a standby can't LISTEN: name the primary in `url`",
        SqlState::QUERY_CANCELED => "it took too long, or its operator cancelled it",
        SqlState::UNDEFINED_TABLE | SqlState::INVALID_SCHEMA_NAME => "set `table`, and the database in `url`",
        _ => return None,
    })
}
