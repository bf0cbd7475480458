//! CloudEvents 1.0 in both of their modes: the whole event in the body as JSON, or its attributes in headers and its data in
//! the body. Sources: the specification, its JSON event format, and its bindings for HTTP (§3.1.3.2) and NATS.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::Field;
use super::format::{HAS_NUL, NOT_SCALAR, Origin, Reading, TEXT_BYTES_MAX, TOO_LONG, scalar};
use super::kind::Kind;
use super::members::{Member, Members};
use super::trace::is_traceparent;
use super::{Format, HEADER_ATTRIBUTES_BYTES_MAX, HEADER_ATTRIBUTES_MAX, Undecodable, text};
use crate::event::Message;

/// What an attribute's name begins with as a header.
pub const HEADER_PREFIX: &str = "ce-";
/// What the content type of a CloudEvent in JSON begins with; that of a batch goes on with [`BATCH_TYPE`].
const STRUCTURED_TYPE: &str = "application/cloudevents";
const BATCH_TYPE: &str = "application/cloudevents-batch";
/// The attribute that names the tenant where what the source's `tenant_field` names doesn't; CloudEvents have none for it.
const TENANT: &str = "tenantid";
/// Most attributes of a CloudEvent that are looked at; those that every event needs always are.
const ATTRIBUTES_MAX: usize = 64;
/// Attributes that this decoder reads itself.
const KNOWN: [&str; 8] = ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "traceparent"];
/// Attributes that every CloudEvent has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// Whether the headers carry a CloudEvent, and the body its data.
pub fn is_binary(headers: &[(String, String)]) -> bool {
    let required = |name: &str| REQUIRED.iter().any(|required| name.eq_ignore_ascii_case(required));
    headers.iter().any(|(name, _)| attribute_name(name).is_some_and(required)) && !is_structured(headers)
}

/// Whether the headers say that the body is a CloudEvent, or a batch of them, in JSON.
pub(super) fn is_structured(headers: &[(String, String)]) -> bool {
    content_type(headers).is_some_and(|value| begins_with(value, STRUCTURED_TYPE))
}

/// Whether the headers say that the body is a batch.
pub fn is_batch(headers: &[(String, String)]) -> bool {
    content_type(headers).is_some_and(|value| begins_with(value, BATCH_TYPE))
}

/// Whether JSON without a word on what it is is a CloudEvent: nothing else has `specversion` beside another of its members.
pub(super) fn is_one(members: &Members<'_>) -> bool {
    members.has(Member::SpecVersion) && [Member::Id, Member::Source, Member::Type].iter().any(|it| members.has(*it))
}

fn content_type(headers: &[(String, String)]) -> Option<&str> {
    headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type")).map(|(_, value)| value.as_str())
}

fn begins_with(text: &str, prefix: &str) -> bool {
    text.trim_start().get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
}

/// The attribute that a header carries.
pub(super) fn attribute_name(header: &str) -> Option<&str> {
    let (prefix, name) = header.split_at_checked(HEADER_PREFIX.len())?;
    (prefix.eq_ignore_ascii_case(HEADER_PREFIX) && !name.is_empty()).then_some(name)
}

/// Reads a CloudEvent whose attributes are headers.
pub(super) fn binary<'a>(message: &'a Message, tenant: Option<Field<'_>>) -> Result<Reading<'a>, Undecodable> {
    let mut context = Context::default();
    for (header, value) in &message.headers {
        if let Some(name) = attribute_name(header) {
            context.add(Cow::Owned(name.to_ascii_lowercase()), unescape(value));
        }
    }
    // The NATS binding keeps `content-type` for the message; in the HTTP binding it is the data's.
    let mut data_type = context.text("datacontenttype")?;
    if data_type.is_none() {
        data_type = content_type(&message.headers).map(Cow::Borrowed);
        context.add(Cow::Borrowed("datacontenttype"), data_type.clone());
    }
    let body = &message.payload;
    let data = match data_type.as_deref().is_none_or(is_json) {
        _ if body.trim_ascii().is_empty() => None,
        true => {
            let json = text(body)?;
            serde_json::from_str::<IgnoredAny>(json).map_err(|error| Undecodable::NotJson(error.to_string()))?;
            Some(Cow::Borrowed(json.trim_ascii()))
        }
        false => Some(Cow::Owned(quoted(body))),
    };
    let named = match tenant {
        None => None,
        Some(field) => match (field.within("/data/"), &data) {
            (Some(_), None) => None,
            (Some(within), Some(data)) => within.short_text(data)?.map(|tenant| Cow::Owned(tenant.into_owned())),
            (None, _) => context.named(field)?,
        },
    };
    context.reading(data, named)
}

