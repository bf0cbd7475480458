use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::plugin::fixture::{engine, guest};
use crate::plugin::limits::SomeLimits;
use crate::settings::MemoryReset;

struct Folder {
    engine: Arc<Engine>,
    settings: PluginsSettings,
    _dir: tempfile::TempDir,
}

impl Folder {
    fn with(files: &[(&str, &[u8])]) -> Self {
        let (engine, dir) = engine();
        let plugins = dir.path().join("plugins");
        fs::create_dir(&plugins).unwrap();
        for (name, bytes) in files {
            fs::write(plugins.join(name), bytes).unwrap();
        }
        let settings = PluginsSettings {
            dir: plugins,
            dir_is_default: false,
            routes: Vec::new(),
            admit: Admit::Any,
            workers: 1,
            http_workers: 1,
            compile_cpu: Duration::from_secs(120),
            memory_reset: MemoryReset::default(),
            limits: SomeLimits::default(),
            backlog: crate::settings::BacklogSettings::default(),
            listed: Vec::new(),
        };
        Self { engine, settings, _dir: dir }
    }

    fn list(&mut self, name: &str, sha256: Option<String>) {
        self.settings.listed.push(PluginCeiling {
            name: name.into(),
            sha256,
            endpoints: Vec::new(),
            grants: BTreeSet::new(),
            limits: SomeLimits::default(),
            backlog: crate::settings::BacklogSettings::default(),
            http: Vec::new(),
        });
    }

    /// Name and, where it did not load, the error.
    fn scan(&self) -> Vec<(String, Option<String>)> {
        let scanned = scan(&self.engine, &self.settings, &["orders".into()], |_, _| true).unwrap().scanned;
        scanned
            .into_iter()
            .map(|one| (one.name.to_string(), one.outcome.err().map(|error| error.to_string())))
            .collect()
    }
}

fn check(scanned: &[(String, Option<String>)], expected: &[(&str, Option<&str>)]) {
    assert_eq!(scanned.len(), expected.len(), "{scanned:?}");
    for ((name, error), (name_expected, error_expected)) in scanned.iter().zip(expected) {
        assert_eq!(name, name_expected);
        match (error, error_expected) {
            (None, None) => {}
            (Some(error), Some(part)) => assert!(error.contains(part), "{name}: `{part}` is missing in: {error}"),
            _ => panic!("{name}: expected {error_expected:?}, found {error:?}"),
        }
    }
}

#[test]
fn a_bad_file_does_not_disturb_the_others() {
    let good = guest("i32.const 1024");
    let folder = Folder::with(&[
        ("a.wasm", &good),
        ("b.wasm", b"hello"),
        ("c.wasm", &good),
        ("c.toml", b"\nsubject = 1"),
        ("d.wasm", &good),
        ("d.toml", b"endpoints = [\"nobody\"]"),
        ("e.wasm", &good),
        ("e.toml", b"# \xff"),
        ("f.cwasm", b"\x7fELF"),
        ("f.txt", b""),
        ("Not a name.wasm", &good),
        ("z.wasm", &good),
    ]);
    fs::create_dir(folder.settings.dir.join("g.wasm")).unwrap();
    check(
        &folder.scan(),
        &[
            ("Not a name", Some("can't be a plugin's")),
            ("a", None),
            ("b", Some("not WebAssembly")),
            ("c", Some("c.toml:2: unknown field `subject`")),
            ("d", Some("`nobody`, which is not configured; configured: `orders`")),
            ("e", Some("e.toml:1: the file is not UTF-8")),
            ("g", Some("can't be read")),
            ("z", None),
        ],
    );
}

#[test]
fn a_plugin_has_its_sidecar_and_the_one_endpoint() {
    let folder = Folder::with(&[("a.wasm", &guest("i32.const 1024")), ("a.toml", b"subjects = [\"x.*\"]")]);
    let scanned = scan(&folder.engine, &folder.settings, &["orders".into()], |_, _| true).unwrap().scanned;
    let plugin = scanned[0].outcome.as_ref().unwrap();
    assert_eq!(plugin.manifest.endpoints, [Arc::from("orders")]);
    assert!(plugin.manifest.subscribes_to("x.y") && !plugin.manifest.subscribes_to("y"));
}

