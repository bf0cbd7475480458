//! What is in a plugin's file, for its author: also where it does not load.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Serialize;
use wasmparser::{Encoding, Parser, Payload, Validator};

use super::LoadError;
use super::hollow::hollow;
use super::limits::detail;
use super::linker::handler_version;
use super::loader::{component_bytes, kind};
use super::{Engine, Grant, Kind, Manifest, Plugin, digest};

/// Names listed of each sort.
const NAMES_MAX: usize = 1_000;

/// What is in a plugin's file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Inspection {
    /// What it is; none where it is not WebAssembly.
    pub kind: Option<Kind>,
    /// Its size, in bytes.
    pub bytes: usize,
    /// Its lower-case hex SHA-256.
    pub digest: String,
    /// What it imports. Of a core module, what the component made of it imports, where one can be made.
    pub imports: Vec<String>,
    /// What it exports; as with imports.
    pub exports: Vec<String>,
    /// The version of the handler it exports.
    pub handler_version: Option<String>,
    /// Why it does not load; none where it does.
    pub load_error: Option<String>,
}

/// Looks into a file's bytes, and says whether they would load. That takes no machine code of them: what their functions do is
/// checked and not compiled.
pub fn inspect(engine: &Arc<Engine>, wasm: &[u8]) -> Inspection {
    let kind = kind(wasm).ok();
    let (imports, exports) = kind.map(|kind| names(kind, wasm)).unwrap_or_default();
    // What it is granted is the operator's to say; here it is whether it could run at all.
    let asking = Manifest { grants: Grant::ALL.iter().copied().collect(), ..Manifest::default() };
    let loaded = loads(engine, wasm, asking);
    Inspection {
        kind,
        bytes: wasm.len(),
        digest: digest(wasm),
        handler_version: handler_version(exports.iter().map(String::as_str)).map(str::to_owned),
        imports,
        exports,
        load_error: loaded.err().map(|error| error.to_string()),
    }
}

/// Whether it is valid, and its imports and exports are such that it would load. That is as good as compiling it, but for what
/// only a compiler finds out: that it takes too long, or too much memory.
fn loads(engine: &Arc<Engine>, wasm: &[u8], asking: Manifest) -> Result<(), LoadError> {
    let kind = kind(wasm)?;
    let panicked = || LoadError::CompilerPanicked { detail: "the encoder panicked".to_owned() };
    let component = catch_unwind(AssertUnwindSafe(|| component_bytes(kind, wasm))).map_err(|_| panicked())??;
    Validator::new()
        .validate_all(&component)
        .map_err(|error| LoadError::Invalid { detail: detail(&error.to_string()) })?;
    // One that is nested too deep is loaded whole.
    let hollow = hollow(&component);
    Plugin::load(engine, "inspected", hollow.as_deref().unwrap_or(wasm), asking).map(drop)
}

fn names(kind: Kind, wasm: &[u8]) -> (Vec<String>, Vec<String>) {
    // The encoder may panic on hostile input, as it may when a plugin is loaded.
    let component = catch_unwind(AssertUnwindSafe(|| component_bytes(kind, wasm)));
    let mut found = (Vec::new(), Vec::new());
    // What can be read of a broken file is shown; its fault is in `load_error`.
    let _fault = match &component {
        Ok(Ok(component)) => collect(component, &mut found),
        Ok(Err(_)) | Err(_) => collect(wasm, &mut found),
    };
    found
}

fn collect(wasm: &[u8], (imports, exports): &mut (Vec<String>, Vec<String>)) -> wasmparser::Result<()> {
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::Version { encoding: Encoding::Component | Encoding::Module, .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            // Only the outermost component or module is the plugin's own.
            _ if depth > 1 => {}
            Payload::ComponentImportSection(section) => {
                for import in section {
                    push(imports, import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    push(exports, export?.name.name.to_owned());
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    push(imports, format!("{}.{}", import.module, import.name));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    push(exports, export?.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn push(names: &mut Vec<String>, name: String) {
    if names.len() < NAMES_MAX {
        names.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{engine, guest};

    #[test]
    fn a_core_module_is_shown_as_the_component_made_of_it() {
        let (engine, _dir) = engine();
        let inspection = inspect(&engine, &guest("i32.const 1024"));
        assert_eq!(inspection.kind, Some(Kind::CoreModule));
        assert_eq!(inspection.exports, ["wirehook:plugin/handler@0.1.0"]);
        assert!(inspection.imports.contains(&"wirehook:plugin/log@0.1.0".to_owned()), "{:?}", inspection.imports);
        assert_eq!(inspection.handler_version.as_deref(), Some("0.1.0"));
        assert_eq!(inspection.load_error, None);
    }

    /// What a function does is checked, though nothing of it is compiled: this one would take a compiler far more memory.
    #[test]
    fn a_body_is_validated_and_not_compiled() {
        let (engine, _dir) = engine();
        let sound = inspect(&engine, &guest(&format!("{} i32.const 1024", "(drop (i32.const 7))".repeat(100_000))));
        assert_eq!(sound.load_error, None);
        let mut broken = guest("(drop (i32.const 7)) i32.const 1024");
        let body = [0x41, 0x07, 0x1a, 0x41, 0x80, 0x08];
        let at = broken.windows(body.len()).position(|bytes| bytes == body).expect("the body");
        // Instead of being dropped, the constant is left on the stack beside the result.
        broken[at + 2] = 0x01;
        let said = inspect(&engine, &broken).load_error.expect("it is refused");
        assert!(said.contains("valid"), "{said}");
    }

    #[test]
    fn a_file_that_does_not_load_is_shown_with_the_reason() {
        let (engine, _dir) = engine();
        let core = wat::parse_str("(module (import \"env\" \"f\" (func)) (memory (export \"memory\") 1))").unwrap();
        let inspection = inspect(&engine, &core);
        assert_eq!((inspection.imports, inspection.exports), (vec!["env.f".to_owned()], vec!["memory".to_owned()]));
        assert!(inspection.load_error.unwrap().contains("without a component type"));

        let inspection = inspect(&engine, b"hello");
        assert_eq!(inspection.kind, None);
        assert!(inspection.load_error.unwrap().contains("is text"));
    }
}
