//! FraiseQL's own publishers, a command each. What they put on a bus is theirs to the last byte.
//!
//! As in FraiseQL's tests, `DATABASE_URL` and `NATS_URL` say where; a plain-text server on loopback also needs
//! `FRAISEQL_ENV=development`, `FRAISEQL_NATS_ALLOW_PLAINTEXT=true` and `FRAISEQL_OBSERVERS_ALLOW_INSECURE=true`.

mod cdc;
mod ddl;
mod observers;

use std::env;

use anyhow::{Context, Result, bail};
use sqlx::postgres::{PgPool, PgPoolOptions};

/// Connections to the database: the bridge listens on one and works on another.
const CONNECTIONS_MAX: u32 = 4;

const USAGE: &str = "usage: fraiseql-publishers
  ddl                                print FraiseQL's own tables, functions and policies
  cdc-drain STREAM TEMPLATE TICKS    drain the outbox into a stream, so many times; a line of JSON each
  nats-transport STREAM PREFIX       publish each line of standard input, an EntityEvent
  nats-bridge STREAM PREFIX          publish the outbox as EntityEvents until standard input ends";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ddl"] => ddl::print(),
        ["cdc-drain", stream, template, ticks] => cdc::drain(stream, template, ticks.parse().context(USAGE)?).await,
        ["nats-transport", stream, prefix] => observers::transport(stream, prefix).await,
        ["nats-bridge", stream, prefix] => observers::bridge(stream, prefix).await,
        _ => bail!(USAGE),
    }
}

fn nats_url() -> Result<String> {
    env::var("NATS_URL").context("NATS_URL must name the server")
}

async fn pool() -> Result<PgPool> {
    let url = env::var("DATABASE_URL").context("DATABASE_URL must name the database")?;
    PgPoolOptions::new().max_connections(CONNECTIONS_MAX).connect(&url).await.context("connecting to the database")
}
