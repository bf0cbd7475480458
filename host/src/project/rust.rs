//! Rust: a crate whose core module the host turns into a component when it loads it.

use std::path::{Path, PathBuf};

use super::{BuildPlan, Language, Project, ProjectError, Run, SdkFile, Step, TemplateFile, Tool, manifest};

/// What guests are compiled to.
const TARGET: &str = "wasm32-unknown-unknown";

static CARGO: Tool = Tool {
    program: "cargo",
    folders: &[],
    install: "install Rust from https://rustup.rs, then run `rustup target add wasm32-unknown-unknown`",
};

pub(super) static RUST: Language = Language {
    name: "rust",
    aliases: &["rs"],
    title: "Rust",
    is_project: |folder| folder.join("Cargo.toml").is_file(),
    plugin_name: |folder| package(folder).map(|package| package.name),
    template: &[
        TemplateFile { path: "Cargo.toml", text: include_str!("../../templates/rust/cargo.toml") },
        TemplateFile { path: ".gitignore", text: include_str!("../../templates/rust/gitignore") },
        TemplateFile { path: "src/lib.rs", text: include_str!("../../templates/rust/src/lib.rs") },
    ],
    sdk,
    build,
    test,
    output_folders: &["target"],
};

/// The SDK's sources, where they are in this repository and in a project.
macro_rules! sources {
    ($($path:literal)*) => {
        [$(SdkFile::new(
            concat!("wirehook-sdk/", $path),
            include_bytes!(concat!("../../../sdk/rust/", $path)),
        )),*]
    };
}

fn sdk() -> Vec<SdkFile> {
    let mut files = vec![SdkFile::new("wirehook-sdk/Cargo.toml", include_bytes!("../../templates/rust/sdk.toml"))];
    files.extend(sources![
        "README.md" "src/lib.rs" "src/bindings.rs" "src/by_name.rs" "src/config.rs" "src/event.rs" "src/export.rs" "src/failure.rs" "src/http.rs" "src/log.rs" "src/memory.rs"
        "src/state.rs" "src/test.rs" "src/test/message.rs" "src/webhook.rs"
    ]);
    files
}

fn build(project: &Project) -> Result<BuildPlan, ProjectError> {
    let package = package(&project.folder)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    // Named, so that it is known where the module is also in a workspace or with settings of cargo's own.
    let target = project.folder.join(target);
    let product = target.join(TARGET).join("release").join(format!("{}.wasm", package.library));
    let step = Run::new(&CARGO)
        .args(["build", "--release", "--target", TARGET, "--target-dir"])
        .args([target])
        // Flags that are meant for this machine's linker would break it.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .help("where it can't find `core`, run `rustup target add wasm32-unknown-unknown`");
    Ok(BuildPlan { steps: vec![step.into()], product })
}

fn test(_: &Project) -> Vec<Step> {
    vec![Run::new(&CARGO).args(["test"]).into()]
}

/// What the manifest says.
struct Package {
    name: String,
    /// The library's name, which the module's file has.
    library: String,
}

fn package(folder: &Path) -> Result<Package, ProjectError> {
    let failed = |what: String| ProjectError::Manifest { file: folder.join("Cargo.toml"), what };
    let table: toml::Table = manifest(folder, "Cargo.toml")?.parse().map_err(|error| failed(format!("{error}")))?;
    let name_in = |section: &str| Some(table.get(section)?.get("name")?.as_str()?.to_owned());
    let name = name_in("package").ok_or_else(|| failed("it has no [package] with a name".to_owned()))?;
    let crate_type = table.get("lib").and_then(|lib| lib.get("crate-type"));
    let is_cdylib = crate_type
        .and_then(toml::Value::as_array)
        .is_some_and(|types| types.iter().any(|one| one.as_str() == Some("cdylib")));
    if !is_cdylib {
        return Err(failed("it makes no module: add `crate-type = [\"cdylib\"]` to its [lib]".to_owned()));
    }
    let library = name_in("lib").unwrap_or_else(|| name.replace('-', "_"));
    Ok(Package { name, library })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdks_manifest_asks_for_what_the_workspaces_does() {
        let here: toml::Table = include_str!("../../../sdk/rust/Cargo.toml").parse().unwrap();
        let workspace: toml::Table = include_str!("../../../Cargo.toml").parse().unwrap();
        let given: toml::Table = include_str!("../../templates/rust/sdk.toml").parse().unwrap();
        for (name, wanted) in here["dependencies"].as_table().unwrap() {
            let wanted = if wanted.get("workspace").is_some() {
                &workspace["workspace"]["dependencies"][name.as_str()]
            } else {
                wanted
            };
            assert_eq!(&given["dependencies"][name.as_str()], wanted, "{name}");
        }
        assert_eq!(given["features"], here["features"]);
        let package = workspace["workspace"]["package"].as_table().unwrap();
        for key in ["version", "edition", "rust-version", "license"] {
            assert_eq!(given["package"][key], package[key], "{key}");
        }
    }

    #[test]
    fn a_crate_is_named_by_its_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let check = |text: &str| {
            std::fs::write(folder.path().join("Cargo.toml"), text).unwrap();
            package(folder.path()).map(|package| (package.name, package.library)).map_err(|error| error.to_string())
        };
        let lib = "[lib]\ncrate-type = [\"cdylib\"]\n";
        let named = |name: &str, library: &str| Ok((name.to_owned(), library.to_owned()));
        assert_eq!(check(&format!("[package]\nname = \"a-b\"\n{lib}")), named("a-b", "a_b"));
        assert_eq!(check(&format!("[package]\nname = \"a-b\"\n{lib}name = \"c\"\n")), named("a-b", "c"));
        assert!(check("[package]\nname = \"a\"\n").unwrap_err().contains("crate-type"));
        assert!(check(lib).unwrap_err().contains("[package]"));
        assert!(check("[").unwrap_err().contains("Cargo.toml"));
    }
}
