//! What larger events, several webhooks an event, other languages and another way to wait for the disk change.

use anyhow::Result;

use super::run::{Bench, Measured};
use super::scenario::{Scenario, Setting};

/// The host from JetStream in one setting, beside the plain subscriber on core NATS with the same events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variant {
    /// For the report.
    pub label: &'static str,
    /// For the line of JSON.
    pub key: &'static str,
    /// What is different.
    pub setting: Setting,
    /// One in so many of the plan's events is enough.
    share: usize,
}

impl Variant {
    /// In the order of the report; the first is what the others differ from.
    pub const ALL: [Self; 7] = [
        Self { label: "0.5 KB, Rust, full", key: "main", setting: Setting::MAIN, share: 1 },
        Self { label: "4 KB", key: "bytes_4k", setting: Setting { bytes: 4 << 10, ..Setting::MAIN }, share: 1 },
        Self { label: "64 KB", key: "bytes_64k", setting: Setting { bytes: 64 << 10, ..Setting::MAIN }, share: 8 },
        Self {
            label: "five webhooks an event",
            key: "webhooks_5",
            setting: Setting { webhooks: 5, ..Setting::MAIN },
            share: 2,
        },
        Self {
            label: "JavaScript",
            key: "javascript",
            setting: Setting { plugin: "orders-js", ..Setting::MAIN },
            share: 2,
        },
        Self {
            label: "Python",
            key: "python",
            setting: Setting { plugin: "orders-python", ..Setting::MAIN },
            share: 8,
        },
        Self {
            label: "synchronous = normal",
            key: "normal",
            setting: Setting { synchronous: "normal", ..Setting::MAIN },
            share: 1,
        },
    ];
}

/// One variant's figures.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// What was different.
    pub variant: Variant,
    /// The plain subscriber.
    pub bare: Measured,
    /// The host.
    pub host: Measured,
}

impl Pair {
    /// Webhooks a second of the host to those of the plain subscriber.
    #[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn ratio(&self) -> f64 {
        self.host.rate() as f64 / self.bare.rate().max(1) as f64
    }
}

/// Measures every variant once, with `events` events or the share of them that is enough.
pub async fn measure(bench: &Bench<'_>, events: usize) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for variant in Variant::ALL {
        let count = events / variant.share;
        let bare = bench.run(Scenario::BareCore, variant.setting, count).await?;
        let host = bench.run(Scenario::HostJetstream, variant.setting, count).await?;
        let pair = Pair { variant, bare, host };
        eprintln!("{}: {} webhooks/s, ratio {:.2}", variant.label, host.rate(), pair.ratio());
        pairs.push(pair);
    }
    Ok(pairs)
}
