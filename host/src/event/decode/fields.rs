//! What a source's settings say of JSON that is in no format of its own: where its type, tenant, id, time and data are.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::format::{HAS_NUL, NOT_SCALAR, Origin, Reading, TEXT_BYTES_MAX, TOO_LONG, scalar};
use super::kind::Kind;
use super::{Format, Undecodable};

/// Where a source's messages have what an event needs. Each is a top-level member, or a JSON pointer (RFC 6901) where it
/// begins with a slash.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fields {
    /// The message's identity, in other JSON and in FraiseQL's page format.
    pub id: Option<String>,
    /// The event type, in other JSON.
    pub event_type: Option<String>,
    /// The tenant, in other JSON and in CloudEvents.
    pub tenant: Option<String>,
    /// When it happened, in other JSON.
    pub time: Option<String>,
    /// The entity's id, in other JSON.
    pub entity_id: Option<String>,
    /// The entity, in other JSON; else the whole message is it.
    pub data: Option<String>,
}

/// One of [`Fields`], by the name of its setting.
#[derive(Clone, Copy)]
pub(super) struct Field<'f> {
    pub(super) setting: &'static str,
    pub(super) path: &'f str,
    /// As the settings have it.
    told: &'f str,
}

impl Fields {
    /// Of a source whose settings name none.
    pub fn none() -> &'static Self {
        static NONE: Fields =
            Fields { id: None, event_type: None, tenant: None, time: None, entity_id: None, data: None };
        &NONE
    }

    pub(super) fn id(&self) -> Option<Field<'_>> {
        Field::of("id_field", self.id.as_ref())
    }

    pub(super) fn tenant(&self) -> Option<Field<'_>> {
        Field::of("tenant_field", self.tenant.as_ref())
    }

    /// Reads JSON of no known format.
    ///
    /// # Errors
    /// Where a field names what can't be what it is to be. One that is absent, null or an empty text says nothing.
    pub(super) fn read<'a>(&self, text: &'a str) -> Result<Reading<'a>, Undecodable> {
        let short = |setting, path: &Option<String>| match Field::of(setting, path.as_ref()) {
            Some(field) => field.short_text(text),
            None => Ok(None),
        };
        let mut kind = Kind::default();
        let mut raw_type = Cow::Borrowed("");
        if let Some(field) = Field::of("type_field", self.event_type.as_ref())
            && let Some(event_type) = field.short_text(text)?
        {
            kind = Kind::of(&event_type).map_err(|problem| field.refuse(problem))?;
            raw_type = event_type;
        }
        let data = match Field::of("data_field", self.data.as_ref()) {
            Some(field) => field.find(text)?.filter(|json| json.get() != "null").map(RawValue::get),
            None => None,
        };
        let Kind { subject, entity_type, operation } = kind;
        Ok(Reading {
            format: Format::Json,
            subject,
            raw_type,
            entity_type,
            operation,
            seq: None,
            id: None,
            producer: None,
            entity_id: short("entity_id_field", &self.entity_id)?,
            tenant_id: short("tenant_field", &self.tenant)?,
            timestamp: short("time_field", &self.time)?,
            entity: Some(Cow::Borrowed(data.unwrap_or_else(|| text.trim_ascii()))),
            previous: None,
            origin: Origin::default(),
            traceparent: None,
            context: Vec::new(),
        })
    }
}

impl<'f> Field<'f> {
    fn of(setting: &'static str, path: Option<&'f String>) -> Option<Self> {
        path.map(|path| Self { setting, path, told: path })
    }

    /// The field within what `pointer`, with a slash at its end, points to; `None` where it is not there.
    pub(super) fn within(self, pointer: &str) -> Option<Self> {
        // The slash before the rest stays.
        let rest = self.path.strip_prefix(pointer).map(|rest| &self.path[self.path.len() - rest.len() - 1..]);
        rest.map(|path| Self { path, ..self })
    }

    pub(super) fn refuse(self, problem: impl Into<String>) -> Undecodable {
        Undecodable::Field { setting: self.setting, field: self.told.to_owned(), problem: problem.into() }
    }

    /// What it names in `text`.
    pub(super) fn find(self, text: &str) -> Result<Option<&RawValue>, Undecodable> {
        let mut found: &RawValue = match serde_json::from_str(text) {
            Ok(json) => json,
            Err(error) => return Err(Undecodable::NotJson(error.to_string())),
        };
        let path: Vec<_> = match self.path.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescape).collect(),
            None => vec![Cow::Borrowed(self.path)],
        };
        for token in &path {
            let picked = Pick(token).deserialize(&mut serde_json::Deserializer::from_str(found.get()));
            match picked.map_err(|error| self.refuse(error.to_string()))? {
                Some(json) => found = json,
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// The text or number that it names; `None` where it is absent, null or an empty text.
    pub(super) fn text(self, text: &str) -> Result<Option<Cow<'_, str>>, Undecodable> {
        let Some(found) = self.find(text)?.filter(|json| json.get() != "null") else { return Ok(None) };
        match scalar(found) {
            Some(value) if value.contains('\0') => Err(self.refuse(HAS_NUL)),
            Some(value) => Ok(Some(value).filter(|value| !value.is_empty())),
            None => Err(self.refuse(NOT_SCALAR)),
        }
    }

    /// As [`Self::text`], of at most [`TEXT_BYTES_MAX`].
    pub(super) fn short_text(self, text: &str) -> Result<Option<Cow<'_, str>>, Undecodable> {
        match self.text(text)? {
            Some(value) if value.len() > TEXT_BYTES_MAX => Err(self.refuse(TOO_LONG)),
            value => Ok(value),
        }
    }
}

/// A token of a JSON pointer (RFC 6901).
fn unescape(token: &str) -> Cow<'_, str> {
    if token.contains('~') { Cow::Owned(token.replace("~1", "/").replace("~0", "~")) } else { Cow::Borrowed(token) }
}

/// Finds one member of an object, or one element of an array by its index, and skips the rest.
struct Pick<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<CowName<'de>>()? {
            if name.0 != self.0 {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("appears more than once"));
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let Ok(index) = self.0.parse::<usize>() else {
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(None);
        };
        let mut found = None;
        let mut position = 0;
        while let Some(json) = elements.next_element()? {
            if position == index {
                found = Some(json);
            }
            position += 1;
        }
        Ok(found)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// A member's name, copied only where it has escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct CowName<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests;
