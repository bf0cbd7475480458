//! Settings are data: read, validated once, and refused with the line where they are wrong.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use url::Url;

use crate::delivery::RetryPolicy;
use crate::dispatcher::gate::GatePolicy;
use crate::plugin::Grant;
use crate::plugin::limits::SomeLimits;
use crate::secret::Secret;
use crate::store::BacklogBounds;

pub mod load;
pub mod error;
pub mod show;
pub mod encoded;
pub mod bus_url;
pub(crate) mod postgres_url;
pub mod observers;
mod text;
mod section;
mod servers;
mod kinds;
pub mod value;
pub mod host;
pub mod source;
pub mod route;
pub mod egress;
pub mod endpoint;
pub mod backlog;
mod signature;
pub mod retry;
pub mod gate;
pub mod access;
pub mod requests;

pub use error::{Problem, SettingsError};
pub use load::{
    Environment, Loaded, LoadedSources, find, load, load_endpoint_names, load_observed, load_plugins, load_sources,
    load_store, parse,
};
pub use route::{ROUTE_PREFIX, RouteBody, RouteSettings};
pub use show::{Origin, Shown};
pub use signature::{SchemeName, SignatureScheme, SigningSecret};
pub use source::{
    NatsConnection, OUTBOX_CHANNEL, PostgresConnection, RedisConnection, SourceKind, SourceSettings, Start, TableName,
    TlsSettings,
};

/// Everything an operator can set, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[store]`
    pub store: StoreSettings,
    /// `[retention]`
    pub retention: RetentionSettings,
    /// `[plugins]`, `[[plugin]]` and `[[route]]`
    pub plugins: PluginsSettings,
    /// `[admin]`
    pub admin: AdminSettings,
    /// `[limits]`
    pub limits: LimitsSettings,
    /// `[limits] memory_bytes_max`: what events, results and webhooks on their way may take in memory, in bytes.
    pub memory_bytes_max: usize,
    /// `[egress]`
    pub egress: EgressSettings,
    /// `[[source]]`
    pub sources: Vec<SourceSettings>,
    /// `[[endpoint]]`
    pub endpoints: Vec<EndpointSettings>,
}

/// `[store]`
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The database file; its lock, socket and compiled-code cache stand beside it.
    pub path: PathBuf,
    /// `synchronous`: `full` (default) or `normal`, which may lose the last commits in a power cut.
    pub synchronous: Synchronous,
    /// `free_bytes_min`: intake stops while less is free on the store's disk, in bytes; 0 never stops it.
    pub free_bytes_min: u64,
}

/// How often the store waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Synchronous {
    /// At every commit.
    Full,
    /// At checkpoints only: survives `kill -9`, not a power cut.
    Normal,
}

/// `[retention]`, by age and bytes.
#[derive(Clone, Debug)]
pub struct RetentionSettings {
    /// Finished events and their deliveries.
    pub delivered: Duration,
    /// Dead letters.
    pub dead: Duration,
    /// Event keys.
    pub dedup: Duration,
    /// `dead_max_bytes`: what dead letters may keep; beyond it the oldest make room.
    pub dead_bytes_max: u64,
    /// `max_bytes`: the bytes of the store above which finished events go before their age.
    pub bytes_max: u64,
}

/// `[plugins]`, `[[plugin]]` and `[[route]]`
#[derive(Clone, Debug)]
pub struct PluginsSettings {
    /// The folder with the `.wasm` files.
    pub dir: PathBuf,
    /// Whether the settings don't name it.
    pub dir_is_default: bool,
    /// Whether plugins that are not listed may run.
    pub admit: Admit,
    /// Worker threads; 0 means one for each core.
    pub workers: usize,
    /// `[plugins.limits]`: the most of each limit that a plugin gets whose `[[plugin]]` does not say.
    pub limits: SomeLimits,
    /// `[plugins.backlog]`: what may wait for a plugin whose `[[plugin]]` does not say.
    pub backlog: BacklogSettings,
    /// Further worker threads for plugins that make requests; there are none where no plugin may.
    pub http_workers: usize,
    /// CPU time that the compilation of one plugin may take, all its threads together.
    pub compile_cpu: Duration,
    /// What of an instance's memory is reset when its event has ended.
    pub memory_reset: MemoryReset,
    /// The operator's ceilings.
    pub listed: Vec<PluginCeiling>,
    /// `[[route]]`: each is a plugin of its own.
    pub routes: Vec<RouteSettings>,
}

impl PluginsSettings {
    /// Whether the folder need not be there: nobody has named it, and there are routes.
    pub fn dir_is_optional(&self) -> bool {
        self.dir_is_default && !self.routes.is_empty()
    }

    /// What may wait for this plugin.
    pub fn backlog_of(&self, plugin: &str) -> BacklogSettings {
        self.listed.iter().find(|listed| *listed.name == *plugin).map_or(self.backlog, |listed| listed.backlog)
    }
}

/// What of an instance's memory is reset when its event has ended.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum MemoryReset {
    /// What was written, as far as the kernel can tell for certain; else all.
    #[default]
    Written,
    /// All, whatever the kernel says.
    All,
}

/// Which plugins may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admit {
    /// Any file in the folder, with default limits and no capabilities.
    Any,
    /// Only those with a `[[plugin]]`.
    Listed,
}

