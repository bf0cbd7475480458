//! The folder of a host: settings, plugins, store.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::TestHost;
use crate::fake_endpoint::{FakeEndpoint, SECRET};
use crate::memory_group::{self, MemoryGroup};
use crate::nats_server::NatsServer;
use crate::{artifacts, port, text_guest};

const SETTINGS: &str = "wirehook.toml";
const PLUGINS: &str = "plugins";
const STORE: &str = "wirehook.db";

/// The variable that every endpoint's secret comes from.
const SECRET_VARIABLE: &str = "WIREHOOK_TEST_SECRET";

/// A plugin's file to be put into a folder.
#[derive(Clone, Debug)]
pub struct PluginFile {
    /// The file's stem there.
    pub name: String,
    /// Its content.
    pub wasm: Vec<u8>,
    /// The content of `{name}.toml`; no file where none.
    pub sidecar: Option<String>,
}

impl PluginFile {
    /// An example plugin, with the sidecar that was built beside it.
    pub fn example(name: &str) -> Result<Self> {
        Self::built(name, &artifacts::example_plugin(name)?)
    }

    /// A hostile plugin.
    pub fn hostile(name: &str) -> Result<Self> {
        Self::built(name, &artifacts::hostile_guest(name)?)
    }

    /// A hostile plugin in text.
    pub fn text(name: &str) -> Result<Self> {
        Ok(Self::of_bytes(name, &text_guest::assemble(name)?))
    }

    /// Any bytes.
    pub fn of_bytes(name: &str, wasm: &[u8]) -> Self {
        Self { name: name.to_owned(), wasm: wasm.to_vec(), sidecar: None }
    }

    /// The same with `sidecar` instead.
    pub fn with_sidecar(mut self, sidecar: &str) -> Self {
        self.sidecar = Some(sidecar.to_owned());
        self
    }

    /// The same, subscribed to `subject` only and with `endpoint` as its endpoint.
    pub fn subscribed(self, subject: &str, endpoint: &str) -> Self {
        self.with_sidecar(&format!("subjects = [{subject:?}]\nendpoints = [{endpoint:?}]\n"))
    }

    fn built(name: &str, path: &Path) -> Result<Self> {
        let wasm = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let sidecar = std::fs::read_to_string(path.with_extension("toml")).ok();
        Ok(Self { name: name.to_owned(), wasm, sidecar })
    }
}

/// Collects what goes into a folder.
#[derive(Debug, Default)]
pub struct HostFolderBuilder {
    sections: String,
    limits: String,
    egress: String,
    plugin_settings: String,
    variables: BTreeMap<String, String>,
    plugins: Vec<PluginFile>,
    parent: Option<PathBuf>,
    store_settings: String,
    open_files: Option<OpenFiles>,
    program: Option<PathBuf>,
    address_space: Option<u64>,
    memory_group: Option<PathBuf>,
}

/// The limit on open files that a host starts with.
#[derive(Clone, Copy, Debug)]
pub struct OpenFiles {
    /// What holds at first.
    pub soft: u64,
    /// The most that it may ask for.
    pub hard: u64,
}

impl HostFolderBuilder {
    /// More settings, verbatim.
    pub fn settings(mut self, text: &str) -> Self {
        self.sections.push_str(text);
        self.sections.push('\n');
        self
    }

    /// More of `[store]`.
    pub fn store_settings(mut self, text: &str) -> Self {
        self.store_settings.push_str(text);
        self.store_settings.push('\n');
        self
    }

