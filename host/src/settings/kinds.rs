//! The types that a string of the settings can have: how each is read, and how `config show` prints it.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;

use super::section::{known, nearest};

/// A type that a string of the settings can have.
pub(super) trait Setting: Sized {
    /// What is expected, for help; empty where the message says it.
    const EXPECTED: &'static str;
    /// Whether errors must not repeat what was written: it may hold a password.
    const PRIVATE: bool = false;

    /// Reads it, or says what is wrong as a predicate (`is not a duration`), without repeating the text.
    fn read(text: &str) -> Result<Self, String>;

    /// The effective value, as `config show` prints it.
    fn show(&self) -> String;
}

/// A check that a value is within bounds, both included.
pub(super) fn within<T: Setting + PartialOrd>(least: T, most: T) -> impl Fn(&T) -> Result<(), String> {
    move |value| {
        if *value >= least && *value <= most {
            Ok(())
        } else {
            Err(format!("is not within {} to {}", least.show(), most.show()))
        }
    }
}

/// One of a closed list of names.
pub(super) fn one_of<T: Copy>(text: &str, names: &[(&str, T)]) -> Result<T, String> {
    names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let all: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let hint = nearest(text, &all).map(|near| format!(", did you mean `{near}`")).unwrap_or_default();
        format!("is unknown (known: {}{hint})", known(&all))
    })
}

impl Setting for String {
    const EXPECTED: &'static str = "";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "write a number and a unit, such as \"100ms\", \"15s\", \"12h\" or \"7d\"";

    fn read(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map_err(|_| "is not a duration".to_owned())
    }

    fn show(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

impl Setting for ByteSize {
    const EXPECTED: &'static str = "write a number and a unit, such as \"64KiB\" or \"1MiB\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is not a size".to_owned())
    }

    fn show(&self) -> String {
        self.display().iec().to_string()
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "write an address and a port, such as \"127.0.0.1:7465\" or \"[::1]:7465\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is not an address with a port".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for IpNet {
    const EXPECTED: &'static str = "write a network such as \"127.0.0.0/8\" or \"fd00::/8\"";

    fn read(text: &str) -> Result<Self, String> {
        let network = text.parse().or_else(|_| text.parse().map(|address: std::net::IpAddr| address.into()));
        network.map_err(|_: std::net::AddrParseError| "is not a network".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}
