//! C: clang and wasi-libc make a core module, which the host makes a component. The project's manifest is
//! `compile_flags.txt`, which compilers and clangd read as well.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::encode::encode_step;
use super::{BuildPlan, Language, Project, ProjectError, Run, SdkFile, Step, TemplateFile, Tool, manifest};

/// The flags of every compilation, one a line.
const FLAGS_FILE: &str = "compile_flags.txt";
/// The flag that names the plugin.
const NAME_FLAG: &str = "-DWIREHOOK_PLUGIN=";
/// Where a project's build leaves what it makes.
const BUILD_FOLDER: &str = "build";
/// Where the plugin's sources are, and those of its tests.
const SOURCE_FOLDER: &str = "src";
const TEST_FOLDER: &str = "tests";
/// Source files of a project that are compiled.
const SOURCES_MAX: usize = 1_000;

/// The SDK's sources, which are compiled with the plugin: everywhere, in the component, in the native tests.
const SDK_SOURCES: [&str; 2] = ["wirehook.c", "wirehook_json.c"];
const SDK_COMPONENT: &str = "wirehook_component.c";
const SDK_TEST: &str = "wirehook_test.c";

/// A reactor has no main. The stack comes first in memory, so that one that overflows traps and overwrites nothing.
const COMPONENT_FLAGS: [&str; 9] = [
    "--target=wasm32-wasi",
    "-mexec-model=reactor",
    "-Os",
    "-flto",
    "-fvisibility=hidden",
    "-Wl,--gc-sections",
    "-Wl,--strip-all",
    "-Wl,--stack-first",
    "-Wl,-z,stack-size=65536",
];

/// What reads or writes outside, or overflows, ends the native tests.
const TEST_FLAGS: [&str; 3] = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// What installs the whole toolchain.
macro_rules! install {
    () => {
        "run `sudo apt-get install clang lld wasi-libc libclang-rt-dev-wasm32`, or install what your system calls them"
    };
}

static CLANG: Tool = Tool { program: "clang", folders: &[], install: install!() };

static WASM_LD: Tool = Tool { program: "wasm-ld", folders: &[], install: install!() };

static CC: Tool = Tool {
    program: "cc",
    folders: &[],
    install: "run `sudo apt-get install build-essential`, or install a C compiler",
};

static SHELL: Tool = Tool { program: "sh", folders: &[], install: "it is part of every Unix" };

pub(super) static C: Language = Language {
    name: "c",
    aliases: &[],
    title: "C",
    is_project: |folder| folder.join(FLAGS_FILE).is_file(),
    plugin_name,
    template: &[
        TemplateFile { path: FLAGS_FILE, text: include_str!("../../templates/c/compile_flags.txt") },
        TemplateFile { path: ".gitignore", text: include_str!("../../templates/c/gitignore") },
        TemplateFile { path: "src/{{ident}}.c", text: include_str!("../../templates/c/plugin.c") },
        TemplateFile { path: "tests/{{ident}}_test.c", text: include_str!("../../templates/c/plugin_test.c") },
    ],
    sdk,
    build,
    test,
    output_folders: &[BUILD_FOLDER],
};

/// The SDK's sources, where they are in this repository and in a project.
macro_rules! sources {
    ($($path:literal)*) => {
        vec![$(SdkFile::new(concat!("wirehook-sdk/", $path), include_bytes!(concat!("../../../sdk/c/", $path)))),*]
    };
}

fn sdk() -> Vec<SdkFile> {
    sources![
        "README.md" "wirehook.h" "wirehook_host.h" "wirehook.c" "wirehook_json.c" "wirehook_component.c"
        "wirehook_test.h" "wirehook_test.c"
    ]
}

fn build(project: &Project) -> Result<BuildPlan, ProjectError> {
    let folder = project.path(BUILD_FOLDER);
    let core = folder.join(format!("{}.core.wasm", project.name));
    let product = folder.join(format!("{}.wasm", project.name));
    let sdk = sdk_folder(project)?;
    let compile = Run::new(&CLANG)
        .args([format!("@{FLAGS_FILE}")])
        .args(COMPONENT_FLAGS)
        .args(sources(project, SOURCE_FOLDER)?)
        .args(SDK_SOURCES.iter().chain([&SDK_COMPONENT]).map(|file| format!("{sdk}/{file}")))
        .args(["-o".into(), OsString::from(&core)])
        .needs(&WASM_LD)
        .help(concat!(
            "where it finds no `stdlib.h`, `crt1-reactor.o` or `libclang_rt.builtins-wasm32.a`, ",
            install!(),
            "; where `wh_on_event` is undefined, no source defines the plugin's function"
        ));
    let shown = format!("{BUILD_FOLDER}/{}.wasm", project.name);
    let encode = encode_step(core, product.clone(), &shown, "wirehook_component.c of the SDK is compiled with it");
    Ok(BuildPlan { steps: vec![make_folder(project), compile.into(), encode], product })
}

/// A project that is not in order has no test: its build says why.
fn test(project: &Project) -> Vec<Step> {
    let compile = || {
        let sdk = sdk_folder(project)?;
        let run = Run::new(&CC)
            .args([format!("@{FLAGS_FILE}")])
            .args(TEST_FLAGS)
            .args(sources(project, SOURCE_FOLDER)?)
            .args(sources(project, TEST_FOLDER)?)
            .args(SDK_SOURCES.iter().chain([&SDK_TEST]).map(|file| format!("{sdk}/{file}")))
            .args(["-o", "tests.out"]);
        Ok::<_, ProjectError>(run)
    };
    match compile() {
        Ok(compile) => vec![compile.into(), Run::new(&SHELL).args(["-c", "./tests.out"]).into()],
        Err(error) => {
            let error = error.to_string();
            vec![Step::Work { what: "looking for the tests".to_owned(), work: Box::new(move || Err(error.clone())) }]
        }
    }
}

