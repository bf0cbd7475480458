//! Python: componentize-py puts the interpreter, the SDK and the plugin into one component.

use std::fs;
use std::path::Path;

use toml::{Table, Value};

use super::{BuildPlan, Language, Project, ProjectError, Run, SdkFile, Step, TemplateFile, Tool, WIT, manifest};

/// Where a project's build leaves what it makes.
const BUILD_FOLDER: &str = "build";

/// The project's manifest.
const MANIFEST: &str = "pyproject.toml";

/// The file with the plugin's function: the module that the SDK imports.
const PLUGIN: &str = "plugin.py";

/// The world that a component is made for. Whatever a world has is imported, asked for or not.
const WORLD: &str = "subscriber";

static COMPONENTIZE: Tool = Tool {
    program: "componentize-py",
    folders: &[".venv/bin"],
    install: "run `python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1 pytest`",
};

static PYTEST: Tool = Tool {
    program: "pytest",
    folders: &[".venv/bin"],
    install: "run `python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1 pytest`",
};

pub(super) static PYTHON: Language = Language {
    name: "python",
    aliases: &["py"],
    title: "Python",
    is_project: |folder| folder.join(MANIFEST).is_file() && folder.join(PLUGIN).is_file(),
    plugin_name,
    template: &[
        TemplateFile { path: MANIFEST, text: include_str!("../../templates/python/project.toml") },
        TemplateFile { path: ".gitignore", text: include_str!("../../templates/python/gitignore") },
        TemplateFile { path: PLUGIN, text: include_str!("../../templates/python/plugin.py") },
        TemplateFile { path: "test_plugin.py", text: include_str!("../../templates/python/test_plugin.py") },
    ],
    sdk,
    build,
    test,
    output_folders: &[BUILD_FOLDER, "__pycache__", ".pytest_cache", ".venv"],
};

/// The SDK's sources, where they are in this repository and in a project.
macro_rules! sources {
    ($($path:literal)*) => {
        vec![$(SdkFile::new(
            concat!("wirehook-sdk/", $path),
            include_bytes!(concat!("../../../sdk/python/", $path)),
        )),*]
    };
}

fn sdk() -> Vec<SdkFile> {
    sources![
        "README.md" "src/wirehook/__init__.py" "src/wirehook/_call.py" "src/wirehook/_component.py"
        "src/wirehook/_deterministic.py" "src/wirehook/_host.py" "src/wirehook/_json.py" "src/wirehook/_sealed.py" "src/wirehook/config.py"
        "src/wirehook/event.py" "src/wirehook/failure.py" "src/wirehook/log.py" "src/wirehook/py.typed"
        "src/wirehook/testing.py" "src/wirehook/webhook.py"
    ]
}

fn build(project: &Project) -> Result<BuildPlan, ProjectError> {
    let wit = project.path(BUILD_FOLDER).join("wit");
    let product = project.path(BUILD_FOLDER).join(format!("{}.wasm", project.name));
    let folders = python_path(&project.folder)?;
    let compile = Run::new(&COMPONENTIZE)
        .args(["-d", "build/wit", "-w", WORLD, "componentize", "wirehook._component", "--stub-wasi"])
        .args(folders.iter().flat_map(|folder| ["-p", folder]))
        .args(["-o".into(), product.clone().into_os_string()])
        .help("a module that is not found must lie in a folder of `pythonpath` in pyproject.toml; what is not pure Python can't be used");
    let contract = Step::Work {
        what: format!("writing the contract to {BUILD_FOLDER}/wit"),
        work: Box::new(move || {
            let written = fs::create_dir_all(&wit).and_then(|()| fs::write(wit.join("subscriber.wit"), WIT));
            written.map_err(|error| format!("{}: {error}", wit.display()))
        }),
    };
    Ok(BuildPlan { steps: vec![contract, compile.into()], product })
}

fn test(_: &Project) -> Vec<Step> {
    vec![Run::new(&PYTEST).args(["-q"]).into()]
}

fn plugin_name(folder: &Path) -> Result<String, ProjectError> {
    let name = at(&read(folder)?, &["project", "name"]).and_then(|name| name.as_str().map(str::to_owned));
    name.ok_or_else(|| wrong(folder, "it has no [project] with a name"))
}

/// Where Python looks for modules, for the tests and for the component.
fn python_path(folder: &Path) -> Result<Vec<String>, ProjectError> {
    let settings = read(folder)?;
    let folders = at(&settings, &["tool", "pytest", "ini_options", "pythonpath"]).and_then(Value::as_array);
    let folders = folders.map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>());
    folders
        .filter(|folders| !folders.is_empty())
        .ok_or_else(|| wrong(folder, "[tool.pytest.ini_options] has no pythonpath: name `.` and the folder of the SDK"))
}

fn read(folder: &Path) -> Result<Table, ProjectError> {
    manifest(folder, MANIFEST)?.parse().map_err(|error: toml::de::Error| wrong(folder, error.message()))
}

fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (last, tables) = path.split_last()?;
    tables.iter().try_fold(table, |table, name| table.get(*name)?.as_table())?.get(*last)
}

fn wrong(folder: &Path, what: &str) -> ProjectError {
    ProjectError::Manifest { file: folder.join(MANIFEST), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: &str = "[tool.pytest.ini_options]\npythonpath = [\".\", \"wirehook-sdk/src\"]\n";

    fn project(manifest: &str) -> (tempfile::TempDir, Result<Project, ProjectError>) {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(MANIFEST), manifest).unwrap();
        fs::write(root.path().join(PLUGIN), "").unwrap();
        let project = Project::open(root.path());
        (root, project)
    }

    #[test]
    fn the_contract_is_written_and_the_component_made_of_every_folder() {
        let (_root, project) = project(&format!("[project]\nname = \"orders\"\n{PATHS}"));
        let project = project.unwrap();
        let plan = build(&project).unwrap();
        let lines: Vec<_> = plan.steps.iter().map(ToString::to_string).collect();
        let product = project.path("build/orders.wasm");
        assert_eq!(
            lines,
            [
                "writing the contract to build/wit".to_owned(),
                format!(
                    "componentize-py -d build/wit -w subscriber componentize wirehook._component --stub-wasi -p . -p wirehook-sdk/src -o {}",
                    product.display()
                ),
            ]
        );
        assert_eq!(plan.product, product);
    }

    #[test]
    fn what_the_manifest_lacks_is_told() {
        assert!(project("[project]\n").1.unwrap_err().to_string().contains("no [project] with a name"));
        assert!(project("[project\n").1.unwrap_err().to_string().contains(MANIFEST));
        let (_root, project) = project("[project]\nname = \"orders\"\n");
        assert!(build(&project.unwrap()).unwrap_err().to_string().contains("pythonpath"));
    }
}
