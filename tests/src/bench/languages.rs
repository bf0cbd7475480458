//! The example plugin in every language it is built in: what it weighs, and what a call of it takes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wirehook::clock::SystemClock;
use wirehook::plugin::compiler::{CompileLimits, Compiler};
use wirehook::plugin::{Engine, Manifest, Plugin, manifest_beside};

use super::{call, quantile};
use crate::artifacts;

/// What the example is called; in another language than Rust, with the language behind a hyphen.
const EXAMPLE: &str = "orders";

/// Loads of compiled code from the cache.
const LOADS: usize = 9;

/// Where the table begins and ends in a document.
const MARKERS: [&str; 2] = ["<!-- languages: written by `cargo xtask bench --languages` -->", "<!-- languages end -->"];

/// One language's figures.
#[derive(Debug)]
pub struct Language {
    /// As in `target/plugins`, such as `orders-go`.
    pub plugin: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// `wirehook plugin build` after a change of the source, what it depends on being built.
    pub build: Option<Duration>,
    /// From the file to a plugin, compiled in a process of its own.
    pub first_load: Duration,
    /// The same with compiled code in the cache, the median.
    pub later_load: Duration,
    /// Calls, each in a sandbox made and destroyed for it.
    pub fresh: Vec<Duration>,
    /// Calls of a sandbox that is kept from one to the next.
    pub reused: Vec<Duration>,
}

/// The example's folders in `plugins`, by name.
///
/// # Errors
/// The folder can't be read.
pub fn examples(plugins: &Path) -> Result<Vec<String>> {
    names(plugins, |path| path.is_dir().then(|| path.file_name()).flatten())
}

/// Measures every language that is built, with `builds` as the times of their builds, calling each `calls` times.
///
/// # Errors
/// None is built, or one fails.
pub fn measure(folder: &Path, calls: usize, builds: &[(String, Duration)]) -> Result<Vec<Language>> {
    let built = artifacts::target_folder()?.join("plugins");
    let is_wasm = |path: &Path| path.extension().is_some_and(|extension| extension == "wasm");
    let names = names(&built, |path| if is_wasm(path) { path.file_stem() } else { None })?;
    ensure!(!names.is_empty(), "no example is in {}: run `cargo xtask plugins`", built.display());
    let measure = |plugin: String| {
        eprintln!("calling {plugin} {calls} times");
        let build = builds.iter().find(|(built, _)| *built == plugin).map(|(_, time)| *time);
        one(folder, &built.join(format!("{plugin}.wasm")), calls)
            .map(|language| Language { build, ..language })
            .with_context(|| plugin)
    };
    names.into_iter().map(measure).collect()
}

fn one(folder: &Path, path: &Path, calls: usize) -> Result<Language> {
    let cache = tempfile::tempdir_in(folder)?;
    let compiler = Compiler::Child(artifacts::host_binary()?, CompileLimits::default());
    let engine = Engine::new(1, cache.path(), compiler, SystemClock::shared())?;
    let wasm = std::fs::read(path)?;
    let manifest = manifest_beside(path)?;
    let name = path.file_stem().and_then(|stem| stem.to_str()).context("a name in UTF-8")?;
    let (first_load, plugin) = load(&engine, name, &wasm, &manifest)?;
    let mut later = Vec::new();
    for _ in 0..LOADS {
        later.push(load(&engine, name, &wasm, &manifest)?.0);
    }
    let fresh = call::times(&plugin, calls)?;
    drop(plugin);
    let mut kept = manifest;
    kept.limits.events_per_instance_max = usize::MAX;
    let (_, plugin) = load(&engine, name, &wasm, &kept)?;
    Ok(Language {
        plugin: name.to_owned(),
        bytes: wasm.len() as u64,
        build: None,
        first_load,
        later_load: quantile(&later, 0.5),
        fresh,
        reused: call::times(&plugin, calls)?,
    })
}

