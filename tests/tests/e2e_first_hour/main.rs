//! What somebody meets first: events of others, routes, a settings file from three answers.

mod events;
mod routes;
mod watch;
mod backfill;