    /// Starts every command with this limit on open files.
    pub fn open_files(mut self, limit: OpenFiles) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Starts every command with this limit on address space, in bytes.
    pub fn address_space(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// Starts every command within this group.
    pub fn memory_group(mut self, group: &MemoryGroup) -> Self {
        self.memory_group = Some(group.procs());
        self
    }

    /// More of `[plugins]`.
    pub fn plugin_settings(mut self, text: &str) -> Self {
        self.plugin_settings.push_str(text);
        self.plugin_settings.push('\n');
        self
    }

    /// More of `[limits]`.
    pub fn limits(mut self, text: &str) -> Self {
        self.limits.push_str(text);
        self.limits.push('\n');
        self
    }

    /// More of `[egress]`.
    pub fn egress(mut self, text: &str) -> Self {
        self.egress.push_str(text);
        self.egress.push('\n');
        self
    }

    /// A durable consumer of everything in `stream`, the oldest first.
    pub fn jetstream(self, server: &NatsServer, stream: &str) -> Self {
        let url = server.url();
        self.settings(&format!(
            "[[source]]\nname = \"bus\"\nkind = \"jetstream\"\nurl = {url:?}\nstream = {stream:?}\nstart = \"all\""
        ))
    }

    /// A subscription to `fraiseql.>`.
    pub fn nats(self, server: &NatsServer) -> Self {
        let url = server.url();
        self.settings(&format!(
            "[[source]]\nname = \"bus\"\nkind = \"nats\"\nurl = {url:?}\nsubjects = [\"fraiseql.>\"]"
        ))
    }

    /// `POST /events` on `port`; `extra` are more lines of the section.
    pub fn http(self, port: u16, extra: &str) -> Self {
        self.settings(&format!("[[source]]\nname = \"web\"\nkind = \"http\"\nlisten = \"127.0.0.1:{port}\"\n{extra}"))
    }

    /// JSON lines on standard input.
    pub fn stdin(self) -> Self {
        self.settings("[[source]]\nname = \"lines\"\nkind = \"stdin\"")
    }

    /// An endpoint with the secret of every fake endpoint; `extra` are more lines of the section, then subsections.
    pub fn endpoint(self, name: &str, endpoint: &FakeEndpoint, extra: &str) -> Self {
        self.endpoint_at(name, &endpoint.url(), extra)
    }

    /// The same at any URL.
    pub fn endpoint_at(self, name: &str, url: &str, extra: &str) -> Self {
        self.settings(&format!(
            "[[endpoint]]\nname = {name:?}\nurl = {url:?}\nsecret = {{ env = {SECRET_VARIABLE:?} }}\n{extra}"
        ))
    }

    /// A plugin.
    pub fn plugin(mut self, plugin: PluginFile) -> Self {
        self.plugins.push(plugin);
        self
    }

    /// A variable of the host's environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Runs this program instead of the host's binary of the running profile: another revision's.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Makes the folder within `parent` instead of the system's folder for temporary files.
    pub fn within(mut self, parent: &Path) -> Self {
        self.parent = Some(parent.to_owned());
        self
    }

    /// Writes the folder.
    pub fn build(self) -> Result<TestHost> {
        TestHost::new(self.build_folder()?)
    }

    fn build_folder(self) -> Result<HostFolder> {
        let parent = self.parent.unwrap_or_else(std::env::temp_dir);
        let root = tempfile::Builder::new().prefix("wirehook-").tempdir_in(parent)?;
        let program = self.program.map_or_else(artifacts::host_binary, Ok)?;
        let folder = HostFolder {
            admin_port: port::free()?,
            variables: self.variables,
            open_files: self.open_files,
            program,
            address_space: self.address_space,
            memory_group: self.memory_group,
            root,
        };
        std::fs::create_dir(folder.plugins())?;
        let mut settings = String::new();
        write!(settings, "[store]\npath = {STORE:?}\n{}", self.store_settings)?;
        write!(settings, "[plugins]\ndir = {PLUGINS:?}\n{}", self.plugin_settings)?;
        write!(settings, "[admin]\nlisten = \"127.0.0.1:{}\"\n", folder.admin_port)?;
        write!(settings, "[egress]\nallow = [\"127.0.0.0/8\"]\n{}", self.egress)?;
        write!(settings, "[limits]\n{}{}", self.limits, self.sections)?;
        folder.write_settings(&settings)?;
        for plugin in &self.plugins {
            folder.put_plugin(plugin)?;
        }
        Ok(folder)
    }
}

/// The folder of a host.
#[derive(Debug)]
pub struct HostFolder {
    root: TempDir,
    admin_port: u16,
    variables: BTreeMap<String, String>,
    open_files: Option<OpenFiles>,
    program: PathBuf,
    address_space: Option<u64>,
    memory_group: Option<PathBuf>,
}

impl HostFolder {
    /// A command of the host's binary, with this folder's settings and variables.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.root.path());
        command.env("WIREHOOK_CONFIG", self.settings_path()).env(SECRET_VARIABLE, SECRET).env("NO_COLOR", "1");
        // Machine code that commands keep is this folder's too.
        command.env("XDG_CACHE_HOME", self.root.path().join("cache"));
        command.envs(&self.variables);
        if let Some(limit) = self.open_files {
            limit.hold(&mut command);
        }
        if let Some(bytes) = self.address_space {
            limit(&mut command, libc::RLIMIT_AS, libc::rlimit { rlim_cur: bytes, rlim_max: bytes });
        }
        if let Some(procs) = &self.memory_group {
            memory_group::enter(&mut command, procs);
        }
        Ok(command)
    }

