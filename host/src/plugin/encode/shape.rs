//! Whether a core module that was written by hand follows the ABI of `wit/abi.md`, said in the words of that page. What
//! the encoder would say of it speaks of the encoder.

use std::collections::BTreeMap;
use std::fmt;

use wasmparser::types::{EntityType, TypesRef};
use wasmparser::{ValType, Validator};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Function, Resolve, WorldId, WorldItem};

use crate::plugin::linker::HANDLER;

/// The page that says it all.
const PAGE: &str = "wit/abi.md";

/// The type of a core function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Signature {
    params: Vec<ValType>,
    results: Vec<ValType>,
}

/// What a module must have, and what it may import.
pub(super) struct Shape {
    exports: BTreeMap<String, Signature>,
    optional_exports: BTreeMap<String, Signature>,
    imports: BTreeMap<(String, String), Signature>,
}

impl Shape {
    /// What the world asks for.
    pub(super) fn of(resolve: &Resolve, world: WorldId) -> Self {
        let pointer = || ValType::I32;
        let realloc = Signature { params: vec![pointer(); 4], results: vec![pointer()] };
        let initialize = Signature { params: Vec::new(), results: Vec::new() };
        let mut shape = Self {
            exports: BTreeMap::from([("cabi_realloc".to_owned(), realloc)]),
            optional_exports: BTreeMap::from([("_initialize".to_owned(), initialize)]),
            imports: BTreeMap::new(),
        };
        for (interface, function) in functions(resolve, &resolve.worlds[world].exports) {
            let signature = Signature::of(resolve, AbiVariant::GuestExport, function);
            let name = format!("{interface}#{}", function.name);
            let post = Signature { params: signature.results.clone(), results: Vec::new() };
            shape.optional_exports.insert(format!("cabi_post_{name}"), post);
            shape.exports.insert(name, signature);
        }
        for (interface, function) in functions(resolve, &resolve.worlds[world].imports) {
            let signature = Signature::of(resolve, AbiVariant::GuestImport, function);
            shape.imports.insert((interface, function.name.clone()), signature);
        }
        shape
    }

    /// What is wrong with the module, for its author. A module that is not valid at all is left to the encoder.
    pub(super) fn check(&self, core: &[u8]) -> Result<(), String> {
        let Ok(types) = Validator::new().validate_all(core) else { return Ok(()) };
        let types = types.as_ref();
        let exports: BTreeMap<&str, EntityType> = types.core_exports().into_iter().flatten().collect();
        Self::check_memory(&exports)?;
        for (name, expected) in &self.exports {
            let found = exports.get(name.as_str()).ok_or_else(|| missing(name, expected, &exports))?;
            matches(&format!("its export `{name}`"), types, found, expected)?;
        }
        for (name, expected) in &self.optional_exports {
            if let Some(found) = exports.get(name.as_str()) {
                matches(&format!("its export `{name}`"), types, found, expected)?;
            }
        }
        for (module, name, found) in types.core_imports().into_iter().flatten() {
            if let Some(expected) = self.imports.get(&(module.to_owned(), name.to_owned())) {
                matches(&format!("its import `{name}` from `{module}`"), types, &found, expected)?;
            }
        }
        Ok(())
    }

    /// Every export that is a function, with its type in words.
    #[cfg(test)]
    pub(super) fn described_exports(&self) -> BTreeMap<String, String> {
        let all = self.exports.iter().chain(&self.optional_exports);
        all.map(|(name, signature)| (name.clone(), signature.to_string())).collect()
    }

    /// Every import, as `module name`, with its type in words.
    #[cfg(test)]
    pub(super) fn described_imports(&self) -> BTreeMap<String, String> {
        let all = self.imports.iter();
        all.map(|((module, name), signature)| (format!("{module} {name}"), signature.to_string())).collect()
    }

    fn check_memory(exports: &BTreeMap<&str, EntityType>) -> Result<(), String> {
        match exports.get("memory") {
            Some(EntityType::Memory(memory)) if memory.memory64 || memory.shared => {
                Err(format!("its memory has 64-bit addresses or is shared: build it for plain wasm32 (see {PAGE})"))
            }
            Some(EntityType::Memory(_)) => Ok(()),
            Some(_) => Err(format!("its export `memory` is no memory (see {PAGE})")),
            None => Err(format!(
                "it does not export its memory under the name `memory`, where the host writes the event (see {PAGE})"
            )),
        }
    }
}

impl Signature {
    fn of(resolve: &Resolve, variant: AbiVariant, function: &Function) -> Self {
        let signature = resolve.wasm_signature(variant, function);
        let values = |types: &[WasmType]| types.iter().copied().map(value).collect();
        Self { params: values(&signature.params), results: values(&signature.results) }
    }
}

impl fmt::Display for Signature {
    /// As in `(i32, i32) -> i32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |types: &[ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "({}) -> ", words(&self.params))?;
        match &self.results[..] {
            [one] => write!(f, "{one}"),
            several => write!(f, "({})", words(several)),
        }
    }
}

/// The functions of the interfaces among `items`, each with its interface's name.
fn functions<'a>(
    resolve: &'a Resolve,
    items: impl IntoIterator<Item = (&'a wit_parser::WorldKey, &'a WorldItem)>,
) -> impl Iterator<Item = (String, &'a Function)> {
    items.into_iter().flat_map(move |(key, item)| {
        let interface = if let WorldItem::Interface { id, .. } = item { Some(&resolve.interfaces[*id]) } else { None };
        let name = resolve.name_world_key(key);
        let functions = interface.into_iter().flat_map(|interface| interface.functions.values());
        functions.map(move |function| (name.clone(), function))
    })
}

