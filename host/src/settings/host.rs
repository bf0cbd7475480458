//! The sections there is one of: store, retention, plugins, admin, limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use toml::de::DeValue;

use crate::budget::memory::Memory;
use crate::plugin::Grant;
use crate::plugin::limits::{LIMITS, Limits, Row, SomeLimits, Unit};

use super::backlog::backlog;
use super::endpoint::NamedEndpoint;
use super::kinds::{Setting, one_of, within};
use super::requests;
use super::route;
use super::section::{Reported, Section};
use super::show::Origin;
use super::{
    AdminSettings, Admit, BacklogSettings, LimitsSettings, MemoryReset, PluginCeiling, PluginsSettings,
    RetentionSettings, StoreSettings, Synchronous,
};

/// The default of `[store] path`.
pub const STORE_PATH: &str = "wirehook.db";
/// The default of `[store] free_bytes_min`.
pub const FREE_BYTES_MIN: ByteSize = ByteSize::mib(256);
/// The least and the most of `[store] free_bytes_min`.
pub const FREE_BYTES_MIN_BOUNDS: (ByteSize, ByteSize) = (ByteSize::b(0), ByteSize::tib(1));
/// The default of `[plugins] dir`.
pub const PLUGINS_DIR: &str = "plugins";
/// The default of `[admin] listen`.
pub const ADMIN_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7465);
/// The default of `[limits] event`.
pub const EVENT_SIZE: ByteSize = ByteSize::mib(1);
/// The least and the most of `[limits] event`.
pub const EVENT_SIZE_BOUNDS: (ByteSize, ByteSize) = (ByteSize::kib(1), ByteSize::mib(64));
/// The default of `[limits] drain_deadline`.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// The least and the most of `[limits] memory_bytes_max`.
pub const MEMORY_BOUNDS: (ByteSize, ByteSize) = (ByteSize::mib(1), ByteSize::tib(16));
/// The most of `[limits] drain_deadline`.
pub const DRAIN_DEADLINE_MAX: Duration = Duration::from_hours(1);
/// The least and the most of every age in `[retention]`.
pub const RETENTION_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10 * 31_557_600));
/// The most of `[plugins] workers`.
pub const WORKERS_MAX: u64 = 1024;
/// The default of `[plugins] http_workers`.
pub const HTTP_WORKERS: u64 = 16;
/// The most of `[plugins] http_workers`.
pub const HTTP_WORKERS_MAX: u64 = 256;
/// The default of `[plugins] compile_cpu`: the largest plugins seen take 8 s.
pub const COMPILE_CPU: Duration = Duration::from_secs(120);
/// The least and the most of `[plugins] compile_cpu`; the kernel counts it in whole seconds.
pub const COMPILE_CPU_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));

/// The default of `[retention] max_bytes`.
pub const RETENTION_SIZE: ByteSize = ByteSize::gib(10);
/// The least and the most of `[retention] max_bytes`.
pub const RETENTION_SIZE_BOUNDS: (ByteSize, ByteSize) = (ByteSize::mib(1), ByteSize::pib(1));

/// The default of `[retention] dead_max_bytes`: `max_bytes` divided by this.
pub const DEAD_LETTERS_SHARE: u64 = 4;
/// The least and the most of `[retention] dead_max_bytes`.
pub const DEAD_SIZE_BOUNDS: (ByteSize, ByteSize) = (ByteSize::kib(64), ByteSize::pib(1));

const NAME_LEN_MAX: usize = 64;

pub(super) fn store(section: &Section<'_>) -> Result<StoreSettings, Reported> {
    let path = section.or_default("path", STORE_PATH.to_owned());
    let synchronous = section.or_default("synchronous", Synchronous::Full);
    let free_bytes_min = section.or_default_if(
        "free_bytes_min",
        FREE_BYTES_MIN,
        within(FREE_BYTES_MIN_BOUNDS.0, FREE_BYTES_MIN_BOUNDS.1),
    );
    section.finish();
    Ok(StoreSettings {
        path: section.context.path(&path?),
        synchronous: synchronous?,
        free_bytes_min: free_bytes_min?.as_u64(),
    })
}

