//! Components that are part of the host. They run as any plugin does.

use toml::{Table, Value};

use super::builds::Pair;
use crate::settings::RouteSettings;

/// What a `[[route]]` runs: `plugins/forward`, built by `cargo xtask builtin`.
pub const FORWARD: &[u8] = include_bytes!("builtin/forward.wasm");
/// As it is named where a file's path would be.
pub(super) const FORWARD_NAME: &str = "builtin:forward";

/// What a route's plugin is made of.
pub(super) fn pair(route: &RouteSettings) -> Pair {
    Pair { wasm: FORWARD.to_vec(), sidecar: Some(sidecar(route).to_string()) }
}

fn sidecar(route: &RouteSettings) -> Table {
    let mut config = Table::new();
    config.insert("body".to_owned(), route.body.as_str().into());
    if !route.filter.is_empty() {
        let filter: serde_json::Map<_, _> =
            route.filter.iter().map(|(field, values)| (field.clone(), values.clone().into())).collect();
        config.insert("filter".to_owned(), serde_json::Value::Object(filter).to_string().into());
    }
    let strings = |all: &mut dyn Iterator<Item = &str>| all.map(Value::from).collect::<Vec<_>>();
    let mut limits = Table::new();
    limits.insert("body".to_owned(), BODY_MAX.into());
    Table::from_iter([
        ("subjects".to_owned(), strings(&mut route.subjects.iter().map(String::as_str)).into()),
        ("endpoints".to_owned(), strings(&mut route.ceiling.endpoints.iter().map(AsRef::as_ref)).into()),
        ("config".to_owned(), config.into()),
        ("limits".to_owned(), limits.into()),
    ])
}

/// An envelope is larger than what it holds: as much as a webhook can have.
const BODY_MAX: &str = "4MiB";
