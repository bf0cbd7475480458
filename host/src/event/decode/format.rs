//! The formats that FraiseQL publishes, recognised by members that other JSON does not have together.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::members::{Member, Members, string};
use super::trace::traceparent_of;
use super::{Format, Undecodable};
use crate::event::subject::snake_case;

/// Longest `entity_type`, in bytes: it becomes a token of the subject.
pub const ENTITY_TYPE_BYTES_MAX: usize = 255;

/// Longest text of an event besides its entity, in bytes: its id, its tenant, its timestamp, the subject it came by.
pub const TEXT_BYTES_MAX: usize = 1024;

/// What is wrong with a member that has to be a text.
pub(super) const NOT_SCALAR: &str = "is neither a text nor a number";
/// What is wrong with a text that ends early where a C string is read.
pub(super) const HAS_NUL: &str = "contains a NUL character";
/// What is wrong with a text over [`TEXT_BYTES_MAX`].
pub(super) const TOO_LONG: &str = "is longer than 1024 bytes";

/// What a message says, still in its own bytes as far as they are the same.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) format: Format,
    /// Where the message names its type; else the bus's own subject is the event's.
    pub(super) subject: Option<String>,
    /// As the message has it; names the event together with `seq`.
    pub(super) raw_type: Cow<'a, str>,
    /// In snake_case.
    pub(super) entity_type: String,
    pub(super) operation: &'static str,
    pub(super) seq: Option<Cow<'a, str>>,
    pub(super) id: Option<Cow<'a, str>>,
    /// Within which `id` names the event: a CloudEvent's `source`.
    pub(super) producer: Option<Cow<'a, str>>,
    pub(super) entity_id: Option<Cow<'a, str>>,
    pub(super) tenant_id: Option<Cow<'a, str>>,
    pub(super) timestamp: Option<Cow<'a, str>>,
    /// JSON.
    pub(super) entity: Option<Cow<'a, str>>,
    pub(super) previous: Option<&'a RawValue>,
    /// Texts that only become attributes.
    pub(super) origin: Origin<'a>,
    pub(super) traceparent: Option<String>,
    /// Attributes of its own: those of a CloudEvent.
    pub(super) context: Vec<(String, String)>,
}

/// Who caused the change and in which trace, as far as the message says.
#[derive(Debug, Default)]
pub(super) struct Origin<'a> {
    pub(super) user_id: Option<Cow<'a, str>>,
    pub(super) actor_type: Option<Cow<'a, str>>,
    pub(super) acting_for: Option<Cow<'a, str>>,
    pub(super) trace_id: Option<Cow<'a, str>>,
}

/// Which members of a format mean what.
struct Columns {
    kind: Member,
    operation: Member,
    /// The message's own id; the page has none, its `id` would be anyone's.
    id: Option<Member>,
    entity_id: Member,
    /// The first that is there.
    timestamps: &'static [Member],
    entity: Member,
    previous: Option<Member>,
}

impl Format {
    /// The format of a message, by its signature alone; `None` for other JSON.
    fn of(members: &Members<'_>) -> Option<Self> {
        let verb = |member| members.string(member).is_some_and(|text| operation(&text).is_some());
        let text = |member| members.string(member).is_some();
        if members.string(Member::Event).is_some_and(|event| event.starts_with("fraiseql."))
            && (members.has(Member::EntityType) || members.has(Member::Operation))
        {
            return Some(Self::Page);
        }
        if text(Member::ObjectType) && text(Member::ModificationType) {
            return Some(Self::Outbox);
        }
        if text(Member::ObjectType) && verb(Member::Op) && members.has(Member::Seq) {
            return Some(Self::ChangeEvent);
        }
        if text(Member::EntityType)
            && verb(Member::EventType)
            && members.has(Member::EntityId)
            && (members.has(Member::Id) || members.has(Member::Data))
        {
            return Some(Self::EntityEvent);
        }
        None
    }

    fn columns(self) -> Option<Columns> {
        Some(match self {
            Self::Page => Columns {
                kind: Member::EntityType,
                operation: Member::Operation,
                id: None,
                entity_id: Member::EntityId,
                timestamps: &[Member::Timestamp],
                entity: Member::Entity,
                previous: None,
            },
            Self::EntityEvent => Columns {
                kind: Member::EntityType,
                operation: Member::EventType,
                id: Some(Member::Id),
                entity_id: Member::EntityId,
                timestamps: &[Member::Timestamp],
                entity: Member::Data,
                previous: None,
            },
            Self::ChangeEvent => Columns {
                kind: Member::ObjectType,
                operation: Member::Op,
                id: Some(Member::Id),
                entity_id: Member::ObjectId,
                timestamps: &[Member::CommitTime],
                entity: Member::After,
                previous: Some(Member::Before),
            },
            Self::Outbox => Columns {
                kind: Member::ObjectType,
                operation: Member::ModificationType,
                id: Some(Member::Id),
                entity_id: Member::ObjectId,
                timestamps: &[Member::CommitTime, Member::CreatedAt],
                entity: Member::ObjectData,
                previous: Some(Member::ObjectDataBefore),
            },
            Self::CloudEvents | Self::Json => return None,
        })
    }
}

impl<'a> Reading<'a> {
    /// Bytes of the entity, before and after the change.
    pub(super) fn content_bytes(&self) -> usize {
        self.entity.as_ref().map_or(0, |json| json.len()) + self.previous.map_or(0, |json| json.get().len())
    }

