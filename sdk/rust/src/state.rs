//! A small keyed store of the plugin's own, kept over events, restarts and new builds. Needs the grant `state`: the sidecar
//! asks for it with `grants = ["state"]`, and the operator gives it.
//!
//! A call sees one state that does not change under it. What it wrote is kept together with the webhooks it returned, or
//! not at all; if another event's run changed what this one had read, the host calls the plugin again. So reading, then
//! writing, is safe without a lock:
//!
//! ```
//! use wirehook_sdk::state;
//!
//! let seen = state::get("seen").map_or(0, |bytes| String::from_utf8_lossy(&bytes).parse().unwrap_or(0));
//! state::set("seen", (seen + 1u64).to_string()).unwrap();
//! # assert_eq!(state::get("seen").unwrap(), b"1");
//! ```
//!
//! Under `cargo test` the state is empty at first and belongs to the test.

use std::fmt;

/// Why a value was not kept. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The key is empty or has more than 256 bytes.
    Key,
    /// The value has more than 64 KiB.
    Value,
    /// The plugin's state is full: 10,000 keys, 16 MiB. Removing keys makes room.
    Full,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "a key of the state has 1 to 256 bytes",
            Self::Value => "a value of the state has 64 KiB at most",
            Self::Full => "the state is full: 10,000 keys, 16 MiB",
        })
    }
}

impl std::error::Error for Refused {}

/// The value under `key`, where there is one.
pub fn get(key: &str) -> Option<Vec<u8>> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::wirehook::plugin::state::get(key);
    #[cfg(not(target_arch = "wasm32"))]
    return crate::test::state_value(key);
}

/// Keeps `value` under `key`, in place of what was there.
///
/// # Errors
/// See [`Refused`].
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), Refused> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::wirehook::plugin::state::set(key, value.as_ref()).map_err(|refused| {
        use crate::bindings::wirehook::plugin::state;
        match refused {
            state::Refused::Key => Refused::Key,
            state::Refused::Value => Refused::Value,
            state::Refused::Full => Refused::Full,
        }
    });
    #[cfg(not(target_arch = "wasm32"))]
    return crate::test::set_state(key, value.as_ref());
}

/// Removes what is under `key`, if anything is.
pub fn delete(key: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::wirehook::plugin::state::delete(key);
    #[cfg(not(target_arch = "wasm32"))]
    crate::test::delete_state(key);
}

#[cfg(test)]
mod tests {
    use crate::state::{Refused, delete, get, set};

    #[test]
    fn what_is_kept_comes_back_within_the_host_s_bounds() -> Result<(), Refused> {
        assert_eq!(get("a"), None);
        set("a", "1")?;
        set("a", b"2")?;
        assert_eq!(get("a"), Some(b"2".to_vec()));
        delete("a");
        assert_eq!(get("a"), None);
        assert_eq!(set("", "1"), Err(Refused::Key));
        assert_eq!(set(&"k".repeat(257), "1"), Err(Refused::Key));
        assert_eq!(set("a", vec![0; (64 << 10) + 1]), Err(Refused::Value));
        Ok(())
    }
}
