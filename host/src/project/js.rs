//! JavaScript and TypeScript: esbuild bundles the plugin, componentize-qjs puts QuickJS around it. Both are npm's, and
//! locked by the SDK; they are fetched at the first build unless a folder of `$WIREHOOK_TOOLS` has them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{BuildPlan, Language, Project, ProjectError, Run, SdkFile, Step, TemplateFile, Tool, WIT, manifest};

const MANIFEST: &str = "package.json";
/// What the manifest calls the SDK among its dependencies.
const SDK_NAME: &str = "wirehook";
/// Where a project's build leaves what it makes.
const BUILD_FOLDER: &str = "build";
/// Where npm puts packages.
const PACKAGES_FOLDER: &str = "node_modules";

/// What installs the whole toolchain.
macro_rules! install {
    () => {
        "install Node.js 18.13 or later, with npm: run `sudo apt-get install nodejs npm`, or see https://nodejs.org"
    };
}

static NODE: Tool = Tool { program: "node", folders: &[], install: install!() };

static NPM: Tool = Tool { program: "npm", folders: &[], install: install!() };

/// What the SDK's tools bring; looked for to see whether they are there.
static COMPONENTIZE: Tool = Tool { program: "componentize-qjs", folders: &[], install: "run `npm ci` in it" };

pub(super) static JAVASCRIPT: Language = Language {
    name: "js",
    aliases: &["javascript"],
    title: "JavaScript",
    is_project: |folder| is_project(folder, "src/plugin.js"),
    plugin_name,
    template: &[
        TemplateFile { path: MANIFEST, text: include_str!("../../templates/js/package.json") },
        TemplateFile { path: ".gitignore", text: include_str!("../../templates/js/gitignore") },
        TemplateFile { path: "src/plugin.js", text: include_str!("../../templates/js/plugin.js") },
        TemplateFile { path: "test/plugin.test.js", text: include_str!("../../templates/js/plugin.test.js") },
    ],
    sdk,
    build,
    // Nothing but the SDK itself, which is in the project.
    test: |project| install_packages(project).into_iter().chain([Run::new(&NODE).args(["--test"]).into()]).collect(),
    output_folders: &[BUILD_FOLDER, PACKAGES_FOLDER],
};

pub(super) static TYPESCRIPT: Language = Language {
    name: "ts",
    aliases: &["typescript"],
    title: "TypeScript",
    is_project: |folder| is_project(folder, "src/plugin.ts"),
    plugin_name,
    template: &[
        TemplateFile { path: MANIFEST, text: include_str!("../../templates/ts/package.json") },
        TemplateFile { path: "tsconfig.json", text: include_str!("../../templates/ts/tsconfig.json") },
        TemplateFile { path: ".gitignore", text: include_str!("../../templates/js/gitignore") },
        TemplateFile { path: "src/plugin.ts", text: include_str!("../../templates/ts/plugin.ts") },
        TemplateFile { path: "test/plugin.test.ts", text: include_str!("../../templates/ts/plugin.test.ts") },
    ],
    sdk,
    build,
    test: test_typescript,
    output_folders: &[BUILD_FOLDER, PACKAGES_FOLDER],
};

/// The SDK's sources, where they are in this repository and in a project.
macro_rules! sources {
    ($($path:literal)*) => {
        vec![$(SdkFile::new(concat!("wirehook-sdk/", $path), include_bytes!(concat!("../../../sdk/js/", $path)))),*]
    };
}

fn sdk() -> Vec<SdkFile> {
    sources![
        "README.md" "package.json"
        "src/console.js" "src/deterministic.js" "src/host.js" "src/index.d.ts" "src/index.js" "src/numbers.js"
        "src/state.d.ts" "src/state.js" "src/test.d.ts" "src/test.js"
        "tools/package.json" "tools/package-lock.json" "tools/build.js" "tools/cli.js" "tools/encoding.js" "tools/globals.js"
        "tools/guest.js" "tools/packages.js" "tools/stack.js" "tools/state.js"
    ]
}

fn is_project(folder: &Path, source: &str) -> bool {
    folder.join(MANIFEST).is_file() && folder.join(source).is_file()
}

fn build(project: &Project) -> Result<BuildPlan, ProjectError> {
    let sdk = sdk_folder(project)?;
    let product = project.path(BUILD_FOLDER).join(format!("{}.wasm", project.name));
    let wit = project.path(BUILD_FOLDER).join("subscriber.wit");
    let componentize = Run::new(&NODE)
        .args([format!("{sdk}/tools/cli.js"), "build".to_owned()])
        .args([&product, &wit])
        .help("where a package is not found, run `npm install`; what needs Node's own modules can't run in a plugin");
    let mut steps = install_packages(project);
    steps.extend(install_tools(project, &sdk));
    steps.extend([write_wit(wit), componentize.into()]);
    Ok(BuildPlan { steps, product })
}

/// Bundled, then run by Node: older ones know no TypeScript.
fn test_typescript(project: &Project) -> Vec<Step> {
    let sdk = match sdk_folder(project) {
        Ok(sdk) => sdk,
        Err(error) => {
            let error = error.to_string();
            let work = Box::new(move || Err(error.clone()));
            return vec![Step::Work { what: "looking for the SDK".to_owned(), work }];
        }
    };
    let mut steps = install_packages(project);
    steps.extend(install_tools(project, &sdk));
    steps.push(Run::new(&NODE).args([format!("{sdk}/tools/cli.js").as_str(), "test"]).into());
    steps
}