/// `[[plugin]]`: the sidecar asks, this grants, the lesser holds.
#[derive(Clone, Debug)]
pub struct PluginCeiling {
    /// The file's stem.
    pub name: Arc<str>,
    /// The only file content admitted, as lower-case hex SHA-256.
    pub sha256: Option<String>,
    /// The endpoints it may name; empty means every configured one.
    pub endpoints: Vec<Arc<str>>,
    /// What it may reach besides, where its sidecar asks for it.
    pub grants: BTreeSet<Grant>,
    /// `[plugin.limits]`: the most of each limit that it gets.
    pub limits: SomeLimits,
    /// `[plugin.backlog]`
    pub backlog: BacklogSettings,
    /// `[[plugin.http]]`: the requests it may make, the first that fits holds.
    pub http: Vec<HttpSettings>,
}

/// `[[plugin.http]]`: requests that a plugin may make.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// What its URLs begin with, in whole segments of the path.
    pub url: Url,
    /// The methods it may use.
    pub methods: Vec<Method>,
    /// From the name's lookup to the answer's last byte.
    pub timeout: Duration,
    /// What the host adds to each, in lower case; the plugin never sees them.
    pub headers: Vec<(String, Secret)>,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Where `/healthz`, `/readyz` and `/metrics` listen.
    pub listen: SocketAddr,
    /// Names that requests may be for, besides addresses and `localhost`; in lower case.
    pub hosts: Vec<String>,
}

/// `[limits]`: bounds of the host itself.
#[derive(Clone, Debug)]
pub struct LimitsSettings {
    /// The largest message accepted, in bytes.
    pub event_bytes_max: usize,
    /// How long a drain may take before what is left stays in the store.
    pub drain_deadline: Duration,
}

/// `[egress]`
#[derive(Clone, Debug, Default)]
pub struct EgressSettings {
    /// Networks inside that endpoints may reach all the same.
    pub allow: Vec<IpNet>,
    /// By which way every connection to an endpoint is made.
    pub proxy: Option<ProxySettings>,
}

/// The proxy of `[egress]`.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// What it speaks.
    pub kind: ProxyKind,
    /// A name, or an address as it stands in a URL. It is not vetted.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who the host is to it, with `password`.
    pub user: Option<String>,
    /// `proxy_password`
    pub password: Option<Secret>,
    /// Whether it is told names, which the host then can't vet, and not addresses.
    pub resolves_names: bool,
}

/// What a proxy speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyKind {
    /// HTTP/1.1 with `CONNECT`.
    Http,
    /// SOCKS 5.
    Socks5,
}

/// `[[endpoint]]`
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// What plugins name.
    pub name: Arc<str>,
    /// Where webhooks go; `http` or `https`, no credentials in it.
    pub url: Url,
    /// Newest first. All that have not expired sign, where the scheme carries several signatures; else the first does.
    pub secrets: Vec<SigningSecret>,
    /// How requests are signed.
    pub signature: SignatureScheme,
    /// For the whole exchange: name look-up, connection, request and response body.
    pub timeout: Duration,
    /// Attempts under way at once.
    pub concurrency: usize,
    /// Sent with every request; values may be secrets. Names are lower case.
    pub headers: Vec<(String, Secret)>,
    /// `[endpoint.auth]` and `[endpoint.tls]`
    pub access: AccessSettings,
    /// `[endpoint.retry]`
    pub retry: RetryPolicy,
    /// What keeps its order on the way there.
    pub order: Order,
    /// `[endpoint.backlog]`
    pub backlog: BacklogSettings,
    /// `rate`, `disable_after` and `[endpoint.breaker]`
    pub gate: GatePolicy,
}

/// What keeps its order on the way to an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// Nothing.
    #[default]
    None,
    /// A plugin's webhooks for one entity: by the accept order of its events, then as the plugin returned them.
    Entity,
}

/// What may wait for a plugin or an endpoint; what goes beyond is a dead letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BacklogSettings {
    /// In number and size.
    pub bounds: BacklogBounds,
    /// For how long after it was due.
    pub age: Duration,
}

/// Who the host is to an endpoint, and whom it trusts there.
#[derive(Clone, Debug, Default)]
pub struct AccessSettings {
    /// `[endpoint.auth]`
    pub auth: Option<AuthSettings>,
    /// `[endpoint.tls]`; its `ca` is trusted beside the system's.
    pub tls: TlsSettings,
}

/// `[endpoint.auth]`, by its `kind`.
#[derive(Clone, Debug)]
pub enum AuthSettings {
    /// `Authorization: Bearer …`
    Bearer {
        /// `token`
        token: Secret,
    },
    /// `Authorization: Basic …`
    Basic {
        /// `user`
        user: String,
        /// `password`
        password: Secret,
    },
    /// A bearer token by client credentials.
    OAuth2(Box<OAuth2Settings>),
}

/// OAuth 2.0 client credentials.
#[derive(Clone, Debug)]
pub struct OAuth2Settings {
    /// Where tokens are fetched; `http` or `https`, no credentials in it.
    pub token_url: Url,
    /// Who the host is there.
    pub client_id: String,
    /// What only the host knows.
    pub client_secret: Secret,
    /// How both are shown.
    pub client_auth: ClientAuth,
    /// What the token is to be good for.
    pub scopes: Vec<String>,
    /// Whom it is for.
    pub audience: Option<String>,
}

/// How a client shows who it is to what gives tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientAuth {
    /// By `Authorization: Basic …`.
    Basic,
    /// In the form.
    Post,
}