pub(super) fn retention(section: &Section<'_>) -> Result<RetentionSettings, Reported> {
    let age = |key, hours| {
        section.or_default_if(key, Duration::from_hours(hours), within(RETENTION_BOUNDS.0, RETENTION_BOUNDS.1))
    };
    let (delivered, dead, dedup) = (age("delivered", 24), age("dead", 24 * 30), age("dedup", 24 * 7));
    let size_bounds = within(RETENTION_SIZE_BOUNDS.0, RETENTION_SIZE_BOUNDS.1);
    let bytes_max = section.or_default_if("max_bytes", RETENTION_SIZE, size_bounds);
    let share = ByteSize::b(bytes_max.as_ref().map_or(RETENTION_SIZE, |size| *size).as_u64() / DEAD_LETTERS_SHARE);
    let dead_bytes_max = section.or_default_if("dead_max_bytes", share, within(DEAD_SIZE_BOUNDS.0, DEAD_SIZE_BOUNDS.1));
    section.finish();
    Ok(RetentionSettings {
        delivered: delivered?,
        dead: dead?,
        dedup: dedup?,
        bytes_max: bytes_max?.as_u64(),
        dead_bytes_max: dead_bytes_max?.as_u64(),
    })
}

/// The longest name of a host (RFC 1035).
const HOST_NAME_LEN_MAX: usize = 253;

pub(super) fn admin(section: &Section<'_>) -> Result<(AdminSettings, usize), Reported> {
    let offset = section.get("listen").map_or(section.offset, |value| value.span().start);
    let listen = section.or_default("listen", ADMIN_LISTEN);
    let hosts = host_names(section);
    section.finish();
    Ok((AdminSettings { listen: listen?, hosts: hosts? }, offset))
}

/// With the budget of memory, for a host with so many `workers` where the settings don't say; 0 means one for each core.
pub(super) fn limits(section: &Section<'_>, workers: usize) -> Result<(LimitsSettings, usize), Reported> {
    let event = section.or_default_if("event", EVENT_SIZE, within(EVENT_SIZE_BOUNDS.0, EVENT_SIZE_BOUNDS.1));
    let deadline =
        section.or_default_if("drain_deadline", DRAIN_DEADLINE, within(Duration::from_millis(1), DRAIN_DEADLINE_MAX));
    let within_bounds = within(MEMORY_BOUNDS.0, MEMORY_BOUNDS.1);
    let memory = section.or_default_if("memory_bytes_max", memory_default(workers), within_bounds);
    section.finish();
    let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
    Ok((LimitsSettings { event_bytes_max: bytes(event?), drain_deadline: deadline? }, bytes(memory?)))
}

/// What the budget is of the memory that this process may use, each worker's plugin having the memory of the default limit.
fn memory_default(workers: usize) -> ByteSize {
    let workers = match workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let guests = workers.saturating_mul(Limits::default().memory_bytes_max);
    let bytes = Memory::of_process().budget(guests as u64);
    // In whole MiB, so that `config show` prints it as it can be written.
    ByteSize::mib(bytes >> 20)
}

/// `[plugins] workers` as it is written, before it is validated: the default of another setting follows from it.
pub(super) fn workers_written(root: &Section<'_>) -> usize {
    let Some(DeValue::Table(table)) = root.get("plugins").map(toml::Spanned::get_ref) else { return 0 };
    match table.get("workers").map(toml::Spanned::get_ref) {
        Some(DeValue::Integer(written)) => usize::from_str_radix(written.as_str(), written.radix()).unwrap_or(0),
        _ => 0,
    }
}

