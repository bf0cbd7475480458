//! The bindings are kept as a file, so that a plugin's build compiles no generator: they have to be what the generator
//! makes of the contract.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator};
use wit_bindgen_rust::Opts;

/// Set, the file is written instead.
const UPDATE: &str = "WIREHOOK_UPDATE_BINDINGS";

#[test]
fn the_bindings_are_those_of_the_contract() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(folder.join("../../wit")).unwrap();
    let world = resolve.select_world(&[package], Some("all-capabilities")).unwrap();
    let options = Opts {
        format: true,
        pub_export_macro: true,
        export_macro_name: Some("export_subscriber".to_owned()),
        default_bindings_module: Some("wirehook_sdk::bindings".to_owned()),
        ..Opts::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).unwrap();
    let (_, generated) = files.iter().next().unwrap();
    let file = folder.join("src/bindings.rs");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&file, generated).unwrap();
    }
    let kept = std::fs::read(&file).unwrap_or_default();
    assert!(
        kept == generated,
        "src/bindings.rs is not what the contract generates: {UPDATE}=1 cargo test -p wirehook-sdk --test bindings"
    );
}
