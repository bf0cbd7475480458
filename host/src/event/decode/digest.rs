//! What tells a redelivery from a conflict, once two messages have the same key.

use std::borrow::Cow;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::Format;
use super::format::Reading;

/// Bytes kept of a SHA-256.
const DIGEST_BYTES: usize = 16;

/// As in [`Event::body_digest`](crate::event::Event::body_digest), of a message that says nothing about its identity.
pub fn body_digest(payload: &[u8]) -> [u8; DIGEST_BYTES] {
    shortened(Sha256::digest(payload))
}

/// The digest of the change itself, for a message whose own `seq` or id names it.
///
/// FraiseQL's bridge gives a row that it publishes again another `id` and `timestamp`, and an `EntityEvent` writes its
/// `changes` in another order each time. These are the publication's, not the change's, and are left out. So is the white
/// space of a CloudEvent's data, which a gateway may write anew.
pub(super) fn change_digest(reading: &Reading<'_>) -> [u8; DIGEST_BYTES] {
    let mut hash = Sha256::new();
    let entity = match (&reading.entity, reading.format) {
        (Some(json), Format::CloudEvents) => Some(compact(json)),
        (entity, _) => entity.as_deref().map(Cow::Borrowed),
    };
    let parts = [
        Some(&*reading.raw_type),
        Some(reading.operation),
        reading.entity_id.as_deref(),
        reading.tenant_id.as_deref(),
        entity.as_deref(),
        reading.previous.map(RawValue::get),
    ];
    for part in parts {
        // With its length, so that no two lists of parts are the same bytes; an absent one has a length of its own.
        hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        hash.update(part.unwrap_or_default());
    }
    shortened(hash.finalize())
}

/// JSON without white space between its tokens.
fn compact(json: &str) -> Cow<'_, str> {
    let (mut in_string, mut escaped) = (false, false);
    let kept = |character: &char| {
        let space = !in_string && matches!(character, ' ' | '\t' | '\n' | '\r');
        if escaped {
            escaped = false;
        } else if *character == '"' {
            in_string = !in_string;
        } else {
            escaped = in_string && *character == '\\';
        }
        !space
    };
    Cow::Owned(json.chars().filter(kept).collect())
}

fn shortened(digest: impl AsRef<[u8]>) -> [u8; DIGEST_BYTES] {
    let mut short = [0; DIGEST_BYTES];
    short.copy_from_slice(&digest.as_ref()[..DIGEST_BYTES]);
    short
}
