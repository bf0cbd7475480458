//! Assembles the WASI that the host puts into plugins whose toolchain needs one.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;

const SOURCE: &str = "src/plugin/encode/wasi_stub.wat";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    let assembled = wat::parse_file(SOURCE)?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("wasi_stub.wasm"), assembled)?;
    Ok(())
}
