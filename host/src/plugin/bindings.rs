//! Generated from the world in `wit/`: the contract's types as Rust has them.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "subscriber",
    ownership: Borrowing { duplicate_if_necessary: true },
});