/// Reads a CloudEvent that is JSON.
pub(super) fn structured<'a>(text: &'a str, tenant: Option<Field<'_>>) -> Result<Reading<'a>, Undecodable> {
    let envelope: Envelope<'a> = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Undecodable::NotCloudEvent,
        _ => Undecodable::NotJson(error.to_string()),
    })?;
    let mut context = Context::default();
    for (name, json) in envelope.attributes {
        let value = match json.get() {
            "null" => continue,
            // Of an extension; what names something is a text or a number.
            "true" | "false" if !KNOWN.contains(&&*name) && name != TENANT => Some(Cow::Borrowed(json.get())),
            _ => scalar(json),
        };
        context.add(name, value);
    }
    let data = match (envelope.data.filter(|json| json.get() != "null"), envelope.data_base64) {
        (Some(data), _) => Some(Cow::Borrowed(data.get())),
        (None, Some(encoded)) => Some(Cow::Owned(decoded(encoded)?)),
        (None, None) => None,
    };
    let named = tenant.map_or(Ok(None), |field| field.short_text(text))?;
    context.reading(data, named)
}

/// JSON that `data_base64` holds; else a JSON string of the text, or of the base64 itself where it is no text either.
fn decoded(encoded: &RawValue) -> Result<String, Undecodable> {
    let encoded = scalar(encoded).ok_or_else(|| invalid("data_base64", "is not a text"))?;
    let bytes = STANDARD.decode(&*encoded).map_err(|_| invalid("data_base64", "is not base64"))?;
    match std::str::from_utf8(&bytes) {
        Ok(json) if serde_json::from_str::<IgnoredAny>(json).is_ok() => Ok(json.trim_ascii().to_owned()),
        _ => Ok(quoted(&Bytes::from(bytes))),
    }
}

/// Data that is no JSON as a JSON string: its text, or base64 of what is no text.
fn quoted(data: &Bytes) -> String {
    match std::str::from_utf8(data) {
        Ok(text) => serde_json::Value::from(text).to_string(),
        Err(_) => serde_json::Value::from(STANDARD.encode(data)).to_string(),
    }
}

fn invalid(member: &'static str, problem: &'static str) -> Undecodable {
    Undecodable::Invalid { format: Format::CloudEvents, member, problem }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.is_empty() || essence.ends_with("/json") || essence.ends_with("+json")
}

/// A header's value as the attribute's: without quotes, then percent-decoded. `None` where that is no text.
fn unescape(value: &str) -> Option<Cow<'_, str>> {
    let value = value.trim();
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        None => percent_decode_str(value).decode_utf8().ok(),
        Some(quoted) => {
            let mut plain = String::with_capacity(quoted.len());
            let mut characters = quoted.chars();
            while let Some(character) = characters.next() {
                plain.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
            }
            percent_decode_str(&plain).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
        }
    }
}

/// The attributes of one CloudEvent; `None` for a value that is no text.
#[derive(Default)]
struct Context<'a>(Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>);

impl<'a> Context<'a> {
    fn add(&mut self, name: Cow<'a, str>, value: Option<Cow<'a, str>>) {
        if self.0.len() < ATTRIBUTES_MAX || KNOWN.contains(&&*name) {
            self.0.push((name, value));
        }
    }

