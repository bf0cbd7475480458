//! The folder of a trial: the plugins, the settings that were made for them, the store.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use toml::{Table, Value};
use url::{Host, Url};

use super::{DevOptions, NAME_BYTES, random, source};
use crate::cli::{Failure, Failures};
use crate::plugin::{Grant, manifest_beside};
use crate::secret::Secret;
use crate::settings::{Environment, Settings, SignatureScheme, parse};

/// The endpoint of a plugin whose sidecar names none.
const ENDPOINT: &str = "dev";
/// The variable that the generated settings read the signing secret from.
const SECRET_VARIABLE: &str = "WIREHOOK_DEV_SECRET";
/// Networks that webhooks may go to besides the public ones: this machine's and private ones, but nothing link-local.
const EGRESS: [&str; 6] = ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/// The folder with everything in it.
pub(super) struct Bench {
    folder: TempDir,
    pub(super) plugins: Vec<String>,
    /// The subjects that each is subscribed to.
    pub(super) subscribed: Vec<(String, Vec<String>)>,
    pub(super) settings: Settings,
}

impl Bench {
    pub(super) fn prepare(options: &DevOptions, forward_to: &Url, secret: &Secret) -> Result<Self, Failures> {
        let private = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("wirehook-dev-").permissions(private).tempdir();
        let folder = folder.map_err(|error| Failure::new(format!("a temporary folder can't be made: {error}")))?;
        let plugins = put_plugins(&folder.path().join("plugins"), &options.plugins)?;
        let own = format!("wirehook-dev-{}", hex::encode(random::<NAME_BYTES>()?));
        let source = options.source.settings(&own);
        let source = source.map_err(|error| Failure::new(error.to_string()).help(error.help()).into_usage())?;
        let text = settings_text(&source.table, &plugins, forward_to, &options.scheme, &options.allow_http)?;
        let shown = folder.path().join("wirehook.toml");
        let written = fs::write(&shown, &text);
        written.map_err(|error| Failure::new(format!("{} can't be written: {error}", shown.display())))?;
        let mut variables = vec![(SECRET_VARIABLE, secret_text(secret)?)];
        for (name, secret) in [(source::PASSWORD_VARIABLE, source.password), (source::TOKEN_VARIABLE, source.token)] {
            if let Some(secret) = secret {
                variables.push((name, secret_text(&secret)?));
            }
        }
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let loaded = parse(&shown, &text, &Environment::of(&variables, folder.path())).map_err(|error| {
            let mut failures = Failures::from(error);
            // The file is ours: a place in it says nothing.
            failures.failures.iter_mut().for_each(|failure| failure.at = None);
            failures
        })?;
        let mut settings = loaded.settings;
        settings.sources.iter_mut().for_each(|source| source::make_ephemeral(&mut source.kind));
        let names = plugins.iter().map(|plugin| plugin.name.clone()).collect();
        let subscribed = plugins.into_iter().map(|plugin| (plugin.name, plugin.subjects)).collect();
        Ok(Self { folder, plugins: names, subscribed, settings })
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder.path().join("wirehook.toml")
    }

