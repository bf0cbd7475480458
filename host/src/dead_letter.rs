//! What will not be tried again by itself, and why.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $name:literal ),+ $(,)?) => {
        /// Why something became a dead letter: a closed list shared by commands, metrics and documentation.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        pub enum Reason {
            $( $(#[doc = $doc])+ #[serde(rename = $name)] $variant ),+
        }

        impl Reason {
            /// Every reason, in the order of the path an event takes.
            pub const ALL: &[Self] = &[$( Self::$variant ),+];

            /// The name used in the store, in metrics and on the command line.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $name ),+ }
            }
        }
    };
}

reasons! {
    /// The message is not JSON, or a recognised format lacks what it needs.
    Undecodable = "undecodable",
    /// The message is larger than `[limits] event`.
    TooLarge = "too_large",
    /// A second message carried the key of an earlier one with another body.
    IdConflict = "id_conflict",
    /// The plugin trapped.
    PluginTrap = "plugin_trap",
    /// The plugin ran past its deadline on every try.
    PluginDeadline = "plugin_deadline",
    /// The plugin asked for more memory than its limit.
    PluginMemory = "plugin_memory",
    /// The plugin returned something that breaks a limit or is not a valid webhook.
    PluginOutput = "plugin_output",
    /// The plugin returned `failure::reject`.
    PluginRejected = "plugin_rejected",
    /// The plugin returned `failure::retry` more often than its `[retry]` allows.
    PluginRetriesExhausted = "plugin_retries_exhausted",
    /// The plugin named a header that belongs to the host.
    HeaderReserved = "header_reserved",
    /// The plugin named an endpoint that is not configured or not granted to it.
    EndpointUnknown = "endpoint_unknown",
    /// The operator forgot the plugin, which was gone, while the run was parked.
    PluginForgotten = "plugin_forgotten",
    /// The event or plugin took the host down.
    HostCrash = "host_crash",
    /// A queue with a bound overflowed.
    BacklogFull = "backlog_full",
    /// An address of the endpoint lies in a network that `[egress]` does not open.
    EgressDenied = "egress_denied",
    /// The endpoint answered a redirect, which is never followed.
    Status3xx = "status_3xx",
    /// The endpoint answered that the payload is wrong.
    Status4xx = "status_4xx",
    /// The endpoint answered 410: it is gone.
    Status410 = "status_410",
    /// The endpoint answered a 5xx that its settings say is final.
    Status5xx = "status_5xx",
    /// The endpoint answered something that is no final status: 1xx.
    StatusInvalid = "status_invalid",
    /// Every attempt the retry policy allows was made.
    AttemptsExhausted = "attempts_exhausted",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is not in the list of reasons.
#[derive(Debug, thiserror::Error)]
#[error("unknown reason `{0}`; known: {known}", known = Reason::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownReason(String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name).ok_or_else(|| UnknownReason(name.to_owned()))
    }
}
