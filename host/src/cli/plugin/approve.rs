//! `wirehook plugin approve`: what a file is and asks for beside what was approved, and the settings that approve it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::app::builds_dir;
use crate::cli::Session;
use crate::cli::console::Look;
use crate::cli::failure::{Exit, Failure, Failures};
use crate::cli::parts::PluginView;
use crate::cli::table::{Table, maybe, plain, printable};
use crate::plugin::limits::{Limit, Unit};
use crate::plugin::{FILE_BYTES_MAX, Grant, digest};
use crate::settings::{self, Admit, PluginCeiling, PluginsSettings, SettingsError, StoreSettings};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook plugin approve dist/orders.wasm
  wirehook --config /etc/wirehook/wirehook.toml plugin approve dist/orders.wasm

Nothing is changed: look at what it says, then put the block into the settings in place of the \
present one; [[plugin.http]] and [plugin.backlog] of that are yours to keep. The build approved until now is looked for by its sha256: in the plugins folder, and \
among those that the host keeps beside its store.";

/// Files of the host's folder of builds that are looked at for the approved one, at most.
const BUILDS_MAX: usize = 4_096;

#[derive(Debug, Args)]
pub(in crate::cli) struct ApproveArgs {
    /// The .wasm file, its sidecar beside it
    file: PathBuf,
}

/// What is approved at present.
struct Present {
    /// None where there are no settings.
    settings: Option<(PluginsSettings, StoreSettings)>,
}

/// One difference between what was approved and what is to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Change {
    what: String,
    /// None where there was nothing.
    before: Option<String>,
    /// None where there is nothing any longer.
    now: Option<String>,
}

pub(super) fn approve(session: &mut Session<'_>, args: &ApproveArgs) -> Result<Exit, Failures> {
    let present = Present::read(session)?;
    let now = session.parts.inspect(&args.file, None);
    if let Some(refused) = now.refusal() {
        return Err(refused.into());
    }
    let ceiling = present.ceiling(&now.name);
    let approved = ceiling.and_then(|ceiling| ceiling.sha256.as_deref());
    let before = approved.map(|sha256| present.find(session, &now.name, sha256)).transpose()?.flatten();
    let changes = changes(before.as_ref(), ceiling, &now);
    let block = block(&now, ceiling);
    if session.console.json {
        session.console.object(&json!({
            "name": now.name, "file": now.file, "sha256": now.digest, "approved_sha256": approved,
            "approved_build_found": before.is_some(), "admit": present.admit().map(word),
            "changes": changes, "block": block,
        }))?;
    } else {
        let listed = ceiling.is_some();
        print(session, &now, approved, before.is_some(), &changes)?;
        session.console.line("")?;
        session.console.line(advice(present.admit(), listed))?;
        session.console.line("")?;
        block.trim_end().lines().try_for_each(|line| session.console.line(line))?;
    }
    Ok(Exit::Success)
}

fn print(
    session: &mut Session<'_>,
    now: &PluginView,
    approved: Option<&str>,
    found: bool,
    changes: &[Change],
) -> std::io::Result<()> {
    let console = &mut *session.console;
    console.line(format_args!("plugin    {}", printable(&now.name)))?;
    console.line(format_args!("file      {}", printable(&now.file.display().to_string())))?;
    console.line(format_args!("approved  {}", approved.unwrap_or("nothing by its sha256")))?;
    if approved.is_some() && !found {
        let text = "the build approved until now is not at hand; only what the settings say is compared";
        let text = Look::Uneasy.paint(text, console.coloured());
        console.line(text)?;
    }
    console.line("")?;
    let mut table = Table::new(&["changed", "before", "now"]);
    for change in changes {
        table.row(vec![plain(&change.what), maybe(change.before.as_ref()), maybe(change.now.as_ref())]);
    }
    table.print_or("nothing differs from what is approved", console)
}

fn advice(admit: Option<Admit>, listed: bool) -> &'static str {
    match (admit, listed) {
        (_, true) => {
            "put this in place of its [[plugin]] in the settings, and keep its [[plugin.http]] and [plugin.backlog] if it has them:"
        }
        (Some(Admit::Listed), false) => "it is not admitted until this is in the settings:",
        (Some(Admit::Any) | None, false) => {
            "without this in the settings it runs with default limits and without grants, if it can:"
        }
    }
}

impl Present {
    fn read(session: &Session<'_>) -> Result<Self, Failures> {
        let config = session.global.config.as_deref();
        match settings::load_plugins(config, session.environment) {
            Ok(settings) => Ok(Self { settings: Some(settings) }),
            Err(SettingsError::NotFound(_)) if config.is_none() => Ok(Self { settings: None }),
            Err(error) => Err(error.into()),
        }
    }

    fn admit(&self) -> Option<Admit> {
        self.settings.as_ref().map(|(plugins, _)| plugins.admit)
    }

    fn ceiling(&self, name: &str) -> Option<&PluginCeiling> {
        self.settings.as_ref()?.0.listed.iter().find(|listed| *listed.name == *name)
    }

