//! Tries to reach the machine by every way that std has, and reports how each went: `refused: …` or `allowed: …`.
//!
//! The entity's `connect` is the address to connect to, `file` the file to open.

use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use serde::Deserialize;
use serde_json::json;
use wirehook_sdk::{Event, Failure, Webhook};

#[derive(Deserialize)]
struct Target {
    connect: String,
    file: String,
}

fn outcome(result: io::Result<String>) -> String {
    match result {
        Ok(what) => format!("allowed: {what}"),
        Err(error) => format!("refused: {error}"),
    }
}

fn present(count: usize) -> String {
    if count == 0 { "refused: none".to_owned() } else { format!("allowed: {count}") }
}

fn on_event(event: Event<Target>) -> Result<Vec<Webhook>, Failure> {
    let target = event.entity()?;
    Ok(vec![Webhook::json(&json!({
        "open_file": outcome(std::fs::read(&target.file).map(|bytes| format!("{} bytes", bytes.len()))),
        "create_file": outcome(std::fs::write("probe.txt", "probe").map(|()| "written".to_owned())),
        "list_root": outcome(std::fs::read_dir("/").map(|entries| format!("{} entries", entries.count()))),
        "connect_tcp": outcome(TcpStream::connect(&target.connect).map(|_| "connected".to_owned())),
        "listen_tcp": outcome(TcpListener::bind("127.0.0.1:0").map(|_| "listening".to_owned())),
        "bind_udp": outcome(UdpSocket::bind("127.0.0.1:0").map(|_| "bound".to_owned())),
        "resolve_name": outcome("localhost:80".to_socket_addrs().map(|found| format!("{} addresses", found.count()))),
        "variables": present(std::env::vars().count()),
        "arguments": present(std::env::args().count()),
        "stdin": present(std::io::stdin().lines().count()),
    }))?])
}

wirehook_sdk::export!(on_event);
