//! What the host offers to plugins, and whether a plugin fits it, told to its author.

use std::collections::BTreeSet;

use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{Component, ComponentNamedList, InstancePre, Lift, Linker, Lower};

use super::bindings::AllCapabilitiesPre;
use super::bindings::exports::wirehook::plugin::handler::{Event, Failure, Webhook};
use super::call::CallState;
use super::capability::{config, http, log, state, wasi};
use super::engine::Engine;
use super::grant::Grant;
use super::loader::LoadError;

/// The interface a plugin exports.
pub const HANDLER: &str = "wirehook:plugin/handler@0.1.0";
/// What [`HANDLER`] must have in it.
pub(super) const SIGNATURE: &str = "on-event: func(event: event) -> result<list<webhook>, failure>";
/// The handler's function.
const FUNCTION: &str = "on-event";
/// The types of the contract; nothing in it needs to be provided.
const TYPES_INTERFACE: &str = "wirehook:plugin/types@0.1.0";

/// Everything a plugin may import.
pub(super) fn build(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<CallState>> {
    let mut linker = Linker::new(engine);
    wasi::add_to_linker(&mut linker)?;
    log::add_to_linker(&mut linker)?;
    config::add_to_linker(&mut linker)?;
    state::add_to_linker(&mut linker)?;
    http::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Checks that `component` fits the host and what it is granted, and prepares it to be instantiated.
pub(super) fn link(
    engine: &Engine,
    component: &Component,
    grants: &BTreeSet<Grant>,
) -> Result<AllCapabilitiesPre<CallState>, LoadError> {
    let world = component.component_type();
    check_handler(engine.wasmtime(), &world)?;
    check_imports(engine.wasmtime(), &world)?;
    check_grants(engine.wasmtime(), &world, grants)?;
    let instance: InstancePre<CallState> = engine
        .linker()
        .instantiate_pre(component)
        .map_err(|error| LoadError::ImportMismatch { detail: format!("{error:#}") })?;
    AllCapabilitiesPre::new(instance).map_err(|error| LoadError::HandlerMismatch { detail: format!("{error:#}") })
}

/// The version of the handler that `exports` has, where it has one at all.
pub(super) fn handler_version<'a>(exports: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (base, _) = split_version(HANDLER);
    exports.into_iter().map(split_version).find_map(|(name, version)| (name == base).then_some(version.unwrap_or("")))
}

fn check_handler(engine: &wasmtime::Engine, world: &types::Component) -> Result<(), LoadError> {
    let Some(export) = world.get_export(engine, HANDLER) else {
        let exports: Vec<&str> = world.exports(engine).map(|(name, _)| name).collect();
        return Err(match handler_version(exports.iter().copied()) {
            Some(version) => LoadError::HandlerVersion { found: version.to_owned() },
            None => LoadError::HandlerMissing { exports: listed(&exports) },
        });
    };
    let mismatch = |detail: &str| LoadError::HandlerMismatch { detail: detail.to_owned() };
    let ComponentItem::ComponentInstance(instance) = export.ty else {
        return Err(mismatch("it is not an interface"));
    };
    let Some(function) = instance.get_export(engine, FUNCTION) else {
        return Err(mismatch("it has no `on-event`"));
    };
    let ComponentItem::ComponentFunc(function) = function.ty else {
        return Err(mismatch("`on-event` is not a function"));
    };
    fits::<(Event<'_>,), (Result<Vec<Webhook>, Failure>,)>(&function, world)
        .map_err(|error| LoadError::HandlerMismatch { detail: format!("{error:#}") })
}

fn fits<P, R>(function: &types::ComponentFunc, world: &types::Component) -> wasmtime::Result<()>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift,
{
    function.typecheck::<P, R>(&world.instance_type())
}

pub(super) fn check_imports(engine: &wasmtime::Engine, world: &types::Component) -> Result<(), LoadError> {
    let unknown: Vec<&str> = world
        .imports(engine)
        .filter(|(name, import)| !is_offered(name) && needs_something(engine, &import.ty))
        .map(|(name, _)| name)
        .collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(LoadError::ImportUnknown { imports: listed(&unknown), hint: hint(&unknown) })
    }
}

fn check_grants(
    engine: &wasmtime::Engine,
    world: &types::Component,
    grants: &BTreeSet<Grant>,
) -> Result<(), LoadError> {
    let needed = |import: &str| Grant::ALL.iter().copied().find(|grant| is_compatible(grant.interface(), import));
    let imports = world.imports(engine).filter(|(_, import)| needs_something(engine, &import.ty));
    match imports.filter_map(|(name, _)| needed(name)).find(|grant| !grants.contains(grant)) {
        Some(grant) => Err(LoadError::GrantMissing { grant, interface: grant.interface() }),
        None => Ok(()),
    }
}

/// Types alone need nothing from the host.
fn needs_something(engine: &wasmtime::Engine, import: &ComponentItem) -> bool {
    match import {
        ComponentItem::Type(_) => false,
        ComponentItem::ComponentInstance(instance) => {
            instance.exports(engine).any(|(_, export)| !matches!(export.ty, ComponentItem::Type(_)))
        }
        _ => true,
    }
}

fn is_offered(import: &str) -> bool {
    let (base, version) = split_version(import);
    let package = base.split('/').next().unwrap_or(base);
    if wasi::PACKAGES.contains(&package) {
        return version.is_some_and(|version| version.starts_with("0.2."));
    }
    let granted = Grant::ALL.iter().map(|grant| grant.interface());
    [log::INTERFACE, config::INTERFACE, TYPES_INTERFACE]
        .into_iter()
        .chain(granted)
        .any(|offered| is_compatible(offered, import))
}

fn is_compatible(offered: &str, import: &str) -> bool {
    let ((offered_base, offered_version), (base, version)) = (split_version(offered), split_version(import));
    offered_base == base && same_minor(offered_version, version)
}

/// Before 1.0, versions with the same minor number are compatible.
fn same_minor(one: Option<&str>, other: Option<&str>) -> bool {
    let minor = |version: Option<&str>| version.and_then(|v| v.rsplit_once('.')).map(|(minor, _)| minor.to_owned());
    minor(one) == minor(other)
}

fn split_version(name: &str) -> (&str, Option<&str>) {
    name.split_once('@').map_or((name, None), |(base, version)| (base, Some(version)))
}

fn hint(unknown: &[&str]) -> &'static str {
    if unknown.iter().any(|name| name.starts_with("wasi:http")) {
        "a plugin sends nothing by `wasi:http`: it returns webhooks and the host delivers them; what it must ask others for goes through `wirehook:plugin/http`, where granted"
    } else if unknown.iter().any(|name| name.starts_with("wasi:") && name.contains("@0.3")) {
        "it was built for WASI 0.3, which is asynchronous: build it for WASI 0.2 (`wasm32-wasip2`)"
    } else if unknown.iter().any(|name| name.starts_with("wirehook:plugin/")) {
        "it was built for another version of wirehook:plugin: build it with the SDK of this host's version"
    } else {
        "remove what needs it, or compose it into the component"
    }
}