    /// The build of that digest, where it is at hand.
    fn find(&self, session: &Session<'_>, name: &str, sha256: &str) -> Result<Option<PluginView>, Failure> {
        let Some((plugins, store)) = &self.settings else { return Ok(None) };
        let mut candidates = vec![plugins.dir.join(format!("{name}.wasm"))];
        candidates.extend(kept_builds(&builds_dir(&store.path), name));
        let Some(path) = candidates.into_iter().find(|path| has_digest(path, sha256)) else { return Ok(None) };
        // Under the plugin's own name, as the kept ones are called otherwise.
        let folder = tempfile::tempdir().map_err(|error| unreadable(&path, &error))?;
        let file = folder.path().join(format!("{name}.wasm"));
        fs::copy(&path, &file).map_err(|error| unreadable(&path, &error))?;
        let sidecar = path.with_extension("toml");
        if sidecar.is_file() {
            fs::copy(&sidecar, file.with_extension("toml")).map_err(|error| unreadable(&sidecar, &error))?;
        }
        Ok(Some(session.parts.inspect(&file, None)))
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("the approved build {} can't be looked at: {error}", path.display()))
}

/// Builds of the plugin that the host keeps; none where this user may not look.
fn kept_builds(dir: &Path, name: &str) -> Vec<PathBuf> {
    let own = format!("{name}.");
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.take(BUILDS_MAX).filter_map(|entry| Some(entry.ok()?.path()));
    let is_own = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&own) && file.ends_with(".wasm")
    };
    paths.filter(is_own).collect()
}

fn has_digest(path: &Path, sha256: &str) -> bool {
    let is_small = fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= FILE_BYTES_MAX as u64);
    is_small && fs::read(path).is_ok_and(|wasm| digest(&wasm).eq_ignore_ascii_case(sha256))
}

/// What differs from the approved build, and from what the settings grant it.
fn changes(before: Option<&PluginView>, ceiling: Option<&PluginCeiling>, now: &PluginView) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut compare = |what: &str, before: Option<String>, now: Option<String>| {
        if before != now {
            changes.push(Change { what: what.to_owned(), before, now });
        }
    };
    let approved = ceiling.and_then(|ceiling| ceiling.sha256.clone());
    compare("sha256", approved, now.digest.clone());
    if let Some(before) = before {
        compare("size", before.bytes.map(size), now.bytes.map(size));
        compare("format", before.format.clone(), now.format.clone());
        for (what, before, now) in [
            ("import", &before.imports, &now.imports),
            ("export", &before.exports, &now.exports),
            ("subject", &before.subjects, &now.subjects),
        ] {
            for gone in before.iter().filter(|name| !now.contains(name)) {
                compare(what, Some(gone.clone()), None);
            }
            for new in now.iter().filter(|name| !before.contains(name)) {
                compare(what, None, Some(new.clone()));
            }
        }
    }
    let granted = |name: &str| ceiling.is_some_and(|ceiling| ceiling.grants.iter().any(|grant| grant.as_str() == name));
    for grant in now.grants.iter().filter(|grant| !granted(grant)) {
        compare("grant", None, Some(grant.clone()));
    }
    for grant in
        ceiling.iter().flat_map(|ceiling| &ceiling.grants).filter(|grant| !now.grants.contains(&grant.to_string()))
    {
        compare("grant", Some(grant.to_string()), None);
    }
    for (name, asked) in &now.limits_asked {
        let granted = Limit::parse(name).and_then(|row| Some(row.plain(ceiling?.limits.get(row.limit)?)));
        compare(&format!("limit {name}"), granted, Some(asked.clone()));
    }
    changes
}

fn size(bytes: u64) -> String {
    format!("{bytes} bytes")
}

/// The `[[plugin]]` that grants the file all that it asks for, and what limits it has beside. What it may call stays for
/// the operator to say: headers are secrets, which are not printed.
fn block(now: &PluginView, ceiling: Option<&PluginCeiling>) -> String {
    let mut block = format!("[[plugin]]\nname = \"{}\"\n", now.name);
    let mut push = |line: String| {
        block.push_str(&line);
        block.push('\n');
    };
    if let Some(sha256) = &now.digest {
        push(format!("sha256 = \"{sha256}\""));
    }
    let present =
        ceiling.map(|ceiling| ceiling.endpoints.iter().map(ToString::to_string).collect()).unwrap_or_default();
    let endpoints: Vec<String> = if now.endpoints.is_empty() { present } else { now.endpoints.clone() };
    if !endpoints.is_empty() {
        push(format!("endpoints = {}", array(&endpoints)));
    }
    if !now.grants.is_empty() {
        push(format!("grants = {}", array(&now.grants)));
    }
    let mut limits: BTreeMap<&str, String> =
        now.limits_asked.iter().map(|(name, asked)| (&**name, asked.clone())).collect();
    for (row, granted) in ceiling.iter().flat_map(|ceiling| ceiling.limits.iter()) {
        limits.entry(row.name).or_insert_with(|| row.plain(granted));
    }
    if !limits.is_empty() {
        push("[plugin.limits]".to_owned());
    }
    for (name, value) in limits {
        let is_count = Limit::parse(name).is_some_and(|row| row.unit == Unit::Count);
        push(if is_count { format!("{name} = {value}") } else { format!("{name} = \"{value}\"") });
    }
    if now.grants.iter().any(|grant| grant == Grant::Http.as_str())
        && ceiling.is_none_or(|ceiling| ceiling.http.is_empty())
    {
        push("[[plugin.http]]\nurl = \"\"  # what it may call".to_owned());
    }
    block
}