    /// Reads a recognised format; `Ok(None)` for other JSON.
    ///
    /// # Errors
    ///
    /// When the format is recognised and lacks what it needs.
    pub(super) fn of(members: &Members<'a>) -> Result<Option<Self>, Undecodable> {
        let Some(format) = Format::of(members) else { return Ok(None) };
        let Some(columns) = format.columns() else { return Ok(None) };
        if let Some(member) = members.twice {
            return Err(Undecodable::Twice { format, member: member.name() });
        }
        let reader = Reader { format, members };
        let raw_type = reader.required(columns.kind)?;
        let verb = reader.required(columns.operation)?;
        let operation = operation(&verb).ok_or_else(|| reader.invalid(columns.operation, "is no known operation"))?;
        let entity_type = reader.entity_type(columns.kind, &raw_type)?;
        let mut timestamp = None;
        for member in columns.timestamps {
            timestamp = timestamp.or(reader.short_text(*member)?);
        }
        Ok(Some(Self {
            format,
            subject: Some(format!("fraiseql.{entity_type}.{operation}")),
            entity_type,
            raw_type,
            operation,
            seq: reader.sequence()?,
            id: columns.id.map_or(Ok(None), |member| reader.text(member))?.filter(|id| !id.is_empty()),
            producer: None,
            entity_id: reader.short_text(columns.entity_id)?,
            tenant_id: reader.short_text(Member::TenantId)?,
            timestamp,
            entity: members.json(columns.entity).map(|json| Cow::Borrowed(json.get())),
            previous: columns.previous.and_then(|member| members.json(member)),
            origin: Origin {
                user_id: reader.text(Member::UserId)?,
                actor_type: reader.text(Member::ActorType)?,
                acting_for: reader.text(Member::ActingFor)?,
                trace_id: reader.text(Member::TraceId)?,
            },
            traceparent: members.json(Member::TraceContext).and_then(traceparent_of),
            context: Vec::new(),
        }))
    }
}

/// Reads members of one format and says which is wrong.
struct Reader<'r, 'a> {
    format: Format,
    members: &'r Members<'a>,
}

impl<'a> Reader<'_, 'a> {
    fn invalid(&self, member: Member, problem: &'static str) -> Undecodable {
        Undecodable::Invalid { format: self.format, member: member.name(), problem }
    }

    /// A string with something in it.
    fn required(&self, member: Member) -> Result<Cow<'a, str>, Undecodable> {
        match self.members.json(member) {
            None => Err(Undecodable::Missing { format: self.format, member: member.name() }),
            Some(json) => {
                let text = string(json).filter(|text| !text.is_empty());
                self.without_nul(member, text.ok_or_else(|| self.invalid(member, "is not a text"))?)
            }
        }
    }

    /// A string, or a number as it is written. Never "a string or nothing": a value that is dropped in silence makes two
    /// tenants, or two entities, one.
    fn text(&self, member: Member) -> Result<Option<Cow<'a, str>>, Undecodable> {
        let Some(json) = self.members.json(member) else { return Ok(None) };
        let text = scalar(json).ok_or_else(|| self.invalid(member, NOT_SCALAR))?;
        self.without_nul(member, text).map(Some)
    }

    /// What receivers and databases keep as C strings would end at a NUL, and so be another id there.
    fn without_nul(&self, member: Member, text: Cow<'a, str>) -> Result<Cow<'a, str>, Undecodable> {
        if text.contains('\0') { Err(self.invalid(member, HAS_NUL)) } else { Ok(text) }
    }

    /// As [`Self::text`], of at most [`TEXT_BYTES_MAX`].
    fn short_text(&self, member: Member) -> Result<Option<Cow<'a, str>>, Undecodable> {
        match self.text(member)? {
            Some(text) if text.len() > TEXT_BYTES_MAX => Err(self.invalid(member, TOO_LONG)),
            text => Ok(text),
        }
    }

    /// `seq`: an integer, which some writers put into a string.
    fn sequence(&self) -> Result<Option<Cow<'a, str>>, Undecodable> {
        match self.text(Member::Seq)? {
            Some(seq) if seq.parse::<i64>().is_ok() || seq.parse::<u64>().is_ok() => Ok(Some(seq)),
            Some(_) => Err(self.invalid(Member::Seq, "is not an integer")),
            None => Ok(None),
        }
    }

    fn entity_type(&self, member: Member, raw_type: &str) -> Result<String, Undecodable> {
        if raw_type.len() > ENTITY_TYPE_BYTES_MAX {
            return Err(self.invalid(member, "is longer than 255 bytes"));
        }
        snake_case(raw_type).ok_or_else(|| self.invalid(member, "has neither a letter nor a digit"))
    }
}

/// The content of a string, or a number as it is written.
pub(super) fn scalar(json: &RawValue) -> Option<Cow<'_, str>> {
    match json.get().as_bytes().first()? {
        b'"' => string(json),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(json.get())),
        _ => None,
    }
}

/// One name for what the formats call differently.
pub(super) fn operation(verb: &str) -> Option<&'static str> {
    let is = |names: &[&str]| names.iter().any(|name| verb.eq_ignore_ascii_case(name));
    if is(&["created", "insert"]) {
        Some("created")
    } else if is(&["updated", "update"]) {
        Some("updated")
    } else if is(&["deleted", "delete"]) {
        Some("deleted")
    } else if is(&["custom", "noop", "read"]) {
        Some("custom")
    } else {
        None
    }
}