fn make_folder(project: &Project) -> Step {
    let folder = project.path(BUILD_FOLDER);
    let work = Box::new(move || fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display())));
    Step::Work { what: format!("making the folder {BUILD_FOLDER}"), work }
}

/// The files of C in a folder of the project, from the project's folder, by name.
fn sources(project: &Project, folder: &str) -> Result<Vec<String>, ProjectError> {
    let wrong = |what: String| ProjectError::Manifest { file: project.path(folder), what };
    let entries = fs::read_dir(project.path(folder)).map_err(|error| wrong(format!("it can't be read: {error}")))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".c")).take(SOURCES_MAX + 1).collect();
    if names.is_empty() || names.len() > SOURCES_MAX {
        return Err(wrong(format!("it must have 1 to {SOURCES_MAX} files that end in .c")));
    }
    names.sort();
    Ok(names.into_iter().map(|name| format!("{folder}/{name}")).collect())
}

fn flags(folder: &Path) -> Result<Vec<String>, ProjectError> {
    Ok(manifest(folder, FLAGS_FILE)?.lines().map(|line| line.trim().to_owned()).collect())
}

/// The folder among those of headers that has the SDK's.
fn sdk_folder(project: &Project) -> Result<String, ProjectError> {
    let flags = flags(&project.folder)?;
    let folder = flags.iter().filter_map(|flag| flag.strip_prefix("-I")).map(str::trim);
    folder.map(str::to_owned).find(|folder| project.path(folder).join("wirehook.h").is_file()).ok_or_else(|| {
        ProjectError::Manifest {
            file: project.path(FLAGS_FILE),
            what: "no line `-IFOLDER` of it leads to wirehook.h: add the SDK's folder".to_owned(),
        }
    })
}

/// What the flags define `WIREHOOK_PLUGIN` to be.
fn plugin_name(folder: &Path) -> Result<String, ProjectError> {
    let flags = flags(folder)?;
    let name = flags.iter().find_map(|flag| flag.strip_prefix(NAME_FLAG)).filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| ProjectError::Manifest {
        file: folder.join(FLAGS_FILE),
        what: format!("it does not name the plugin: add a line `{NAME_FLAG}NAME`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(flags: &str) -> (tempfile::TempDir, Result<Project, ProjectError>) {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [(FLAGS_FILE, flags), ("src/b.c", ""), ("src/a.c", ""), ("src/a.h", ""), ("tests/t.c", "")]
        {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        fs::create_dir(folder.path().join("sdk")).unwrap();
        fs::write(folder.path().join("sdk/wirehook.h"), "").unwrap();
        let project = Project::open(folder.path());
        (folder, project)
    }

    #[test]
    fn the_flags_name_the_plugin_and_lead_to_the_sdk() {
        let check = |flags: &str| {
            let (_folder, project) = project(flags);
            let project = project.map_err(|error| error.to_string())?;
            build(&project).map(|_| project.name.clone()).map_err(|error| error.to_string())
        };
        assert_eq!(check("-Wall\n-DWIREHOOK_PLUGIN=order-mails\n-Inowhere\n-Isdk\n"), Ok("order-mails".to_owned()));
        assert!(check("-Isdk\n").unwrap_err().contains("add a line `-DWIREHOOK_PLUGIN=NAME`"));
        assert!(check("-DWIREHOOK_PLUGIN=a\n-Inowhere").unwrap_err().contains("-IFOLDER"));
    }

    #[test]
    fn a_folder_without_sources_is_told_of() {
        let (folder, project) = project("-DWIREHOOK_PLUGIN=a\n-Isdk\n");
        fs::remove_dir_all(folder.path().join("src")).unwrap();
        let project = project.unwrap();
        assert!(build(&project).unwrap_err().to_string().contains("/src: it can't be read"));
        fs::create_dir(folder.path().join("src")).unwrap();
        assert!(build(&project).unwrap_err().to_string().contains("/src: it must have 1 to 1000 files"));
        assert_eq!(test(&project).len(), 1, "the tests say so too");
    }

    #[test]
    fn the_sources_are_compiled_with_the_sdk_for_wasi_and_for_this_machine() {
        let (_folder, project) = project("-DWIREHOOK_PLUGIN=orders\n-Isdk\n");
        let project = project.unwrap();
        let line = |step: &Step| step.to_string();
        let plan = build(&project).unwrap();
        let lines: Vec<_> = plan.steps.iter().map(line).collect();
        assert!(
            lines[1].starts_with("clang @compile_flags.txt --target=wasm32-wasi -mexec-model=reactor"),
            "{lines:?}"
        );
        let end = format!(
            "src/a.c src/b.c sdk/wirehook.c sdk/wirehook_json.c sdk/wirehook_component.c -o {}",
            project.path("build/orders.core.wasm").display()
        );
        assert!(lines[1].ends_with(&end), "{lines:?}");
        assert_eq!(plan.product, project.path("build/orders.wasm"));
        let lines: Vec<_> = test(&project).iter().map(line).collect();
        let end = "src/a.c src/b.c tests/t.c sdk/wirehook.c sdk/wirehook_json.c sdk/wirehook_test.c -o tests.out";
        assert!(lines[0].starts_with("cc @compile_flags.txt -g") && lines[0].ends_with(end), "{lines:?}");
        assert_eq!(lines[1], "sh -c ./tests.out");
    }
}