/// The project's own packages, once. The SDK alone needs no network.
fn install_packages(project: &Project) -> Vec<Step> {
    if project.path(PACKAGES_FOLDER).join(SDK_NAME).exists() {
        return Vec::new();
    }
    vec![npm(["install"])]
}

/// The packages that build a plugin, once: by the SDK's lock file.
fn install_tools(project: &Project, sdk: &str) -> Option<Step> {
    let own = project.path(sdk).join("tools").join(PACKAGES_FOLDER).join(COMPONENTIZE.program);
    if own.exists() || COMPONENTIZE.is_listed() {
        return None;
    }
    Some(npm(["ci", "--prefix", &format!("{sdk}/tools")]))
}

fn npm<const N: usize>(arguments: [&str; N]) -> Step {
    Run::new(&NPM)
        .args(arguments)
        .args(["--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"])
        .help("the packages come from npm's registry, once; check the network, then run it again")
        .into()
}

fn write_wit(file: PathBuf) -> Step {
    let work = Box::new(move || {
        let failed = |error: std::io::Error| format!("{}: {error}", file.display());
        file.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
        fs::write(&file, WIT).map_err(failed)
    });
    Step::Work { what: format!("writing {BUILD_FOLDER}/subscriber.wit"), work }
}

fn package(folder: &Path) -> Result<Value, ProjectError> {
    let text = manifest(folder, MANIFEST)?;
    serde_json::from_str(&text).map_err(|error| ProjectError::Manifest {
        file: folder.join(MANIFEST),
        what: format!("it is no JSON: {error}"),
    })
}

/// Where the manifest has the SDK, from the project's folder.
fn sdk_folder(project: &Project) -> Result<String, ProjectError> {
    let package = package(&project.folder)?;
    let listed = ["dependencies", "devDependencies"].iter().find_map(|group| package[group][SDK_NAME].as_str());
    let folder = listed.and_then(|listed| listed.strip_prefix("file:"));
    let folder = folder.filter(|folder| project.path(folder).join("tools/cli.js").is_file());
    folder.map(str::to_owned).ok_or_else(|| ProjectError::Manifest {
        file: project.path(MANIFEST),
        what: format!(
            "no dependency `{SDK_NAME}` of it leads to the SDK: add `\"{SDK_NAME}\": \"file:./wirehook-sdk\"`"
        ),
    })
}

/// The package's name, without its scope.
fn plugin_name(folder: &Path) -> Result<String, ProjectError> {
    let package = package(folder)?;
    let name = package["name"].as_str().and_then(|name| name.rsplit('/').next()).filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| ProjectError::Manifest {
        file: folder.join(MANIFEST),
        what: "it does not name the plugin: add `\"name\": \"NAME\"`".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(manifest: &str, source: &str) -> (tempfile::TempDir, Result<Project, ProjectError>) {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [(MANIFEST, manifest), (source, ""), ("sdk/tools/cli.js", "")] {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let project = Project::open(folder.path());
        (folder, project)
    }

    #[test]
    fn the_manifest_names_the_plugin_and_leads_to_the_sdk() {
        let check = |manifest: &str| {
            let (_folder, project) = project(manifest, "src/plugin.js");
            let project = project.map_err(|error| error.to_string())?;
            build(&project).map(|_| project.name.clone()).map_err(|error| error.to_string())
        };
        let depends = r#""dependencies": {"wirehook": "file:sdk"}"#;
        assert_eq!(check(&format!(r#"{{"name": "@shop/order-mails", {depends}}}"#)), Ok("order-mails".to_owned()));
        assert!(check(&format!("{{{depends}}}")).unwrap_err().contains("it does not name the plugin"));
        assert!(check(r#"{"name": "a"}"#).unwrap_err().contains("leads to the SDK"));
        assert!(check(r#"{"name": "a", "dependencies": {"wirehook": "file:x"}}"#).unwrap_err().contains("the SDK"));
        assert!(check("{").unwrap_err().contains("it is no JSON"));
    }

    #[test]
    fn packages_are_fetched_once_and_the_source_tells_the_language() {
        let manifest = r#"{"name": "a", "dependencies": {"wirehook": "file:sdk"}}"#;
        let (folder, typescript) = project(manifest, "src/plugin.ts");
        let typescript = typescript.unwrap();
        assert_eq!(typescript.language.name, "ts");
        let lines = || -> Vec<_> { build(&typescript).unwrap().steps.iter().map(ToString::to_string).collect() };
        let first = lines();
        assert!(first[0].starts_with("npm install --prefer-offline"), "{first:?}");
        assert!(first[1].starts_with("npm ci --prefix sdk/tools"), "{first:?}");
        fs::create_dir_all(folder.path().join("node_modules/wirehook")).unwrap();
        fs::create_dir_all(folder.path().join("sdk/tools/node_modules/componentize-qjs")).unwrap();
        let later = lines();
        assert_eq!(later.len(), 2, "{later:?}");
        assert_eq!(later[0], "writing build/subscriber.wit");
        assert!(later[1].starts_with("node sdk/tools/cli.js build /"), "{later:?}");
        let tests: Vec<_> = test_typescript(&typescript).iter().map(ToString::to_string).collect();
        assert_eq!(tests, ["node sdk/tools/cli.js test"]);
    }
}
