//! Hostile guests in WebAssembly's text, `tests/guests/wat/*.wat`: what no toolchain would make.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// What a guest that is a component of its own is put into.
const QUIET: &str = "quiet";

/// The encoding of a component, in bytes 4 to 8.
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];
const HEADER_BYTES: usize = 8;
/// Section of a component: a component within.
const SECTION_COMPONENT: u8 = 4;
/// Section of a component: instances.
const SECTION_INSTANCE: u8 = 5;

/// Where the text of `name` is, if there is one.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/wat").join(format!("{name}.wat"))
}

/// The plugin that `name`.wat is: a core module as it is; a component within a plugin that is quiet, instantiated after it.
pub fn assemble(name: &str) -> Result<Vec<u8>> {
    let path = path(name);
    let wasm = wat::parse_file(&path).with_context(|| format!("assembling {}", path.display()))?;
    if wasm.get(4..HEADER_BYTES) != Some(&COMPONENT) {
        return Ok(wasm);
    }
    let quiet = wirehook::plugin::encode(&assemble(QUIET)?)?;
    within(quiet, &wasm)
}

/// `outer`, which also instantiates `inner`, after all else.
fn within(mut outer: Vec<u8>, inner: &[u8]) -> Result<Vec<u8>> {
    let index = components(&outer)?;
    section(&mut outer, SECTION_COMPONENT, inner);
    // One instance: of a component, this one, without arguments.
    section(&mut outer, SECTION_INSTANCE, &[1, 0, index, 0]);
    Ok(outer)
}

/// How many components a component defines, not counting those within.
fn components(component: &[u8]) -> Result<u8> {
    let (mut count, mut rest) = (0u8, component.get(HEADER_BYTES..).context("no component")?);
    while let [id, after @ ..] = rest {
        let (bytes, after) = leb128(after)?;
        count += u8::from(*id == SECTION_COMPONENT);
        rest = after.get(bytes..).context("a section that is cut")?;
    }
    ensure!(count < 0x80, "{count} components");
    Ok(count)
}

fn section(wasm: &mut Vec<u8>, id: u8, content: &[u8]) {
    wasm.push(id);
    let mut length = content.len();
    while length >= 0x80 {
        wasm.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    wasm.push(length as u8);
    wasm.extend_from_slice(content);
}

fn leb128(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut number = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((number, &bytes[index + 1..]));
        }
    }
    bail!("a length that does not end")
}