fn listed(names: &[&str]) -> String {
    /// Names shown in one error.
    const SHOWN_MAX: usize = 12;
    let mut text = names
        .iter()
        .take(SHOWN_MAX)
        .map(|name| format!("`{}`", super::limits::detail(name)))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN_MAX {
        text.push_str(&format!(" and {} more", names.len() - SHOWN_MAX));
    }
    if text.is_empty() { "nothing".to_owned() } else { text }
}

/// What a plugin may import, for people.
pub(super) fn offered() -> String {
    format!(
        "`{}`, `{}`, where granted `{}` and `{}`, and WASI 0.2 without files, network or variables ({})",
        log::INTERFACE,
        config::INTERFACE,
        state::INTERFACE,
        http::INTERFACE,
        wasi::PACKAGES.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offered_imports() {
        let check = |import: &str, expected: bool| assert_eq!(is_offered(import), expected, "{import}");
        check("wirehook:plugin/log@0.1.0", true);
        check("wirehook:plugin/log@0.1.7", true);
        check("wirehook:plugin/log@0.2.0", false);
        check("wirehook:plugin/log", false);
        check("wirehook:plugin/http@0.1.0", true);
        check("wirehook:plugin/sockets@0.1.0", false);
        check("wasi:cli/stdout@0.2.3", true);
        check("wasi:cli/stdout@0.3.0", false);
        check("wasi:http/outgoing-handler@0.2.0", false);
    }

    #[test]
    fn the_version_of_a_handler() {
        assert_eq!(handler_version(["a:b/c@1.0.0", "wirehook:plugin/handler@0.2.0"]), Some("0.2.0"));
        assert_eq!(handler_version(["wirehook:plugin/handlers@0.2.0"]), None);
    }
}
