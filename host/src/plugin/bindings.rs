//! Generated from `wit/`: the contract's types as Rust has them, with every capability that may be granted.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "all-capabilities",
    ownership: Borrowing { duplicate_if_necessary: true },
});