/// `endpoints` are those configured, where they could be read.
pub(super) fn plugins(root: &Section<'_>, endpoints: Option<&[NamedEndpoint]>) -> Result<PluginsSettings, Reported> {
    let section = root.table("plugins");
    let dir = section.or_default("dir", PLUGINS_DIR.to_owned());
    let admit = section.or_default("admit", Admit::Any);
    let workers = section.integer("workers", 0, 0..=WORKERS_MAX);
    let limits = granted_limits(&section);
    let backlog = backlog(&section, &BacklogSettings::default());
    let http_workers = section.integer("http_workers", HTTP_WORKERS, 1..=HTTP_WORKERS_MAX);
    let compile_cpu =
        section.or_default_if("compile_cpu", COMPILE_CPU, within(COMPILE_CPU_BOUNDS.0, COMPILE_CPU_BOUNDS.1));
    let memory_reset = section.or_default("memory_reset", MemoryReset::default());
    section.finish();
    let listed = ceilings(root, endpoints, &backlog.unwrap_or_default());
    let routes = route::all(root, endpoints, backlog.unwrap_or_default());
    Ok(PluginsSettings {
        dir: section.context.path(&dir?),
        dir_is_default: section.get("dir").is_none(),
        admit: admit?,
        workers: usize::try_from(workers?).unwrap_or_default(),
        limits: limits?,
        backlog: backlog?,
        http_workers: usize::try_from(http_workers?).unwrap_or_default(),
        compile_cpu: compile_cpu?,
        memory_reset: memory_reset?,
        listed: listed?,
        routes: routes?,
    })
}

/// The table `limits` of a section: the most that a plugin gets of each.
fn granted_limits(section: &Section<'_>) -> Result<SomeLimits, Reported> {
    let section = section.table("limits");
    let read: Vec<_> = LIMITS.iter().map(|row| section.limit(row)).collect();
    section.finish();
    let mut limits = SomeLimits::default();
    for (row, value) in LIMITS.iter().zip(read) {
        if let Some(value) = value? {
            limits.set(row.limit, value);
        }
    }
    Ok(limits)
}

impl Section<'_> {
    fn limit(&self, row: &'static Row) -> Result<Option<u64>, Reported> {
        let Some(value) = self.get(row.name) else { return Ok(None) };
        let offset = value.span().start;
        let (read, found, origin) = match value.get_ref() {
            DeValue::Integer(written) => {
                let number = i64::from_str_radix(written.as_str(), written.radix()).unwrap_or(i64::MAX);
                let found = format!(": found `{}`", written.as_str());
                (row.read_integer(number), found, Origin::Settings(self.context.at_line(offset)))
            }
            _ => {
                let found = self.resolve(row.name, value)?;
                (row.read_text(&found.text), found.quoted(false), found.origin)
            }
        };
        let read = read.map_err(|fault| self.refuse(row.name, offset, fault + &found, row.what))?;
        let shown = match row.unit {
            Unit::Count => read.into(),
            Unit::Duration | Unit::Size => row.plain(read).into(),
        };
        self.show(row.name, shown, origin);
        Ok(Some(read))
    }
}

fn ceilings(
    root: &Section<'_>,
    endpoints: Option<&[NamedEndpoint]>,
    waiting: &BacklogSettings,
) -> Result<Vec<PluginCeiling>, Reported> {
    let mut names = Names::default();
    let ceilings: Vec<_> =
        root.tables("plugin")?.iter().map(|section| ceiling(section, &mut names, endpoints, waiting)).collect();
    ceilings.into_iter().collect()
}

fn ceiling(
    section: &Section<'_>,
    names: &mut Names,
    endpoints: Option<&[NamedEndpoint]>,
    waiting: &BacklogSettings,
) -> Result<PluginCeiling, Reported> {
    let name = names.read(section);
    let sha256 = section.optional::<HexDigest>("sha256");
    let granted = section.list::<Name>("endpoints");
    let grants = section.list::<Grant>("grants");
    let limits = granted_limits(section);
    let backlog = backlog(section, waiting);
    let configured = |name: &Name| endpoints.is_none_or(|all| all.iter().any(|endpoint| endpoint.name == name.0));
    for unknown in granted.iter().flatten().filter(|name| !configured(name)) {
        let offset = section.get("endpoints").map_or(section.offset, |value| value.span().start);
        let message = format_args!("names the endpoint `{}`, which is not configured", unknown.0);
        section.refuse("endpoints", offset, message, "add an [[endpoint]] of that name or remove it here");
    }
    let http = requests::all(section, grants.as_deref().unwrap_or_default());
    section.finish();
    Ok(PluginCeiling {
        name: name?,
        sha256: sha256?.map(|digest| digest.0),
        endpoints: granted?.into_iter().map(|name| name.0).collect(),
        grants: grants?.into_iter().collect(),
        limits: limits?,
        backlog: backlog?,
        http: http?,
    })
}

