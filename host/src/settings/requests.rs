//! `[[plugin.http]]`: the requests that a plugin may make.

use std::time::Duration;

use http::Method;

use super::HttpSettings;
use super::endpoint::{EndpointUrl, headers};
use super::kinds::{Setting, one_of, within};
use super::section::{Reported, Section};
use crate::plugin::Grant;

/// The most `[[plugin.http]]` of one plugin.
pub const ALLOWED_MAX: usize = 32;
/// The default of `timeout`.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
/// The most of `timeout`: as long as the longest call of a plugin.
pub const HTTP_TIMEOUT_MAX: Duration = Duration::from_secs(100);

const METHODS: &[(&str, Method)] = &[
    ("GET", Method::GET),
    ("HEAD", Method::HEAD),
    ("POST", Method::POST),
    ("PUT", Method::PUT),
    ("PATCH", Method::PATCH),
    ("DELETE", Method::DELETE),
];

/// Every `[[plugin.http]]` of the plugin whose `section` this is. One without the grant is as wrong as the grant without one.
pub(super) fn all(plugin: &Section<'_>, grants: &[Grant]) -> Result<Vec<HttpSettings>, Reported> {
    let sections = plugin.tables("http")?;
    if let Some(beyond) = sections.get(ALLOWED_MAX) {
        let message = format!("there are more than {ALLOWED_MAX} [[plugin.http]] in {}", plugin.title);
        return Err(plugin.context.problem(beyond.offset, message, None));
    }
    let is_granted = grants.contains(&Grant::Http);
    if is_granted && sections.is_empty() {
        let help = "add a [[plugin.http]] with the url that it may call";
        return Err(plugin.refuse("grants", plugin.offset, "has \"http\", but no URL is allowed", help));
    }
    if let Some(first) = sections.first().filter(|_| !is_granted) {
        let help = "add \"http\" to its grants, or remove the [[plugin.http]]";
        return Err(plugin.refuse("http", first.offset, "is there, but `grants` has no \"http\"", help));
    }
    let allowed: Vec<_> = sections.iter().map(one).collect();
    allowed.into_iter().collect()
}

fn one(section: &Section<'_>) -> Result<HttpSettings, Reported> {
    let url = section.required::<EndpointUrl>("url");
    let offset = section.get("url").map_or(section.offset, |value| value.span().start);
    if url.as_ref().is_ok_and(|url| url.0.query().is_some()) {
        let help = "URLs are allowed by scheme, host, port and path; whatever query the plugin gives is sent";
        section.refuse("url", offset, "has a query", help);
    }
    if let Ok(url) = &url {
        url.warn(section, "url");
    }
    let methods = section.list::<AllowedMethod>("methods");
    let timeout = section.or_default_if("timeout", HTTP_TIMEOUT, within(Duration::from_millis(1), HTTP_TIMEOUT_MAX));
    let headers = headers(&section.table("headers"));
    section.finish();
    let methods: Vec<_> = methods?.into_iter().map(|method| method.0).collect();
    let methods = if methods.is_empty() { vec![Method::GET, Method::HEAD] } else { methods };
    Ok(HttpSettings { url: url?.0, methods, timeout: timeout?, headers: headers? })
}

struct AllowedMethod(Method);

impl Setting for AllowedMethod {
    const EXPECTED: &'static str = "";

    fn read(text: &str) -> Result<Self, String> {
        let names: Vec<_> = METHODS.iter().enumerate().map(|(index, (name, _))| (*name, index)).collect();
        one_of(text, &names).map(|index| Self(METHODS[index].1.clone()))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}
