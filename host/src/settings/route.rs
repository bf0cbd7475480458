//! `[[route]]`: subjects to an endpoint, without a plugin of one's own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use toml::de::DeValue;

use super::endpoint::NamedEndpoint;
use super::host::Name;
use super::kinds::{Setting, one_of};
use super::section::{Reported, Section};
use super::show::Origin;
use super::{BacklogSettings, PluginCeiling};
use crate::event::subject::SubjectPattern;
use crate::plugin::limits::{Limit, SomeLimits};

/// The most routes.
pub const ROUTES_MAX: usize = 64;
/// What the name of a route's plugin begins with; no file's name can.
pub const ROUTE_PREFIX: &str = "route:";
/// Subjects of one route.
const SUBJECTS_MAX: usize = 64;
/// Bytes of one of them, as in a sidecar.
const SUBJECT_BYTES_MAX: usize = 256;
/// Fields of a filter, and values of each.
const FILTER_MAX: usize = 32;
/// Bytes of a filter's field.
const FIELD_BYTES_MAX: usize = 256;

/// `[[route]]`
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// What the route's plugin is granted; its name is `route:{name}`, and the only endpoint is the route's.
    pub ceiling: PluginCeiling,
    /// What it takes, wildcards as in NATS.
    pub subjects: Vec<String>,
    /// What a webhook has for a body.
    pub body: RouteBody,
    /// Members of the entity, or JSON pointers into it, each with the values that it may have. All have to fit.
    pub filter: BTreeMap<String, Vec<Value>>,
}

/// What a route's webhook has for a body.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum RouteBody {
    /// `{type, timestamp, data}`, as Standard Webhooks has it.
    #[default]
    Envelope,
    /// The entity as it came.
    Entity,
}

const BODIES: &[(&str, RouteBody)] = &[("envelope", RouteBody::Envelope), ("entity", RouteBody::Entity)];

impl RouteBody {
    /// As the settings have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Entity => "entity",
        }
    }
}

/// `endpoints` are those configured, where they could be read.
pub(super) fn all(
    root: &Section<'_>,
    endpoints: Option<&[NamedEndpoint]>,
    waiting: BacklogSettings,
) -> Result<Vec<RouteSettings>, Reported> {
    let sections = root.tables("route")?;
    if let Some(one_too_many) = sections.get(ROUTES_MAX) {
        let message = format!("more than {ROUTES_MAX} [[route]]");
        return Err(root.context.problem(one_too_many.offset, message, None));
    }
    let mut names = Vec::new();
    let routes: Vec<_> = sections.iter().map(|section| one(section, endpoints, waiting, &mut names)).collect();
    routes.into_iter().collect()
}

fn one(
    section: &Section<'_>,
    endpoints: Option<&[NamedEndpoint]>,
    waiting: BacklogSettings,
    names: &mut Vec<Arc<str>>,
) -> Result<RouteSettings, Reported> {
    let subjects = subjects(section);
    let to = section.required::<Name>("to");
    if let Ok(to) = &to
        && endpoints.is_some_and(|all| all.iter().all(|endpoint| endpoint.name != to.0))
    {
        let offset = section.get("to").map_or(section.offset, |value| value.span().start);
        let message = format_args!("names the endpoint `{}`, which is not configured", to.0);
        section.refuse("to", offset, message, "add an [[endpoint]] of that name, or name one that there is");
    }
    let name = name(section, to.as_ref().ok(), names);
    let body = section.or_default("body", RouteBody::default());
    let filter = filter(section);
    section.finish();
    let (name, to) = (name?, to?.0);
    Ok(RouteSettings {
        ceiling: PluginCeiling {
            name: format!("{ROUTE_PREFIX}{name}").into(),
            sha256: None,
            endpoints: vec![to],
            grants: BTreeSet::new(),
            limits: limits(),
            backlog: waiting,
            http: Vec::new(),
        },
        subjects: subjects?,
        body: body?,
        filter: filter?,
    })
}

