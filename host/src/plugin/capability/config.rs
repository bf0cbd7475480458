//! `wirehook:plugin/config`: the values of the sidecar's `[config]`, read only.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, WasmStr};

use crate::plugin::call::CallState;

/// The interface's name.
pub(in crate::plugin) const INTERFACE: &str = "wirehook:plugin/config@0.1.0";

/// Names and values, sorted by name; shared by every call, copied only into the guest's memory.
#[derive(Clone, Debug)]
pub(in crate::plugin) struct ConfigValues(Arc<[(Arc<str>, Arc<str>)]>);

impl ConfigValues {
    pub(in crate::plugin) fn new(values: &BTreeMap<String, String>) -> Self {
        Self(values.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect())
    }

    fn get(&self, name: &str) -> Option<Arc<str>> {
        let index = self.0.binary_search_by(|(candidate, _)| (**candidate).cmp(name)).ok()?;
        self.0.get(index).map(|(_, value)| value.clone())
    }
}

/// Offers the interface.
pub(in crate::plugin) fn add_to_linker(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance(INTERFACE)?;
    instance.func_wrap("get", |store: StoreContextMut<'_, CallState>, (name,): (WasmStr,)| {
        let name = name.to_str(&store)?;
        Ok((store.data().config.get(&name),))
    })?;
    instance.func_wrap("all", |store: StoreContextMut<'_, CallState>, (): ()| Ok((store.data().config.0.clone(),)))
}