#[test]
fn only_what_is_listed_and_pinned_is_admitted() {
    let good = guest("i32.const 1024");
    let mut folder = Folder::with(&[("a.wasm", &good), ("b.wasm", &good), ("c.wasm", &good), ("d.wasm", &good)]);
    folder.settings.admit = Admit::Listed;
    folder.list("a", None);
    folder.list("b", Some(digest(&good).to_uppercase()));
    folder.list("c", Some("00".repeat(32)));
    folder.list("gone", None);
    check(
        &folder.scan(),
        &[
            ("a", None),
            ("b", None),
            ("c", Some("the settings admit only 0000")),
            ("d", Some("not listed")),
            ("gone", Some("gone.wasm` does not exist")),
        ],
    );
}

#[test]
fn a_pipe_is_not_waited_for() {
    let folder = Folder::with(&[]);
    let status = std::process::Command::new("mkfifo").arg(folder.settings.dir.join("a.wasm")).status().unwrap();
    assert!(status.success());
    check(&folder.scan(), &[("a", Some("can't be read"))]);
}

#[test]
fn a_link_that_leads_out_of_the_folder_is_not_followed() {
    let good = guest("i32.const 1024");
    let folder = Folder::with(&[("a.wasm", &good), ("b.wasm", &good), ("sub.toml", b"subjects = [\"x.*\"]")]);
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "hunter2").unwrap();
    let link = |from: &Path, name: &str| {
        std::os::unix::fs::symlink(from, folder.settings.dir.join(name)).unwrap();
    };
    link(Path::new("sub.toml"), "a.toml");
    link(&secret, "b.toml");
    link(&secret, "c.wasm");
    let scanned = folder.scan();
    check(
        &scanned,
        &[("a", None), ("b", Some("outside the plugins folder")), ("c", Some("outside the plugins folder"))],
    );
    assert!(!format!("{scanned:?}").contains("hunter2"));
}

#[test]
fn a_folder_that_is_not_there() {
    let mut folder = Folder::with(&[]);
    folder.settings.dir.push("nowhere");
    let error = scan(&folder.engine, &folder.settings, &[], |_, _| true).unwrap_err();
    assert!(matches!(error, ScanError::Missing(_)), "{error}");
}

#[test]
fn a_file_that_is_cut_is_told_from_one_that_is_broken() {
    let whole = guest("i32.const 1024");
    assert!(!is_cut(&whole));
    for end in 0..whole.len() {
        // A file may end between two sections and be whole; the compiler says whether it is.
        let between = leb_ends(&whole).contains(&end);
        assert_eq!(is_cut(&whole[..end]), !between, "cut at {end} of {}", whole.len());
    }
    assert!(!is_cut(b"hello"));
    assert!(!is_cut(b"\x7fELF\x02\x01\x01\0\0\0"));
    let folder = Folder::with(&[("a.wasm", &whole[..whole.len() - 1])]);
    check(&folder.scan(), &[("a", Some("is not whole"))]);
    // Read no further than a plugin may be long, it is cut off by the reader.
    let custom_section = [0, 0x80, 0x80, 0xc0, 0x20];
    let folder = Folder::with(&[("a.wasm", &[&whole[..], &custom_section, &vec![0; 65 << 20]].concat())]);
    check(&folder.scan(), &[("a", Some("67108864 at most"))]);
}

/// Where a section of `wasm` ends.
fn leb_ends(wasm: &[u8]) -> Vec<usize> {
    let payloads = wasmparser::Parser::new(0).parse_all(wasm).map(Result::unwrap);
    let ends = payloads.filter_map(|payload| payload.as_section().map(|(_, range)| range.end));
    std::iter::once(8).chain(ends).collect()
}

#[test]
fn what_looks_as_it_did_is_left_alone() {
    let folder = Folder::with(&[("a.wasm", &guest("i32.const 1024")), ("b.wasm", b"hello")]);
    let look = |seen: &[Scanned]| {
        let known = |name: &str, stamp| seen.iter().any(|seen| *seen.name == *name && seen.stamp == stamp);
        scan(&folder.engine, &folder.settings, &["orders".into()], |name, stamp| !known(name, stamp)).unwrap()
    };
    let first = look(&[]);
    assert!(first.scanned.iter().all(|scanned| !scanned.changing));
    let names = |folder: &super::Folder| folder.scanned.iter().map(|it| it.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&first), ["a", "b"]);
    let second = look(&first.scanned);
    assert_eq!((names(&second), second.names.len()), (Vec::new(), 2));
    fs::write(folder.settings.dir.join("a.toml"), "subjects = [\"fraiseql.>\"]").unwrap();
    assert_eq!(names(&look(&first.scanned)), ["a"], "the sidecar is one with the file");
    fs::remove_file(folder.settings.dir.join("b.wasm")).unwrap();
    assert_eq!(look(&first.scanned).names.len(), 1);
}