/// An envelope is larger than what it holds, and so may be its webhook.
fn limits() -> SomeLimits {
    let mut limits = SomeLimits::default();
    limits.set(Limit::Body, Limit::Body.row().most);
    limits
}

/// Its own name, else that of its endpoint.
fn name(section: &Section<'_>, to: Option<&Name>, names: &mut Vec<Arc<str>>) -> Result<Arc<str>, Reported> {
    let own = section.optional::<Name>("name")?;
    let offset = section.get("name").map_or(section.offset, |value| value.span().start);
    let name = match (own, to) {
        (Some(name), _) => name.0,
        (None, Some(to)) => Arc::clone(&to.0),
        (None, None) => return Err(Reported),
    };
    if names.contains(&name) {
        let message = format_args!("is `{name}`, as another route's; without a name, a route has that of its endpoint");
        return Err(section.refuse("name", offset, message, "give each a name of its own"));
    }
    names.push(Arc::clone(&name));
    Ok(name)
}

fn subjects(section: &Section<'_>) -> Result<Vec<String>, Reported> {
    let subjects = section.list::<SubjectPattern>("subjects")?;
    if (1..=SUBJECTS_MAX).contains(&subjects.len()) {
        return Ok(subjects.iter().map(|subject| subject.as_str().to_owned()).collect());
    }
    match section.get("subjects") {
        None => Err(section.missing("subjects", SubjectPattern::EXPECTED)),
        Some(value) => {
            let message = format_args!("has {} elements", subjects.len());
            Err(section.refuse("subjects", value.span().start, message, "name 1 to 64; \">\" is every subject"))
        }
    }
}

/// `filter = { status = "paid", "/customer/country" = ["DE", "FR"] }`
fn filter(section: &Section<'_>) -> Result<BTreeMap<String, Vec<Value>>, Reported> {
    let table = section.table("filter");
    let mut filter = BTreeMap::new();
    let mut wrong = None;
    for (field, offset, value) in table.entries() {
        if field.is_empty() || field.len() > FIELD_BYTES_MAX || filter.len() == FILTER_MAX {
            let message = format_args!("is no field, or one too many: {FILTER_MAX} are the most");
            wrong = Some(table.refuse(
                field,
                offset,
                message,
                "write a member, or a JSON pointer such as \"/customer/id\"",
            ));
            continue;
        }
        let values = match value.get_ref() {
            DeValue::Array(array) => array.iter().map(|value| plain(value.get_ref())).collect(),
            one => plain(one).map(|value| vec![value]),
        };
        match values.filter(|values: &Vec<Value>| (1..=FILTER_MAX).contains(&values.len())) {
            Some(values) => {
                let shown = Value::Array(values.clone());
                table.show(field, shown, Origin::Settings(table.context.at_line(offset)));
                filter.insert(field.to_owned(), values);
            }
            None => {
                let help = "write a string, number or boolean, or an array of 1 to 32 of them";
                wrong = Some(table.refuse(field, value.span().start, "is nothing to compare with", help));
            }
        }
    }
    wrong.map_or(Ok(filter), Err)
}

fn plain(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::from(text.as_ref())),
        DeValue::Boolean(truth) => Some(Value::from(*truth)),
        DeValue::Integer(written) => i64::from_str_radix(written.as_str(), written.radix()).ok().map(Value::from),
        DeValue::Float(written) => written.as_str().parse::<f64>().ok().filter(|it| it.is_finite()).map(Value::from),
        _ => None,
    }
}

impl Setting for RouteBody {
    const EXPECTED: &'static str = "";

    fn read(text: &str) -> Result<Self, String> {
        one_of(text, BODIES)
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Setting for SubjectPattern {
    const EXPECTED: &'static str = "write subjects such as \"invoice.*\"; `*` is one token, `>` at the end is the rest";

    fn read(text: &str) -> Result<Self, String> {
        if text.len() > SUBJECT_BYTES_MAX {
            return Err(format!("is longer than {SUBJECT_BYTES_MAX} bytes"));
        }
        text.parse().map_err(|_| "is not a pattern of subjects".to_owned())
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}
