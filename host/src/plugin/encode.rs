//! From a toolchain's core module to a component: the contract is embedded where the toolchain can't, and WASI 0.1 is
//! served inside the component where the toolchain can't do without it.

mod shape;

use std::fmt::Display;

use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

use self::shape::Shape;
use super::limits::detail;
use super::linker::HANDLER;
use super::loader::LoadError;

/// The contract's text.
const CONTRACT: &str = include_str!("../../../wit/subscriber.wit");
/// The name it has in messages.
const CONTRACT_FILE: &str = "subscriber.wit";
/// The world of the contract that a plugin is made for: what it does not import is left out of the component.
const WORLD: &str = "wirehook:plugin/all-capabilities";
/// What the module begins with that wasm-bindgen has a crate import until it has written the JavaScript for it.
const BROWSER: &str = "__wbindgen_";
/// Why that is no plugin.
const FOR_BROWSERS: &str = "it imports `__wbindgen_placeholder__`, so a crate in it was built for browsers: \
    `cargo tree -i wasm-bindgen --target wasm32-unknown-unknown` names it; turn that feature off (`wasmbind` of chrono, \
    `js` or `wasm_js` of getrandom and uuid, `wasm-bindgen` of time)";
/// The module that toolchains of WASI 0.1 import.
const PREVIEW1: &str = "wasi_snapshot_preview1";
/// What serves it: assembled by the build script.
const PREVIEW1_STUB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/wasi_stub.wasm"));

/// What decides about how a core module is encoded.
#[derive(Default)]
struct Needs {
    has_component_type: bool,
    exports_handler: bool,
    imports_preview1: bool,
    imports_browser: bool,
}

/// Makes a component of a core module. Give it nothing but a core module; it may panic on hostile input, as what it
/// is built on does.
///
/// # Errors
/// [`LoadError::Invalid`], [`LoadError::NoComponentType`] or [`LoadError::Encode`], for the plugin's author.
pub fn encode(core: &[u8]) -> Result<Vec<u8>, LoadError> {
    let needs = needs(core).map_err(|error| LoadError::Invalid { detail: error.to_string() })?;
    if needs.imports_browser {
        return Err(LoadError::Encode { detail: FOR_BROWSERS.to_owned() });
    }
    match needs {
        Needs { has_component_type: true, .. } => component(core, needs.imports_preview1),
        Needs { exports_handler: true, .. } => component(&embed(core)?, needs.imports_preview1),
        _ => Err(LoadError::NoComponentType),
    }
}

fn needs(core: &[u8]) -> wasmparser::Result<Needs> {
    let mut needs = Needs::default();
    for payload in Parser::new(0).parse_all(core) {
        match payload? {
            Payload::CustomSection(section) => {
                needs.has_component_type |= section.name().starts_with("component-type");
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let module = import?.module;
                    needs.imports_preview1 |= module == PREVIEW1;
                    needs.imports_browser |= module.starts_with(BROWSER);
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    // `{interface}#{function}` is a function of the handler.
                    let name = export?.name.strip_prefix(HANDLER);
                    needs.exports_handler |= name.is_some_and(|rest| rest.starts_with('#'));
                }
            }
            _ => {}
        }
    }
    Ok(needs)
}

/// The world that a plugin is made for.
fn contract() -> Result<(Resolve, WorldId), LoadError> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str(CONTRACT_FILE, CONTRACT).map_err(failed)?;
    let world = resolve.select_world(&[package], Some(WORLD)).map_err(failed)?;
    Ok((resolve, world))
}

fn embed(core: &[u8]) -> Result<Vec<u8>, LoadError> {
    let (resolve, world) = contract()?;
    Shape::of(&resolve, world).check(core).map_err(|wrong| LoadError::Encode { detail: wrong })?;
    let mut core = core.to_vec();
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).map_err(failed)?;
    Ok(core)
}

fn component(core: &[u8], imports_preview1: bool) -> Result<Vec<u8>, LoadError> {
    let mut encoder = ComponentEncoder::default().validate(true).module(core).map_err(failed)?;
    if imports_preview1 {
        encoder = encoder.adapter(PREVIEW1, PREVIEW1_STUB).map_err(failed)?;
    }
    encoder.encode().map_err(failed)
}

fn failed(error: impl Display) -> LoadError {
    LoadError::Encode { detail: detail(&format!("{error:#}")) }
}

#[cfg(test)]
mod abi_tests;
#[cfg(test)]
mod tests;
