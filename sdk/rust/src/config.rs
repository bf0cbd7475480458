//! What the sidecar's `[config]` says. Never a secret.
//!
//! Under `cargo test` the values are those given to [`crate::test::config`].

/// The value of `name`, where the sidecar has one. Strings as they are, other values as TOML writes them.
pub fn get(name: &str) -> Option<String> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::wirehook::plugin::config::get(name);
    #[cfg(not(target_arch = "wasm32"))]
    return crate::test::config_value(name);
}

/// Every name and its value, ordered by name.
pub fn all() -> Vec<(String, String)> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::wirehook::plugin::config::all();
    #[cfg(not(target_arch = "wasm32"))]
    return crate::test::config_values();
}

#[cfg(test)]
mod tests {
    use crate::{config, test};

    #[test]
    fn values_come_from_the_test_by_name() {
        test::config("region", "eu");
        test::config("currency", "USD");
        test::config("currency", "EUR");
        assert_eq!(config::get("currency").as_deref(), Some("EUR"));
        assert_eq!(config::get("missing"), None);
        assert_eq!(config::all(), [("currency".to_owned(), "EUR".to_owned()), ("region".to_owned(), "eu".to_owned())]);
    }
}
