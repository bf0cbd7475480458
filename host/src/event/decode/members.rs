//! The top-level members of a message that any of the formats reads, found in one pass and not copied.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

macro_rules! members {
    ($( $variant:ident = $name:literal ),+ $(,)?) => {
        /// A member that a format reads.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Member { $( $variant ),+ }

        impl Member {
            const COUNT: usize = [$( Self::$variant ),+].len();

            /// Its name in JSON.
            pub(super) fn name(self) -> &'static str {
                match self { $( Self::$variant => $name ),+ }
            }

            fn of(name: &str) -> Option<Self> {
                match name { $( $name => Some(Self::$variant), )+ _ => None }
            }
        }
    };
}

members! {
    Event = "event", EntityType = "entity_type", Operation = "operation", EntityId = "entity_id", Entity = "entity",
    Timestamp = "timestamp", Id = "id", EventType = "event_type", Data = "data", UserId = "user_id",
    TenantId = "tenant_id", Seq = "seq", ActorType = "actor_type", ActingFor = "acting_for",
    ObjectType = "object_type", Op = "op", ObjectId = "object_id", After = "after", Before = "before",
    CommitTime = "commit_time", ModificationType = "modification_type", ObjectData = "object_data",
    ObjectDataBefore = "object_data_before", CreatedAt = "created_at", TraceContext = "trace_context",
    TraceId = "trace_id", SpecVersion = "specversion", Source = "source", Type = "type",
}

/// The members of one message; none where it is not an object.
#[derive(Debug, Default)]
pub(super) struct Members<'a> {
    values: [Option<&'a RawValue>; Member::COUNT],
    /// The first member found twice: which of them was meant, nobody can say.
    pub(super) twice: Option<Member>,
}

impl<'a> Members<'a> {
    /// Reads the whole of `text`. Nesting costs no stack: what is inside a member is skipped, not built.
    pub(super) fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The member's JSON; `null` counts as absent.
    pub(super) fn json(&self, member: Member) -> Option<&'a RawValue> {
        self.values[member as usize].filter(|value| value.get() != "null")
    }

    /// Whether the member is there, `null` or not.
    pub(super) fn has(&self, member: Member) -> bool {
        self.values[member as usize].is_some()
    }

    /// The member where it is a string.
    pub(super) fn string(&self, member: Member) -> Option<Cow<'a, str>> {
        self.json(member).and_then(string)
    }
}

/// The content of a JSON string, copied only where it has escapes. `None` for other JSON and for lone surrogates.
pub(super) fn string(json: &RawValue) -> Option<Cow<'_, str>> {
    let inner = json.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(json.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TopLevel)
    }
}

/// Takes any JSON, and the members of an object.
struct TopLevel;

impl<'de> Visitor<'de> for TopLevel {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some(Name(name)) = map.next_key()? {
            let Some(member) = name else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let only_tells = matches!(member, Member::SpecVersion | Member::Source | Member::Type);
            if members.values[member as usize].replace(map.next_value()?).is_some() && !only_tells {
                members.twice.get_or_insert(member);
            }
        }
        Ok(members)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Members::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Members::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Members::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Members::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Members::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Members::default())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Members::default())
    }
}

/// A member's name, recognised without being kept.
struct Name(Option<Member>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name(Member::of(name)))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}