fn value(of: WasmType) -> ValType {
    match of {
        WasmType::I64 | WasmType::PointerOrI64 => ValType::I64,
        WasmType::F32 => ValType::F32,
        WasmType::F64 => ValType::F64,
        WasmType::I32 | WasmType::Pointer | WasmType::Length => ValType::I32,
    }
}

fn missing(name: &str, expected: &Signature, exports: &BTreeMap<&str, EntityType>) -> String {
    if name == "cabi_realloc" {
        return format!(
            "it does not export `cabi_realloc`, by which the host asks for memory for the event: {expected} (see {PAGE})"
        );
    }
    let of_handler: Vec<_> = exports.keys().filter(|export| export.starts_with(HANDLER)).copied().collect();
    format!("it does not export `{name}`, {expected}, but `{}` (see {PAGE})", of_handler.join("`, `"))
}

fn matches(what: &str, types: TypesRef<'_>, found: &EntityType, expected: &Signature) -> Result<(), String> {
    let id = match found {
        EntityType::Func(id) | EntityType::FuncExact(id) => *id,
        _ => return Err(format!("{what} is no function; it must be {expected} (see {PAGE})")),
    };
    let function = types[id].unwrap_func();
    let found = Signature { params: function.params().to_vec(), results: function.results().to_vec() };
    if found == *expected {
        return Ok(());
    }
    Err(format!("{what} has the core type {found}; it must be {expected} (see {PAGE})"))
}

#[cfg(test)]
mod tests {
    use super::super::encode;

    const REALLOC: &str = r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)"#;
    const MEMORY: &str = r#"(memory (export "memory") 1)"#;
    const ON_EVENT: &str =
        r#"(func (export "wirehook:plugin/handler@0.1.0#on-event") (param i32) (result i32) unreachable)"#;

    fn check(parts: &[&str], expected: &str) {
        let module = wat::parse_str(format!("(module {})", parts.concat())).unwrap();
        match encode(&module) {
            Ok(_) => assert_eq!(expected, "", "{parts:?}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!expected.is_empty() && error.contains(expected) && error.contains("wit/abi.md"), "{error}");
            }
        }
    }

    #[test]
    fn what_follows_the_abi_is_taken() {
        check(&[MEMORY, REALLOC, ON_EVENT], "");
        let post = r#"(func (export "cabi_post_wirehook:plugin/handler@0.1.0#on-event") (param i32))"#;
        let begin = r#"(func (export "_initialize"))"#;
        let log = r#"(import "wirehook:plugin/log@0.1.0" "log" (func (param i32 i32 i32)))"#;
        let get = r#"(import "wirehook:plugin/config@0.1.0" "get" (func (param i32 i32 i32)))"#;
        let all = r#"(import "wirehook:plugin/config@0.1.0" "all" (func (param i32)))"#;
        check(&[log, get, all, MEMORY, REALLOC, ON_EVENT, post, begin], "");
    }

    #[test]
    fn what_is_missing_is_named() {
        check(&[REALLOC, ON_EVENT], "it does not export its memory under the name `memory`");
        check(&[MEMORY, ON_EVENT], "it does not export `cabi_realloc`");
        check(&[MEMORY, ON_EVENT], "(i32, i32, i32, i32) -> i32");
        let other = ON_EVENT.replace("on-event", "on_event");
        check(
            &[MEMORY, REALLOC, &other],
            "does not export `wirehook:plugin/handler@0.1.0#on-event`, (i32) -> i32, but `wirehook:plugin/handler@0.1.0#on_event`",
        );
    }

    #[test]
    fn what_has_another_type_is_shown_with_what_it_must_be() {
        let on_event = ON_EVENT.replace("(param i32)", "(param i32 i64)");
        check(&[MEMORY, REALLOC, &on_event], "#on-event` has the core type (i32, i64) -> i32; it must be (i32) -> i32");
        let realloc = REALLOC.replace("(result i32)", "");
        check(&[MEMORY, &realloc, ON_EVENT], "`cabi_realloc` has the core type (i32, i32, i32, i32) -> (); it must be");
        let post = r#"(func (export "cabi_post_wirehook:plugin/handler@0.1.0#on-event"))"#;
        check(&[MEMORY, REALLOC, ON_EVENT, post], "has the core type () -> (); it must be (i32) -> ()");
        let log = r#"(import "wirehook:plugin/log@0.1.0" "log" (func (param i32 i32)))"#;
        check(
            &[log, MEMORY, REALLOC, ON_EVENT],
            "its import `log` from `wirehook:plugin/log@0.1.0` has the core type (i32, i32) -> (); it must be (i32, i32, i32) -> ()",
        );
        check(&[r#"(global (export "memory") i32 (i32.const 0))"#, REALLOC, ON_EVENT], "`memory` is no memory");
        check(&[r#"(memory (export "memory") i64 1)"#, REALLOC, ON_EVENT], "64-bit addresses");
        let table = r#"(table (export "cabi_realloc") 1 funcref)"#;
        check(&[MEMORY, table, ON_EVENT], "its export `cabi_realloc` is no function; it must be");
    }
}