    pub(super) fn plugins_folder(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    pub(super) fn remove(self) -> Result<(), Failure> {
        let path = self.folder.path().to_owned();
        self.folder
            .close()
            .map_err(|error| Failure::new(format!("the temporary folder {} can't be removed: {error}", path.display())))
    }
}

/// A plugin that was put into the folder.
struct Put {
    name: String,
    /// The subjects that its sidecar names.
    subjects: Vec<String>,
    /// The endpoints that its sidecar names.
    endpoints: Vec<Arc<str>>,
    /// What its sidecar asks for.
    grants: BTreeSet<Grant>,
}

/// Copies plugins and their sidecars: what is built over them meanwhile changes nothing here.
fn put_plugins(folder: &Path, files: &[PathBuf]) -> Result<Vec<Put>, Failures> {
    let copied = |file: &Path, to: PathBuf| {
        let copied = fs::copy(file, &to).map(drop);
        copied.map_err(|error| Failure::new(format!("{} can't be copied to {}: {error}", file.display(), to.display())))
    };
    fs::create_dir(folder).map_err(|error| Failure::new(format!("{} can't be made: {error}", folder.display())))?;
    let mut plugins: Vec<Put> = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !file.is_file() {
            let failure = Failure::new(format!("there is no plugin at {}", file.display()));
            return Err(failure.help("build it, and name its .wasm file with --plugin").into_usage());
        }
        if plugins.iter().any(|put| put.name == name) {
            let failure = Failure::new(format!("two plugins are called `{name}`"));
            return Err(failure.help("a plugin is called as its file: copy one of them to another name").into_usage());
        }
        let manifest = manifest_beside(file).map_err(|error| Failure::new(error.to_string()).into_usage())?;
        copied(file, folder.join(format!("{name}.wasm")))?;
        let sidecar = file.with_extension("toml");
        if sidecar.is_file() {
            copied(&sidecar, folder.join(format!("{name}.toml")))?;
        }
        plugins.push(Put { name, subjects: manifest.subjects, endpoints: manifest.endpoints, grants: manifest.grants });
    }
    Ok(plugins)
}

/// The settings of the run. Secrets are in variables that only this process has, so that nothing secret is written.
fn settings_text(
    source: &Table,
    plugins: &[Put],
    forward_to: &Url,
    scheme: &SignatureScheme,
    allow_http: &[Url],
) -> Result<String, Failures> {
    let asks_http = plugins.iter().find(|plugin| plugin.grants.contains(&Grant::Http));
    if let Some(plugin) = asks_http.filter(|_| allow_http.is_empty()) {
        let failure = Failure::new(format!("the plugin `{}` asks for the grant `http`", plugin.name));
        return Err(failure.help("say what it may call with --allow-http URL").into_usage());
    }
    let table = |entries: &[(&str, Value)]| -> Value {
        Value::Table(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    };
    let names: BTreeSet<&str> = plugins
        .iter()
        .flat_map(|plugin| plugin.endpoints.iter().map(AsRef::as_ref))
        .chain(plugins.iter().any(|plugin| plugin.endpoints.is_empty()).then_some(ENDPOINT))
        .collect();
    let endpoint = |name: &str| {
        let mut entries =
            vec![("name", name.into()), ("url", forward_to.as_str().into()), ("signature", scheme.name().into())];
        entries.extend(scheme.chosen_header().map(|header| ("signature_header", header.as_str().into())));
        if *scheme != SignatureScheme::None {
            entries.push(("secret", table(&[("env", SECRET_VARIABLE.into())])));
        }
        table(&entries)
    };
    // Where endpoints are several, a plugin that names none has to be told which is its own. Whoever tries a plugin gives
    // it what it asks for.
    let asks = |plugin: &&Put| plugin.endpoints.is_empty() || !plugin.grants.is_empty();
    let methods: Vec<Value> = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].map(Value::from).to_vec();
    let allowed = |plugin: &Put| -> Vec<Value> {
        let urls = allow_http.iter().filter(|_| plugin.grants.contains(&Grant::Http));
        urls.map(|url| table(&[("url", url.as_str().into()), ("methods", Value::Array(methods.clone()))])).collect()
    };
    let listed = plugins.iter().filter(asks).map(|plugin| {
        let own = plugin.endpoints.is_empty().then(|| ENDPOINT.into());
        let grants = plugin.grants.iter().map(|grant| grant.as_str().into());
        table(&[
            ("name", plugin.name.as_str().into()),
            ("endpoints", Value::Array(own.into_iter().collect())),
            ("grants", Value::Array(grants.collect())),
            ("http", Value::Array(allowed(plugin))),
        ])
    });
    // Addresses that the user wrote are meant.
    let named = match forward_to.host() {
        Some(Host::Ipv4(ip)) => Some(ip.to_string()),
        Some(Host::Ipv6(ip)) => Some(ip.to_string()),
        _ => None,
    };
    let allow = EGRESS.iter().map(ToString::to_string).chain(named).map(Value::from).collect();
    let settings = table(&[
        ("store", table(&[("path", "wirehook.db".into())])),
        ("plugins", table(&[("dir", "plugins".into())])),
        ("admin", table(&[("listen", "127.0.0.1:0".into())])),
        ("limits", table(&[("drain_deadline", "5s".into())])),
        ("egress", table(&[("allow", Value::Array(allow))])),
        ("source", Value::Array(vec![Value::Table(source.clone())])),
        ("endpoint", Value::Array(names.into_iter().map(endpoint).collect())),
        ("plugin", Value::Array(listed.collect())),
    ]);
    Ok(toml::to_string(&settings).map_err(|error| Failure::new(error.to_string()))?)
}

