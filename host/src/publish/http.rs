//! To the `http` source of a running host: `POST /events`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;

use super::{Publish, PublishError, Routed, Taken};
use crate::secret::Secret;

/// The most of an answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The host has an event once it has answered 202.
pub(super) struct HttpPublisher {
    bus: String,
    url: String,
    client: Client,
    authorization: Option<HeaderValue>,
}

/// The source's answer to what it took.
#[derive(Deserialize)]
struct Summary {
    duplicates: u64,
}

/// The source's answer to what it did not take.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    /// Which event of an array, from 0.
    index: Option<usize>,
}

impl HttpPublisher {
    pub(super) fn new(bus: String, listen: SocketAddr, token: Option<&Secret>) -> Result<Self, PublishError> {
        let unreachable =
            |error: String, help: &str| PublishError::Unreachable { bus: bus.clone(), error, help: help.to_owned() };
        if listen.port() == 0 {
            return Err(unreachable(
                "its port is another one each time".to_owned(),
                "give `listen` of the source a port of its own",
            ));
        }
        let mut authorization = None;
        if let Some(token) = token {
            let value = HeaderValue::from_bytes(&[b"Bearer ", token.expose()].concat());
            let mut value = value.map_err(|_| {
                unreachable("its token has a character that no header carries".to_owned(), "choose another token")
            })?;
            value.set_sensitive(true);
            authorization = Some(value);
        }
        // The source is this machine's or the operator's own: no proxy stands between.
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        let client = client.map_err(|error| unreachable(error.to_string(), ""))?;
        let url = format!("http://{}/events", SocketAddr::new(reachable(listen.ip()), listen.port()));
        Ok(Self { bus, url, client, authorization })
    }

    /// Posts `batch`, of which `body` is made.
    async fn post(&self, batch: &[Routed], body: Bytes) -> Result<Taken, PublishError> {
        let mut request = self.client.post(&self.url).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let response = request.send().await.map_err(|error| PublishError::Unreachable {
            bus: self.bus.clone(),
            error: innermost(&error),
            help: "start the host that has this source: wirehook run".to_owned(),
        })?;
        let status = response.status();
        let answer = read(response).await;
        if status == StatusCode::ACCEPTED {
            let duplicates = serde_json::from_slice(&answer).map_or(0, |summary: Summary| summary.duplicates);
            return Ok(Taken { unheard: None, duplicates });
        }
        let refusal = serde_json::from_slice(&answer)
            .unwrap_or_else(|_| Refusal { error: String::from_utf8_lossy(&answer).trim().to_owned(), index: None });
        let said = refusal.error;
        let line = batch.get(refusal.index.unwrap_or(0)).map_or(1, |routed| routed.event.line);
        let help = match status {
            StatusCode::UNAUTHORIZED => "`token` of the source is another one here than where the host runs",
            _ => "",
        };
        Err(PublishError::Refused {
            bus: self.bus.clone(),
            line,
            error: format!("{}: {said}", status.as_u16()),
            help: help.to_owned(),
        })
    }
}

impl Publish for HttpPublisher {
    fn publish<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<Taken, PublishError>> {
        Box::pin(async move {
            // An array is taken all or nothing. What is no JSON would spoil it, so it goes alone.
            let is_json = |payload: &Bytes| serde_json::from_slice::<&serde_json::value::RawValue>(payload).is_ok();
            if batch.len() > 1 && batch.iter().all(|routed| is_json(&routed.event.payload)) {
                return self.post(batch, array(batch)).await;
            }
            let mut taken = Taken::default();
            for routed in batch {
                let body = routed.event.payload.clone();
                taken.duplicates += self.post(std::slice::from_ref(routed), body).await?.duplicates;
            }
            Ok(taken)
        })
    }
}

fn array(batch: &[Routed]) -> Bytes {
    let mut array = BytesMut::new();
    for (index, routed) in batch.iter().enumerate() {
        array.put_u8(if index == 0 { b'[' } else { b',' });
        array.put_slice(&routed.event.payload);
    }
    array.put_u8(b']');
    array.freeze()
}

/// An address to reach a listener on all addresses by.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

async fn read(mut response: Response) -> Vec<u8> {
    let mut answer = Vec::new();
    // What breaks off is as good an answer as what came.
    while let Ok(Some(chunk)) = response.chunk().await {
        answer.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - answer.len())]);
        if answer.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
    answer
}

/// What lies at the bottom of an error of the client: `connection refused` rather than `error sending request`.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_on_this_machine() {
        let check = |ip: &str, expected: &str| {
            assert_eq!(reachable(ip.parse().unwrap()), expected.parse::<IpAddr>().unwrap(), "{ip}");
        };
        check("0.0.0.0", "127.0.0.1");
        check("::", "::1");
        check("10.0.0.1", "10.0.0.1");
    }
}
