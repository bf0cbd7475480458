//! A component without its functions' bodies: it has the imports, exports and types of the whole one, and is compiled at once.

/// Components and modules within one another.
const DEPTH_MAX: usize = 32;
const HEADER_BYTES: usize = 8;
/// The header's layer of a component; a module's is 0.
const COMPONENT_LAYER: [u8; 2] = [1, 0];

/// Sections of a component that are whole modules or components.
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// The section of a module that has its functions' bodies.
const CODE: u8 = 10;
/// A section that says nothing about what is run.
const CUSTOM: u8 = 0;

/// A body of three bytes: no locals, `unreachable`, `end`. It has every type.
const BODY: [u8; 4] = [3, 0x00, 0x00, 0x0b];

/// `bytes`, which are a valid component, without bodies; none where they are nested deeper than anybody builds them.
pub(super) fn hollow(bytes: &[u8]) -> Option<Vec<u8>> {
    within(bytes, DEPTH_MAX)
}

fn within(bytes: &[u8], depth_left: usize) -> Option<Vec<u8>> {
    let (header, mut rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let is_component = header.ends_with(&COMPONENT_LAYER);
    let mut hollow = header.to_vec();
    while let Some((id, after_id)) = rest.split_first() {
        let (length, after_length) = number(after_id)?;
        let (content, after) = after_length.split_at_checked(length)?;
        rest = after;
        match (is_component, *id) {
            (_, CUSTOM) => {}
            (true, CORE_MODULE | COMPONENT) => section(&mut hollow, *id, &within(content, depth_left.checked_sub(1)?)?),
            (false, CODE) => {
                let (count, _bodies) = number(content)?;
                let mut bodies = Vec::new();
                put(&mut bodies, count);
                bodies.extend(std::iter::repeat_n(BODY, count).flatten());
                section(&mut hollow, *id, &bodies);
            }
            _ => section(&mut hollow, *id, content),
        }
    }
    Some(hollow)
}

fn section(into: &mut Vec<u8>, id: u8, content: &[u8]) {
    into.push(id);
    put(into, content.len());
    into.extend(content);
}

/// The 32-bit LEB128 number that `bytes` begin with, and what follows it.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    const BYTES_MAX: usize = 5;
    let end = bytes.iter().take(BYTES_MAX).position(|byte| byte & 0x80 == 0)?;
    let (number, rest) = bytes.split_at(end + 1);
    Some((number.iter().rev().fold(0, |number, byte| number << 7 | usize::from(byte & 0x7f)), rest))
}

fn put(into: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

#[cfg(test)]
mod tests {
    use wasmparser::Validator;

    use super::*;
    use crate::plugin::fixture::{engine, guest};
    use crate::plugin::loader::component_bytes;
    use crate::plugin::{Kind, Manifest, Plugin};

    #[test]
    fn bodies_go_and_the_rest_stays() {
        let body = format!("{} i32.const 1024", "(drop (i32.const 7))".repeat(2_000));
        let guest = guest(&body);
        let whole = component_bytes(Kind::CoreModule, &guest).unwrap();
        let hollow = hollow(&whole).unwrap();
        assert!(hollow.len() + 4_000 < whole.len(), "{} of {}", hollow.len(), whole.len());
        Validator::new().validate_all(&hollow).unwrap();
        // Its imports and exports are those of a plugin, as the whole one's are.
        let (engine, _dir) = engine();
        Plugin::load(&engine, "hollow", &hollow, Manifest::default()).unwrap();
    }

    #[test]
    fn what_is_cut_has_no_hollow_form() {
        let guest = guest("i32.const 1024");
        let whole = component_bytes(Kind::CoreModule, &guest).unwrap();
        assert!(hollow(&whole[..whole.len() - 1]).is_none());
        assert!(hollow(&whole[..4]).is_none());
    }
}
