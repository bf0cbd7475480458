//! Pure: which events' webhooks keep their order, where an endpoint asks for it.

use sha2::{Digest, Sha256};

use super::Event;

/// What order is kept within: a plugin's work on one entity, as 64 bits of a hash. Two entities that share a key wait for
/// each other, which costs time and nothing else.
///
/// Of the deliveries to one endpoint with the same key, one at a time is due: the first, by the position of its event and
/// then in the plugin's order, that has not ended, and no earlier than the runs of earlier events with that key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct OrderKey(pub i64);

impl OrderKey {
    /// The key of `plugin`'s work on the event's entity: its tenant, type and id. None where the event names no entity:
    /// then there is nothing to keep in order.
    pub fn of(event: &Event, plugin: &str) -> Option<Self> {
        let entity = event.entity_id.as_deref()?;
        let mut hash = Sha256::new();
        // Each part is framed by its length, so that no two different tuples hash the same bytes.
        for part in [Some(plugin), event.tenant_id.as_deref(), Some(&event.entity_type), Some(entity)] {
            hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
            hash.update(part.unwrap_or_default());
        }
        let digest = hash.finalize();
        Some(Self(i64::from_be_bytes(digest[..8].try_into().unwrap_or_default())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture;

    #[test]
    fn the_key_is_of_plugin_tenant_type_and_entity_alone() {
        let event = fixture::event("{}");
        let of = |change: &dyn Fn(&mut Event), plugin: &str| {
            let mut event = event.clone();
            change(&mut event);
            OrderKey::of(&event, plugin)
        };
        let key = of(&|_| {}, "orders");
        assert!(key.is_some());
        assert_eq!(key, of(&|event| event.operation = "deleted".to_owned(), "orders"));
        assert_eq!(key, of(&|event| event.entity = None, "orders"));
        let others = [
            of(&|_| {}, "invoices"),
            of(&|event| event.tenant_id = Some("t".to_owned()), "orders"),
            of(&|event| event.tenant_id = Some(String::new()), "orders"),
            of(&|event| event.entity_type = "invoice".to_owned(), "orders"),
            of(&|event| event.entity_id = Some("other".to_owned()), "orders"),
        ];
        for (index, other) in others.iter().enumerate() {
            assert!(other.is_some() && *other != key, "{index}");
            assert!(!others[..index].contains(other), "{index}");
        }
    }

    #[test]
    fn what_names_no_entity_has_no_order() {
        assert_eq!(OrderKey::of(&Event { entity_id: None, ..fixture::event("{}") }, "orders"), None);
    }

    /// It is in stores: another hash would let the deliveries of before and after an update pass each other.
    #[test]
    fn the_key_never_changes() {
        let event = Event {
            tenant_id: Some("acme".to_owned()),
            entity_type: "order".to_owned(),
            entity_id: Some("550e8400".to_owned()),
            ..fixture::event("{}")
        };
        assert_eq!(OrderKey::of(&event, "orders"), Some(OrderKey(-2_169_106_236_520_496_669)));
    }
}