    /// The attribute's text; `None` where it is absent or empty.
    fn find(&self, name: &str) -> Result<Option<Cow<'a, str>>, &'static str> {
        let mut found = self.0.iter().filter(|(found, _)| found == name);
        let Some((_, value)) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err("appears more than once");
        }
        match value {
            None => Err(NOT_SCALAR),
            Some(value) if value.contains('\0') => Err(HAS_NUL),
            Some(value) => Ok(Some(value.clone()).filter(|value| !value.is_empty())),
        }
    }

    fn text(&self, member: &'static str) -> Result<Option<Cow<'a, str>>, Undecodable> {
        self.find(member).map_err(|problem| invalid(member, problem))
    }

    /// As [`Self::text`], of at most [`TEXT_BYTES_MAX`].
    fn short(&self, member: &'static str) -> Result<Option<Cow<'a, str>>, Undecodable> {
        match self.text(member)? {
            Some(value) if value.len() > TEXT_BYTES_MAX => Err(invalid(member, TOO_LONG)),
            value => Ok(value),
        }
    }

    /// As [`Self::short`], of the attribute that a setting names.
    fn named(&self, field: Field<'_>) -> Result<Option<Cow<'a, str>>, Undecodable> {
        match self.find(field.path.trim_start_matches('/')).map_err(|problem| field.refuse(problem))? {
            Some(value) if value.len() > TEXT_BYTES_MAX => Err(field.refuse(TOO_LONG)),
            value => Ok(value),
        }
    }

    fn required(&self, member: &'static str) -> Result<Cow<'a, str>, Undecodable> {
        self.text(member)?.ok_or(Undecodable::Missing { format: Format::CloudEvents, member })
    }

    /// What the event says; its tenant is the one `named` where the settings say so.
    fn reading(self, entity: Option<Cow<'a, str>>, named: Option<Cow<'a, str>>) -> Result<Reading<'a>, Undecodable> {
        let version = self.required("specversion")?;
        if version != "1" && !version.starts_with("1.") {
            return Err(invalid("specversion", "is not 1.0"));
        }
        let (id, producer, raw_type) = (self.required("id")?, self.required("source")?, self.required("type")?);
        let kind = Kind::of(&raw_type).map_err(|problem| invalid("type", problem))?;
        let Kind { subject, entity_type, operation } = kind;
        let traceparent = self.text("traceparent")?.filter(|text| is_traceparent(text)).map(Cow::into_owned);
        Ok(Reading {
            format: Format::CloudEvents,
            subject,
            entity_type,
            operation,
            seq: None,
            entity_id: self.short("subject")?,
            tenant_id: named.map_or_else(|| self.short(TENANT), |tenant| Ok(Some(tenant)))?,
            timestamp: self.short("time")?,
            entity,
            previous: None,
            origin: Origin::default(),
            traceparent,
            context: self.attributes(),
            id: Some(id),
            producer: Some(producer),
            raw_type,
        })
    }

    /// All of them as attributes of the event, `ce.{name}`, within the bounds of headers.
    fn attributes(&self) -> Vec<(String, String)> {
        let mut bytes_left = HEADER_ATTRIBUTES_BYTES_MAX;
        let texts = self.0.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let fit = texts.filter(|(name, value)| match bytes_left.checked_sub(name.len() + value.len()) {
            Some(left) => {
                bytes_left = left;
                true
            }
            None => false,
        });
        fit.take(HEADER_ATTRIBUTES_MAX).map(|(name, value)| (format!("ce.{name}"), (**value).to_owned())).collect()
    }
}

/// The members of a CloudEvent in JSON.
struct Envelope<'a> {
    attributes: Vec<(Cow<'a, str>, &'a RawValue)>,
    data: Option<&'a RawValue>,
    data_base64: Option<&'a RawValue>,
}

impl Envelope<'_> {
    /// A known attribute always, once more where it is there already: then it appears more than once.
    fn takes(&self, name: &str) -> bool {
        let before = || self.attributes.iter().filter(|(found, _)| found == name).count();
        self.attributes.len() < ATTRIBUTES_MAX || (KNOWN.contains(&name) && before() < 2)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TopLevel)
    }
}

struct TopLevel;

impl<'de> Visitor<'de> for TopLevel {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope { attributes: Vec::new(), data: None, data_base64: None };
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "data" => envelope.data = Some(map.next_value()?),
                "data_base64" => envelope.data_base64 = Some(map.next_value()?),
                _ if envelope.takes(&name) => envelope.attributes.push((name, map.next_value()?)),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(envelope)
    }
}

/// A member's name, copied only where it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests;
