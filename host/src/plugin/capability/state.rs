//! `wirehook:plugin/state`: what the plugin keeps between events.

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, WasmList, WasmStr};

use crate::plugin::bindings::wirehook::plugin::state::Refused as Answer;
use crate::plugin::call::CallState;
use crate::plugin::state::{Broken, Refused, VALUE_BYTES_MAX};

/// The interface's name.
pub(in crate::plugin) const INTERFACE: &str = "wirehook:plugin/state@0.1.0";

/// Offers the interface. Which plugins may import it is decided before they are linked.
pub(in crate::plugin) fn add_to_linker(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance(INTERFACE)?;
    instance.func_wrap("get", |mut store: StoreContextMut<'_, CallState>, (key,): (WasmStr,)| {
        let key = key.to_str(&store)?.into_owned();
        let value = end_if_broken(&mut store, |state| state.session.get(&key))?;
        Ok((value.map(Vec::from),))
    })?;
    instance.func_wrap("set", |mut store: StoreContextMut<'_, CallState>, (key, value): (WasmStr, WasmList<u8>)| {
        let key = key.to_str(&store)?.into_owned();
        // Looked at before it is copied out of the guest.
        let value = if value.len() > VALUE_BYTES_MAX {
            return Ok((Err(Answer::Value),));
        } else {
            Bytes::copy_from_slice(value.as_le_slice(&store))
        };
        let set = end_if_broken(&mut store, |state| state.session.set(&key, value))?;
        Ok((set.map_err(Answer::from),))
    })?;
    instance.func_wrap("delete", |mut store: StoreContextMut<'_, CallState>, (key,): (WasmStr,)| {
        let key = key.to_str(&store)?.into_owned();
        end_if_broken(&mut store, |state| state.session.delete(&key))
    })
}

/// What ends the call is kept for its report: the guest's own trap says nothing of it.
fn end_if_broken<T>(
    store: &mut StoreContextMut<'_, CallState>,
    work: impl FnOnce(&mut CallState) -> Result<T, Broken>,
) -> wasmtime::Result<T> {
    let state = store.data_mut();
    work(state).map_err(|broken| {
        state.broken_state = Some(broken.clone());
        broken.into()
    })
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Key => Self::Key,
            Refused::Value => Self::Value,
            Refused::Full => Self::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::plugin::state::{Read, StateSource};
    use crate::plugin::{CallFailure, CallReport, Grant, Manifest, Plugin, Services, fixture};
    use crate::store::{StateChange, StateUsage, StateVersion, StoreError};

    /// A plugin that runs `body` with the interface at hand; the key `count` is 5 bytes at 512, what `get` gives is at
    /// 528, `set` answers at 544.
    fn call(body: &str, services: &Services) -> CallReport {
        let wat = fixture::guest_wat(body)
            .replace(
                "(memory (export",
                r#"(import "wirehook:plugin/state@0.1.0" "get" (func $get (param i32 i32 i32)))
                   (import "wirehook:plugin/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
                   (import "wirehook:plugin/state@0.1.0" "delete" (func $delete (param i32 i32)))
                   (memory (export"#,
            )
            .replace("currency", "count");
        let wasm = fixture::embed(&wat, &fixture::contract(), "wirehook:plugin/all-capabilities");
        let (engine, _dir) = fixture::engine();
        let granted = Manifest { grants: [Grant::State].into(), ..Manifest::default() };
        let refused = Plugin::load(&engine, "orders", &wasm, Manifest::default()).unwrap_err().to_string();
        assert!(refused.contains("takes the grant `state`"), "{refused}");
        let plugin = Plugin::load(&engine, "orders", &wasm, granted).unwrap();
        plugin.call_with(&fixture::event("{}"), 1, services)
    }

    const GET: &str = "(call $get (i32.const 512) (i32.const 5) (i32.const 528))";

    fn set(value_bytes: usize) -> String {
        format!("(call $set (i32.const 512) (i32.const 5) (i32.const 600) (i32.const {value_bytes}) (i32.const 544))")
    }

    #[test]
    fn what_a_call_writes_is_in_its_report() {
        let report = call(
            &format!(
                "{GET} {} {} {GET} {}",
                set(6),
                set(3),
                fixture::one_webhook("(i32.load (i32.const 532))", "(i32.load (i32.const 536))")
            ),
            &Services::default(),
        );
        assert_eq!(report.result.unwrap()[0].body, "a l", "it reads what it wrote");
        let expected =
            StateChange { reads: vec![("count".into(), None)], writes: vec![("count".into(), Some("a l".into()))] };
        assert_eq!(report.state.as_deref(), Some(&expected));
    }

    #[test]
    fn a_call_that_fails_wrote_nothing() {
        let report = call(&format!("{} (unreachable)", set(3)), &Services::default());
        assert!(matches!(report.result, Err(CallFailure::Trap(_))));
        assert_eq!(report.state, None);
    }

    #[test]
    fn a_value_that_is_too_large_is_refused_and_a_flood_ends_the_call() {
        let report = call(
            &format!("{} {}", set(65_537), fixture::one_webhook("(i32.const 544)", "(i32.const 2)")),
            &Services::default(),
        );
        assert_eq!(&report.result.unwrap()[0].body[..], [1, 1], "refused.value");
        let report = call(&format!("(loop {} (br 0)) (unreachable)", set(60_000)), &Services::default());
        let Err(CallFailure::Output(text)) = report.result else { panic!("{:?}", report.result) };
        assert_eq!(text, "300025 bytes written of state in one call; the limit is 262144");
    }

    #[test]
    fn a_store_that_can_not_be_read_is_not_the_plugin_s_fault() {
        struct Broken;
        impl StateSource for Broken {
            fn read(&self, _: &str, _: &str) -> Result<Read, StoreError> {
                Err(StoreError::Read("disk I/O error".to_owned()))
            }
            fn usage(&self, _: &str) -> Result<StateUsage, StoreError> {
                Ok(StateUsage::default())
            }
            fn publish(&self, _: &Arc<str>, _: StateVersion, _: &StateChange) {}
            fn settle(&self, _: &Arc<str>, _: StateVersion, _: &StateChange, _: bool) {}
        }
        let report = call(&format!("{GET} (unreachable)"), &Services { state: Arc::new(Broken) });
        let Err(CallFailure::Host(text)) = report.result else { panic!("{:?}", report.result) };
        assert!(text.contains("disk I/O error"), "{text}");
    }
}
