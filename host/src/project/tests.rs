//! What holds for every language in the table.

use std::collections::BTreeSet;

use super::*;

#[test]
fn every_language_is_found_by_each_of_its_names_and_by_no_other() {
    let mut names = BTreeSet::new();
    for language in LANGUAGES {
        for name in std::iter::once(&language.name).chain(language.aliases) {
            assert!(names.insert(*name), "{name} is two languages'");
            assert!(std::ptr::eq(Language::find(name).unwrap(), *language), "{name}");
        }
    }
    assert!(Language::find("RUST").is_some());
    assert!(Language::find("cobol").is_none());
}

#[test]
fn a_new_project_is_recognised_and_named_and_nothing_of_the_template_is_left() {
    for language in LANGUAGES {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("elsewhere");
        let created = create(language, &Names::new("order-mails").unwrap(), &folder).unwrap();
        let project = Project::open(&folder).unwrap_or_else(|error| panic!("{}: {error}", language.name));
        assert_eq!(project.language.name, language.name);
        assert_eq!(project.name, "order-mails", "{}", language.name);
        assert!(project.sidecar().is_file());
        let plan = (language.build)(&project).unwrap();
        assert!(!plan.steps.is_empty() && plan.product.is_absolute(), "{}: {plan:?}", language.name);
        assert!(!(language.test)(&project).is_empty(), "{}", language.name);
        for file in &created.files {
            assert!(!file.contains("{{"), "{}: {file}", language.name);
            let sdk = (language.sdk)();
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            if sdk.iter().all(|known| known.path != *file) {
                let left = ["{{name}}", "{{ident}}", "{{type}}"].iter().find(|name| text.contains(**name));
                assert_eq!(left, None, "{}: {file}", language.name);
            }
        }
    }
}

#[test]
fn a_folder_that_is_no_project_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let error = Project::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("rust") && error.contains(&*folder.path().to_string_lossy()), "{error}");
    assert!(matches!(Project::open(&folder.path().join("nowhere")), Err(ProjectError::Folder { .. })));
}

/// Every source of the SDK in the repository is in the binary: a file that was added and not listed breaks new projects only.
#[test]
fn the_rust_sdk_is_whole() {
    sdk_is_whole("rust", "sdk/rust", "wirehook-sdk", &["Cargo.toml", "tests/bindings.rs"]);
}

#[test]
fn the_go_sdk_is_whole() {
    // Its own tests and the generator are of no use to a plugin.
    let except = ["generate.sh", "wirehook_test.go", "wirehooktest/wirehooktest_test.go"];
    sdk_is_whole("go", "sdk/go", "wirehook-sdk", &except);
}

#[test]
fn the_python_sdk_is_whole() {
    sdk_is_whole("python", "sdk/python", "wirehook-sdk", &["pyproject.toml", "tests/test_sdk.py"]);
}

#[test]
fn the_c_sdk_is_whole() {
    sdk_is_whole("c", "sdk/c", "wirehook-sdk", &["sdk_test.c", "examples/zig/orders.zig"]);
}

#[test]
fn the_js_sdk_is_whole() {
    sdk_is_whole("js", "sdk/js", "wirehook-sdk", &["test/encoding.test.js", "test/sdk.test.js"]);
}

/// Compares what `lang` embeds under `embedded` with the repository's folder `source`, whose files in `except` are made
/// anew or left out.
fn sdk_is_whole(lang: &str, source: &str, embedded: &str, except: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(source);
    let mut files = BTreeSet::new();
    collect(&root, &root, &mut files);
    let listed = (Language::find(lang).unwrap().sdk)();
    let prefix = format!("{embedded}/");
    let listed: BTreeSet<_> = listed.iter().filter_map(|file| file.path.strip_prefix(&prefix)).collect();
    let absent: Vec<_> =
        files.iter().filter(|file| !except.contains(&file.as_str()) && !listed.contains(file.as_str())).collect();
    assert!(absent.is_empty(), "{source}: not in the binary: {absent:?}");
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeSet<String>) {
    const BUILT: [&str; 6] = ["target", "node_modules", "__pycache__", ".venv", "dist", ".pytest_cache"];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !BUILT.iter().any(|built| path.ends_with(built)) {
                collect(root, &path, files);
            }
        } else {
            files.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
        }
    }
}