/// As TOML. Names of endpoints come from a sidecar, so they are written as TOML writes strings.
fn array(names: &[String]) -> String {
    let names = names.iter().map(|name| toml::Value::String(name.clone()).to_string());
    format!("[{}]", names.collect::<Vec<_>>().join(", "))
}

fn word(admit: Admit) -> &'static str {
    match admit {
        Admit::Any => "any",
        Admit::Listed => "listed",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plugin::limits::SomeLimits;
    use crate::settings::{BacklogSettings, Environment};

    fn view(digest: &str) -> PluginView {
        PluginView {
            name: "orders".to_owned(),
            ok: true,
            digest: Some(digest.repeat(64)),
            bytes: Some(100),
            endpoints: vec!["orders".to_owned()],
            imports: vec!["wirehook:plugin/log@0.1.0".to_owned()],
            ..PluginView::default()
        }
    }

    fn asking(digest: &str) -> PluginView {
        let limits = [("deadline", "1s"), ("reuse", "100")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        PluginView {
            bytes: Some(120),
            imports: vec!["wirehook:plugin/log@0.1.0".to_owned(), "wirehook:plugin/state@0.1.0".to_owned()],
            grants: vec!["state".to_owned()],
            limits_asked: BTreeMap::from(limits),
            ..view(digest)
        }
    }

    fn ceiling(sha256: &str) -> PluginCeiling {
        PluginCeiling {
            name: "orders".into(),
            http: Vec::new(),
            sha256: Some(sha256.repeat(64)),
            endpoints: vec!["orders".into()],
            grants: BTreeSet::new(),
            limits: SomeLimits::default(),
            backlog: BacklogSettings::default(),
        }
    }

    fn said(changes: &[Change]) -> Vec<String> {
        let word = |side: &Option<String>| side.clone().unwrap_or_default().chars().take(30).collect::<String>();
        changes
            .iter()
            .map(|change| format!("{}: {} -> {}", change.what, word(&change.before), word(&change.now)))
            .collect()
    }

    #[test]
    fn what_differs_from_the_approved_build() {
        let changes = said(&changes(Some(&view("a")), Some(&ceiling("a")), &asking("b")));
        let digests = format!("sha256: {} -> {}", "a".repeat(30), "b".repeat(30));
        let expected = [
            digests.as_str(),
            "size: 100 bytes -> 120 bytes",
            "import:  -> wirehook:plugin/state@0.1.0",
            "grant:  -> state",
            "limit deadline:  -> 1s",
            "limit reuse:  -> 100",
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn nothing_differs_once_the_block_is_in_the_settings() {
        let now = asking("b");
        let settings = format!(
            "{}[[endpoint]]\nname = \"orders\"\nurl = \"https://h/\"\nsignature = \"none\"\n",
            block(&now, None)
        );
        let loaded = settings::parse(Path::new("w.toml"), &settings, &Environment::of(&[], "/")).unwrap();
        let ceiling = &loaded.settings.plugins.listed[0];
        assert_eq!(changes(Some(&now), Some(ceiling), &now), []);
        assert_eq!(ceiling.grants, BTreeSet::from([Grant::State]));
        assert_eq!(ceiling.limits.get(Limit::Reuse), Some(100));
        let less = said(&changes(Some(&now), Some(ceiling), &view("b")));
        assert!(less.contains(&"grant: state -> ".to_owned()), "{less:?}");
    }

    #[test]
    fn what_the_present_one_limits_beside_is_kept_and_urls_are_asked_for() {
        let mut present = ceiling("a");
        present.limits.set(Limit::Memory, 1 << 20);
        let asks = PluginView { grants: vec!["http".to_owned()], ..asking("b") };
        let table: toml::Table = toml::from_str(&block(&asks, Some(&present))).unwrap();
        let plugin = &table["plugin"][0];
        assert_eq!(
            (plugin["limits"]["memory"].as_str(), plugin["limits"]["deadline"].as_str()),
            (Some("1MiB"), Some("1s"))
        );
        assert_eq!(plugin["http"][0]["url"].as_str(), Some(""), "refused until somebody says it");
    }

    #[test]
    fn a_name_from_a_sidecar_can_not_write_settings() {
        let hostile = PluginView { endpoints: vec!["a\"]\n[admin]\nlisten = \"0.0.0.0:1".to_owned()], ..view("a") };
        let block: toml::Table = toml::from_str(&block(&hostile, None)).unwrap();
        assert_eq!(block.keys().collect::<Vec<_>>(), ["plugin"]);
    }
}