    /// Puts a plugin's sidecar and file there, each in one step, as a careful operator does.
    pub fn put_plugin(&self, plugin: &PluginFile) -> Result<()> {
        if let Some(sidecar) = &plugin.sidecar {
            self.put(&format!("{}.toml", plugin.name), sidecar.as_bytes())?;
        }
        self.put(&format!("{}.wasm", plugin.name), &plugin.wasm)
    }

    /// Takes a plugin's file and sidecar away.
    pub fn remove_plugin(&self, name: &str) -> Result<()> {
        std::fs::remove_file(self.plugins().join(format!("{name}.wasm")))?;
        let sidecar = self.plugins().join(format!("{name}.toml"));
        if sidecar.exists() { Ok(std::fs::remove_file(sidecar)?) } else { Ok(()) }
    }

    /// A URL of the admin listener.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin_address())
    }

    /// The admin listener's address.
    pub fn admin_address(&self) -> String {
        format!("127.0.0.1:{}", self.admin_port)
    }

    /// The settings' file.
    pub fn settings_path(&self) -> PathBuf {
        self.root.path().join(SETTINGS)
    }

    /// The settings' text.
    pub fn read_settings(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.settings_path())?)
    }

    /// Replaces the settings' text.
    pub fn write_settings(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(self.settings_path(), text)?)
    }

    /// The store's file.
    pub fn store_path(&self) -> PathBuf {
        self.root.path().join(STORE)
    }

    /// Puts a file there in one step; replaces one of that name.
    pub fn write_file(&self, name: &str, content: &[u8]) -> Result<()> {
        let hidden = self.root.path().join(format!("{name}.part"));
        std::fs::write(&hidden, content)?;
        Ok(std::fs::rename(hidden, self.root.path().join(name))?)
    }

    /// Takes a file away.
    pub fn remove_file(&self, name: &str) -> Result<()> {
        Ok(std::fs::remove_file(self.root.path().join(name))?)
    }

    /// Every file in the folder and below, whole.
    pub fn contents(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        contents(self.root.path())
    }

    fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        let hidden = self.root.path().join(format!("{name}.part"));
        std::fs::write(&hidden, content)?;
        Ok(std::fs::rename(hidden, self.plugins().join(name))?)
    }

    /// The plugins folder.
    pub fn plugins(&self) -> PathBuf {
        self.root.path().join(PLUGINS)
    }
}

fn contents(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(contents(&path)?);
        } else if path.is_file() {
            files.push((path.clone(), std::fs::read(&path)?));
        }
    }
    Ok(files)
}

impl OpenFiles {
    fn hold(self, command: &mut Command) {
        let limit = libc::rlimit { rlim_cur: self.soft, rlim_max: self.hard };
        self::limit(command, libc::RLIMIT_NOFILE, limit);
    }
}

fn limit(command: &mut Command, resource: libc::__rlimit_resource_t, limit: libc::rlimit) {
    let set = move || {
        // SAFETY: `limit` is a whole `rlimit`, which the call only reads.
        match unsafe { libc::setrlimit(resource, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec, `set` makes one system call, and allocates nothing.
    unsafe { command.pre_exec(set) };
}