fn load(engine: &Arc<Engine>, name: &str, wasm: &[u8], manifest: &Manifest) -> Result<(Duration, Plugin)> {
    let started = Instant::now();
    let plugin = Plugin::load(engine, name, wasm, manifest.clone())?;
    Ok((started.elapsed(), plugin))
}

/// The example's names among what `name` finds in `folder`, sorted.
fn names(folder: &Path, name: impl Fn(&Path) -> Option<&std::ffi::OsStr>) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let all = paths.iter().filter_map(|path| Some(name(path)?.to_str()?.to_owned()));
    let mut names: Vec<String> = all
        .filter(|name| name.strip_prefix(EXAMPLE).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
        .collect();
    names.sort();
    Ok(names)
}

/// What people call the language of the example `plugin`.
pub fn title(plugin: &str) -> &str {
    match plugin.strip_prefix(EXAMPLE).unwrap_or(plugin).trim_start_matches('-') {
        "" => "Rust",
        "c" => "C",
        "go" => "Go",
        "js" => "JavaScript",
        "ts" => "TypeScript",
        "python" => "Python",
        other => other,
    }
}

/// The figures as a table of Markdown.
pub fn table(languages: &[Language]) -> String {
    let mut text = String::from(
        "| language | size | build | first load | later load | fresh call, median | p99 | reused, median | p99 |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for language in languages {
        let micros = |calls: &[Duration], share| quantile(calls, share).as_nanos().div_ceil(100) as f64 / 10.0;
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.1} µs | {:.1} µs | {:.1} µs | {:.1} µs |",
            title(&language.plugin),
            size(language.bytes),
            language.build.map_or_else(|| "not measured".to_owned(), |time| format!("{:.1} s", time.as_secs_f64())),
            millis(language.first_load),
            millis(language.later_load),
            micros(&language.fresh, 0.5),
            micros(&language.fresh, 0.99),
            micros(&language.reused, 0.5),
            micros(&language.reused, 0.99),
        );
    }
    text
}

/// Puts `table` between the markers of `document`.
///
/// # Errors
/// The markers are not there.
pub fn write_into(document: &str, table: &str) -> Result<String> {
    let (before, rest) = document.split_once(MARKERS[0]).with_context(|| format!("`{}` is missing", MARKERS[0]))?;
    let (_, after) = rest.split_once(MARKERS[1]).with_context(|| format!("`{}` is missing", MARKERS[1]))?;
    Ok(format!("{before}{}\n\n{table}\n{}{after}", MARKERS[0], MARKERS[1]))
}

/// What is between the markers of `document`.
///
/// # Errors
/// The markers are not there.
pub fn within(document: &str) -> Result<&str> {
    let (_, rest) = document.split_once(MARKERS[0]).with_context(|| format!("`{}` is missing", MARKERS[0]))?;
    Ok(rest.split_once(MARKERS[1]).with_context(|| format!("`{}` is missing", MARKERS[1]))?.0)
}

fn size(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KB", bytes.div_ceil(1 << 10)) } else { format!("{:.1} MB", bytes as f64 / 1e6) }
}

fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 10.0 { format!("{millis:.2} ms") } else { format!("{millis:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_the_place_of_the_one_before() {
        let language = |plugin: &str| Language {
            plugin: plugin.to_owned(),
            bytes: 20_000,
            build: None,
            first_load: Duration::from_millis(12),
            later_load: Duration::from_micros(200),
            fresh: vec![Duration::from_nanos(14_250)],
            reused: vec![Duration::from_nanos(2_050)],
        };
        let document = format!("before\n{}\nold\n{}\nafter", MARKERS[0], MARKERS[1]);
        let written = write_into(&document, &table(&[language("orders"), language("orders-go")])).unwrap();
        assert!(written.starts_with("before\n") && written.ends_with("\nafter") && !written.contains("old"));
        let table = within(&written).unwrap();
        assert!(
            table.contains("| Rust | 20 KB | not measured | 12 ms | 0.20 ms | 14.3 µs | 14.3 µs | 2.1 µs |"),
            "{table}"
        );
        assert!(table.contains("| Go |"));
        assert!(write_into("no markers", "").is_err());
    }
}