fn secret_text(secret: &Secret) -> Result<String, Failure> {
    let text = std::str::from_utf8(secret.expose());
    text.map(str::to_owned).map_err(|_| Failure::new("the secret is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SchemeName;

    fn put(name: &str, endpoints: &[&str]) -> Put {
        Put {
            name: name.to_owned(),
            subjects: vec![">".to_owned()],
            endpoints: endpoints.iter().map(|name| (*name).into()).collect(),
            grants: BTreeSet::new(),
        }
    }

    #[test]
    fn a_plugin_that_makes_requests_is_told_which_it_may() {
        let source = toml::from_str("name = 'dev'\nkind = 'stdin'").unwrap();
        let plugin = Put { grants: [Grant::Http, Grant::State].into(), ..put("rates", &[]) };
        let url = Url::parse("http://localhost:3000/hooks").unwrap();
        let text = |allow: &[Url]| {
            settings_text(&source, std::slice::from_ref(&plugin), &url, &SignatureScheme::Fraiseql, allow)
        };
        assert!(text(&[]).is_err());
        let text = text(&[Url::parse("https://rates.example.com/v1").unwrap()]).unwrap();
        let environment = Environment::of(&[(SECRET_VARIABLE, "s3cret")], "/");
        let settings = parse("/tmp/x/wirehook.toml".as_ref(), &text, &environment).unwrap().settings;
        let http = &settings.plugins.listed[0].http;
        assert_eq!((http.len(), http[0].url.as_str(), http[0].methods.len()), (1, "https://rates.example.com/v1", 6));
    }

    #[test]
    fn every_endpoint_that_a_sidecar_names_goes_to_one_url() {
        let source = toml::from_str("name = 'dev'\nkind = 'stdin'").unwrap();
        let plugins = [put("a", &["orders", "audit"]), put("b", &[])];
        let url = Url::parse("http://203.0.113.7:3000/hooks").unwrap();
        let text = settings_text(&source, &plugins, &url, &SignatureScheme::Fraiseql, &[]).unwrap();
        let environment = Environment::of(&[(SECRET_VARIABLE, "s3cret")], "/");
        let settings = parse("/tmp/x/wirehook.toml".as_ref(), &text, &environment).unwrap().settings;
        let names: Vec<_> = settings.endpoints.iter().map(|endpoint| &*endpoint.name).collect();
        assert_eq!(names, ["audit", "dev", "orders"]);
        assert!(settings.endpoints.iter().all(|endpoint| endpoint.url == url));
        assert_eq!(settings.plugins.listed.len(), 1, "only the one that names none");
        assert!(settings.egress.allow.contains(&"203.0.113.7/32".parse().unwrap()));
        assert!(!text.contains("s3cret"));
        let own = SchemeName::Stripe.with_header(Some("x-shop".parse().unwrap())).unwrap();
        let text = settings_text(&source, &plugins[..1], &url, &own, &[]).unwrap();
        let settings = parse("/tmp/x/wirehook.toml".as_ref(), &text, &environment).unwrap().settings;
        assert_eq!((settings.endpoints.len(), settings.plugins.listed.len()), (2, 0));
        assert!(settings.endpoints.iter().all(|endpoint| endpoint.signature == own));
        let text = settings_text(&source, &plugins, &url, &SignatureScheme::None, &[]).unwrap();
        assert_eq!(parse("/tmp/x/wirehook.toml".as_ref(), &text, &environment).unwrap().warnings, []);
    }
}
