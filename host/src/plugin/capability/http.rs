//! `wirehook:plugin/http`: what the plugin asks of other services.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use crate::endpoint::SHORTAGE;
use crate::plugin::bindings::wirehook::plugin::http::{Error, Request};
use crate::plugin::call::CallState;
use crate::plugin::http::REQUESTS_MAX;

/// The interface's name.
pub(in crate::plugin) const INTERFACE: &str = "wirehook:plugin/http@0.1.0";

/// Offers the interface. Which plugins may import it is decided before they are linked.
pub(in crate::plugin) fn add_to_linker(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance(INTERFACE)?;
    instance.func_wrap("send", |mut store: StoreContextMut<'_, CallState>, (request,): (Request,)| {
        let state = store.data_mut();
        if state.requests_made >= REQUESTS_MAX {
            return Ok((Err(Error::Denied(format!("one call makes {REQUESTS_MAX} requests at most"))),));
        }
        state.requests_made += 1;
        let answer = state.outgoing.send(&state.plugin, request, state.deadline.wall_left());
        if let Err(Error::Failed(text)) = &answer
            && text.starts_with(SHORTAGE)
        {
            state.host_failed = Some(text.clone());
        }
        // The tick interrupts a guest, but not a host function that blocks.
        if state.deadline.wall_left().is_zero() {
            return Err(state.deadline.pass_on_the_wall().into());
        }
        Ok((answer,))
    })
}