/// The names of one kind of section: each valid, none twice.
#[derive(Default)]
pub(super) struct Names(Vec<(Arc<str>, String)>);

impl Names {
    pub(super) fn read(&mut self, section: &Section<'_>) -> Result<Arc<str>, Reported> {
        let name = section.required::<Name>("name")?.0;
        let offset = section.get("name").map_or(section.offset, |value| value.span().start);
        if let Some((_, first)) = self.0.iter().find(|(known, _)| *known == name) {
            let message = format_args!("is taken: {first} has the same name");
            return Err(section.refuse("name", offset, message, "give each a name of its own"));
        }
        self.0.push((name.clone(), section.context.at_line(offset)));
        Ok(name)
    }
}

/// `hosts`: the names that requests to a listener may be for.
pub(super) fn host_names(section: &Section<'_>) -> Result<Vec<String>, Reported> {
    Ok(section.list::<HostName>("hosts")?.into_iter().map(|name| name.0).collect())
}

/// A name as it stands in the header `Host`, without the port.
struct HostName(String);

impl Setting for HostName {
    const EXPECTED: &'static str = "write a name without scheme and port, such as \"wirehook.internal\"";

    fn read(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > HOST_NAME_LEN_MAX || !name.bytes().all(valid) {
            return Err("is not the name of a host".to_owned());
        }
        Ok(Self(name))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A name of a source, an endpoint or a plugin.
pub(super) struct Name(pub(super) Arc<str>);

impl Setting for Name {
    const EXPECTED: &'static str = "a name is 1 to 64 of a-z, 0-9, `_` and `-`";

    fn read(text: &str) -> Result<Self, String> {
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        if text.is_empty() || text.len() > NAME_LEN_MAX || !text.bytes().all(valid) {
            return Err("is not a name".to_owned());
        }
        Ok(Self(text.into()))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Setting for Grant {
    const EXPECTED: &'static str = "there are `state` and `http`";

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| "is no grant".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

struct HexDigest(String);

impl Setting for HexDigest {
    const EXPECTED: &'static str = "write what `sha256sum plugin.wasm` prints";

    fn read(text: &str) -> Result<Self, String> {
        match hex::decode(text) {
            Ok(bytes) if bytes.len() == 32 => Ok(Self(text.to_ascii_lowercase())),
            _ => Err("is not a SHA-256 of 64 hex digits".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

const SYNCHRONOUS: &[(&str, Synchronous)] = &[("full", Synchronous::Full), ("normal", Synchronous::Normal)];
const ADMIT: &[(&str, Admit)] = &[("any", Admit::Any), ("listed", Admit::Listed)];

const MEMORY_RESET: &[(&str, MemoryReset)] = &[("written", MemoryReset::Written), ("all", MemoryReset::All)];

impl Setting for MemoryReset {
    const EXPECTED: &'static str = "";

    fn read(text: &str) -> Result<Self, String> {
        one_of(text, MEMORY_RESET)
    }

    fn show(&self) -> String {
        match self {
            Self::Written => "written".to_owned(),
            Self::All => "all".to_owned(),
        }
    }
}

impl Setting for Synchronous {
    const EXPECTED: &'static str = "";

    fn read(text: &str) -> Result<Self, String> {
        one_of(text, SYNCHRONOUS)
    }

    fn show(&self) -> String {
        match self {
            Self::Full => "full".to_owned(),
            Self::Normal => "normal".to_owned(),
        }
    }
}

impl Setting for Admit {
    const EXPECTED: &'static str = "";

    fn read(text: &str) -> Result<Self, String> {
        one_of(text, ADMIT)
    }

    fn show(&self) -> String {
        match self {
            Self::Any => "any".to_owned(),
            Self::Listed => "listed".to_owned(),
        }
    }
}
