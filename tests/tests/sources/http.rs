use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::{Body, Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wirehook::door::HEAD_TIMEOUT;
use wirehook::event::decode::Fields;
use wirehook::secret::Secret;
use wirehook::source::http::{
    BODY_PART_TIMEOUT, EVENTS_IN_REQUEST_MAX, HttpSource, REQUEST_BYTES_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX,
};

use crate::fake_inbox::{FakeInbox, Mode, Running, eventually};

const EVENT_BYTES_MAX: usize = 1000;
/// What a request begins with; headers may follow.
const HEAD: &str = "POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
/// A whole request.
const POST: &[u8] =
    b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
/// Within this, a client is served, whatever others do.
const AT_ONCE: Duration = Duration::from_secs(1);

struct Host {
    inbox: std::sync::Arc<FakeInbox>,
    source: Running,
    address: SocketAddr,
    client: Client,
}

impl Host {
    fn start(mode: Mode, token: Option<&str>) -> Self {
        wirehook::tls::install_provider();
        let any = "127.0.0.1:0".parse().unwrap();
        let source =
            HttpSource::bind("bus".into(), any, token.map(Secret::new), Fields::default(), EVENT_BYTES_MAX).unwrap();
        let address = source.local_addr();
        let inbox = FakeInbox::new(mode);
        let source = Running::start(Box::new(source), &inbox);
        Self { inbox, source, address, client: Client::builder().no_proxy().build().unwrap() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    fn post(&self, body: impl Into<Body>) -> RequestBuilder {
        self.request(Method::POST, "/events").header("content-type", "application/json").body(body)
    }
}

/// A body without an announced length: `chunk`, so many times.
fn chunked(chunk: Vec<u8>, times: usize) -> Body {
    let chunks = std::iter::repeat_n(chunk, times).map(Ok::<_, std::io::Error>);
    Body::wrap_stream(futures::stream::iter(chunks))
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = response.bytes().await.unwrap();
    assert!(body.ends_with(b"\n"), "a line, for terminals");
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn an_event_is_answered_after_its_commit() -> anyhow::Result<()> {
    let host = Host::start(Mode::Hold, None);
    let answered =
        tokio::spawn(answer(host.post(r#" {"a": 1} "#).header("Idempotency-Key", "k").header("Cookie", "c")));
    host.inbox.until("the event", |seen| seen.offered == 1).await;
    assert!(!answered.is_finished());
    host.inbox.set(Mode::Accept);
    assert_eq!(answered.await?, (202, json!({"accepted": 1, "duplicates": 0})));
    let message = host.inbox.seen().accepted.remove(0);
    assert_eq!((&message.payload[..], &*message.subject), (&br#"{"a": 1}"#[..], "/events"));
    let headers: Vec<_> = message.headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(headers, [("content-type", "application/json"), ("idempotency-key", "k")], "and no cookie");
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn an_array_is_taken_whole_in_one_go() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, None);
    let request = host.post(r#"[{"a":1}, {"b":2}]"#).header("Idempotency-Key", "k");
    assert_eq!(answer(request).await, (202, json!({"accepted": 2, "duplicates": 0})));
    let accepted = host.inbox.seen().accepted;
    assert_eq!(accepted.iter().map(|message| &message.payload[..]).collect::<Vec<_>>(), [b"{\"a\":1}", b"{\"b\":2}"]);
    for (index, message) in accepted.iter().enumerate() {
        assert!(message.headers.contains(&("idempotency-key".to_owned(), format!("k§{index}"))));
    }
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_wrong_request_is_refused_with_its_reason_and_nothing_is_kept() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, None);
    let check = |request: RequestBuilder, status: u16, word: &'static str, index: Value| async move {
        let (found, body) = answer(request).await;
        let error = body["error"].as_str().unwrap_or_default().to_owned();
        assert!(found == status && error.contains(word) && body["index"] == index, "{found} {body}");
    };
    check(host.post(""), 400, "empty", Value::Null).await;
    check(host.post("[]"), 400, "empty", Value::Null).await;
    check(host.post("no"), 400, "JSON object", Value::Null).await;
    check(host.post("{"), 400, "not JSON", Value::Null).await;
    check(host.post(r#"[{},3]"#), 400, "JSON object", json!(1)).await;
    let page = r#"[{},{},{"event":"fraiseql.a.created","entity_type":"a"}]"#;
    check(host.post(page), 400, "`operation` is missing", json!(2)).await;
    check(host.post(format!("[{}{{}}]", "{},".repeat(EVENTS_IN_REQUEST_MAX))), 400, "more than", Value::Null).await;
    let large = format!("[{{}},{{\"a\":\"{}\"}}]", "x".repeat(EVENT_BYTES_MAX));
    check(host.post(large), 413, "the limit is 1000", json!(1)).await;
    check(host.post(vec![b' '; (16 << 20) + 1]), 413, "several requests", Value::Null).await;
    check(host.post(chunked(vec![b' '; 1 << 20], 17)), 413, "several requests", Value::Null).await;
    let form = host.request(Method::POST, "/events").header("content-type", "text/plain").body("{}");
    check(form, 415, "application/json", Value::Null).await;
    check(host.request(Method::GET, "/events"), 405, "POST /events", Value::Null).await;
    check(host.request(Method::POST, "/other").body("{}"), 404, "POST /events", Value::Null).await;
    assert_eq!(host.inbox.seen().offered, 0);
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn cloud_events_come_in_each_of_their_modes() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, None);
    let accepted = |count: usize| (202, json!({"accepted": count, "duplicates": 0}));
    let event = |id: &str| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"a.b"}}"#);
    let typed = |content_type: &'static str, body: String| {
        host.request(Method::POST, "/events").header("content-type", content_type).body(body)
    };
    assert_eq!(answer(typed("application/cloudevents+json; charset=utf-8", event("1"))).await, accepted(1));
    let batch = "application/cloudevents-batch+json";
    assert_eq!(answer(typed(batch, format!("[{},{}]", event("2"), event("3")))).await, accepted(2));
    assert_eq!(answer(typed(batch, " [] ".to_owned())).await, accepted(0));
    let binary = |body: &'static str| {
        let request = host.request(Method::POST, "/events").body(body).header("ce-id", "4").header("Ce-Source", "/s");
        request.header("ce-specversion", "1.0").header("ce-type", "a.b")
    };
    assert_eq!(answer(binary("")).await, accepted(1));
    assert_eq!(answer(binary("[1,2]")).await, accepted(1));
    assert_eq!(answer(binary("<a/>").header("content-type", "text/xml")).await, accepted(1));
    let messages = host.inbox.seen().accepted;
    let sent = |index: usize| messages[index].headers.contains(&("ce-id".to_owned(), "4".to_owned()));
    assert_eq!((messages.len(), [0, 1, 2, 3, 4, 5].map(sent)), (6, [false, false, false, true, true, true]));
    let wrong = |request: RequestBuilder, word: &'static str, index: Value| async move {
        let (found, body) = answer(request).await;
        let error = body["error"].as_str().unwrap_or_default().to_owned();
        assert!(found == 400 && error.contains(word) && body["index"] == index, "{found} {body}");
    };
    let unnamed = r#"{"specversion":"1.0","source":"/s","type":"a.b"}"#;
    wrong(typed("application/json", unnamed.to_owned()), "`id` is missing", Value::Null).await;
    wrong(typed(batch, format!("[{},{unnamed}]", event("5"))), "`id` is missing", json!(1)).await;
    wrong(typed(batch, format!("[{},7]", event("5"))), "JSON object", json!(1)).await;
    wrong(binary("{"), "not JSON", Value::Null).await;
    let untyped = host.request(Method::POST, "/events").header("ce-id", "1").body("{}");
    wrong(untyped, "`specversion` is missing", Value::Null).await;
    let page = binary("").header("origin", "https://example.com");
    assert_eq!(answer(page).await.0, 403, "a web page of another site");
    assert_eq!(host.inbox.seen().accepted.len(), 6);
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_body_may_come_in_chunks() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, None);
    let chunks = futures::stream::iter(["[{\"a\":", "1},{", "}]"].map(Ok::<_, std::io::Error>));
    let request = host.post(Body::wrap_stream(chunks));
    assert_eq!(answer(request).await, (202, json!({"accepted": 2, "duplicates": 0})));
    assert_eq!(&host.inbox.seen().accepted[0].payload[..], b"{\"a\":1}");
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn bodies_in_chunks_share_the_room_of_all() -> anyhow::Result<()> {
    let host = Host::start(Mode::Hold, None);
    // Blanks around an event are no part of it, but they take room.
    let large = || {
        let chunks = std::iter::once(b"{}".to_vec()).chain(std::iter::repeat_n(vec![b' '; 1 << 20], 15));
        Body::wrap_stream(futures::stream::iter(chunks.map(Ok::<_, std::io::Error>)))
    };
    let fit = REQUEST_BYTES_IN_FLIGHT_MAX / ((15 << 20) + 1024);
    let held = (0..fit).map(|_| tokio::spawn(answer(host.post(large())))).collect::<Vec<_>>();
    host.inbox.until("full", |seen| seen.offered == fit).await;
    assert_eq!(answer(host.post(large())).await.0, 429);
    host.inbox.set(Mode::Accept);
    assert!(join_all(held).await.into_iter().all(|answer| answer.unwrap().0 == 202));
    assert_eq!(answer(host.post(large())).await.0, 202, "the room was given back");
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_is_still_sending_gets_to_read_why_it_is_refused() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, None);
    let mut stream = TcpStream::connect(host.address).await?;
    let length = (16 << 20) + 1;
    stream.write_all(format!("{HEAD}content-length: {length}\r\n\r\n").as_bytes()).await?;
    // Many clients read the answer only once they have sent everything.
    stream.write_all(&vec![b' '; length]).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    assert_eq!(&status, b"HTTP/1.1 413");
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_asks_before_sending_is_refused_without_its_body() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, Some("right"));
    let mut stream = TcpStream::connect(host.address).await?;
    stream.write_all(b"POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n").await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    assert_eq!(&status, b"HTTP/1.1 401");
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_token_is_asked_for() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, Some("right"));
    let check = |authorization: Option<&str>, status: u16| {
        let request = host.post("{}");
        let request = match authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        };
        async move { assert_eq!(answer(request).await.0, status) }
    };
    check(None, 401).await;
    check(Some("Bearer wrong"), 401).await;
    check(Some("Bearer right "), 202).await;
    check(Some("Bearer"), 401).await;
    check(Some("Basic right"), 401).await;
    check(Some("Bearer right"), 202).await;
    check(Some("bearer right"), 202).await;
    assert_eq!(host.inbox.seen().accepted.len(), 3);
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn too_many_requests_are_told_to_come_again() -> anyhow::Result<()> {
    let host = Host::start(Mode::Hold, None);
    let held = (0..REQUESTS_IN_FLIGHT_MAX).map(|_| tokio::spawn(answer(host.post("{}")))).collect::<Vec<_>>();
    host.inbox.until("full", |seen| seen.offered == REQUESTS_IN_FLIGHT_MAX).await;
    let response = host.post("{}").send().await?;
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &"1".parse()?));
    host.inbox.set(Mode::Accept);
    assert!(join_all(held).await.into_iter().all(|answer| answer.unwrap().0 == 202));
    assert_eq!(answer(host.post("{}")).await.0, 202);
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_store_that_fails_is_told() -> anyhow::Result<()> {
    let host = Host::start(Mode::Fail, None);
    let (status, body) = answer(host.post("{}")).await;
    assert!(status == 503 && body["error"].as_str().is_some_and(|error| error.contains("the disk is full")));
    assert!(host.source.state.status().last_error.is_some());
    host.inbox.set(Mode::Accept);
    assert_eq!(answer(host.post("{}")).await.0, 202);
    assert!(host.source.state.status().last_error.is_none());
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_drain_answers_what_is_in_flight_and_nothing_more() -> anyhow::Result<()> {
    let host = Host::start(Mode::Hold, None);
    assert_eq!(host.source.connected().await.address, Some(host.address));
    let held = tokio::spawn(answer(host.post("{}")));
    host.inbox.until("the event", |seen| seen.offered == 1).await;
    host.source.drain.begin();
    eventually("no more connections", || async { TcpStream::connect(host.address).await.err() }).await;
    assert!(!host.source.is_finished());
    host.inbox.set(Mode::Accept);
    assert_eq!(held.await?.0, 202);
    host.source.ended().await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_its_event() -> anyhow::Result<()> {
    let host = Host::start(Mode::Hold, None);
    let mut stream = TcpStream::connect(host.address).await?;
    stream.write_all(POST).await?;
    host.inbox.until("the event", |seen| seen.offered == 1).await;
    drop(stream);
    host.source.drain.begin();
    host.inbox.set(Mode::Accept);
    host.source.ended().await?;
    assert_eq!(host.inbox.seen().accepted.len(), 1);
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_a_drain() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, None);
    let mut stream = TcpStream::connect(host.address).await?;
    stream.write_all(POST).await?;
    assert_eq!(stream.read_u8().await?, b'H');
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_reads_no_answer_does_not_hold_up_a_drain() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, None);
    let mut stream = TcpStream::connect(host.address).await?;
    let requests = "GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000);
    // Until neither side has room: its answers fill the way back, and the host takes no more requests.
    while timeout(Duration::from_secs(1), stream.write_all(requests.as_bytes())).await.is_ok() {}
    let began = Instant::now();
    host.source.drained().await?;
    // Sooner than the system ends such a connection by itself.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn an_address_in_use_is_named() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, None);
    let error = HttpSource::bind("second".into(), host.address, None, Fields::default(), 1).unwrap_err().to_string();
    assert!(error.starts_with(&format!("source `second` can't listen on {}", host.address)), "{error}");
    host.source.drained().await?;
    Ok(())
}

/// The status of what comes back on a connection of its own, and the rest.
async fn raw(host: &Host, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    (answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0), answer)
}

#[tokio::test]
async fn a_web_page_can_not_send_events_to_a_source_without_a_token() -> anyhow::Result<()> {
    const JSON: &str = "Content-Type: application/json";
    const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
    let host = Host::start(Mode::Accept, None);
    let check = |target: &'static str, headers: &'static [&'static str], expected: u16, word: &'static str| {
        let host = &host;
        async move {
            let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
            let request =
                format!("POST {target} HTTP/1.1\r\n{headers}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}");
            let (status, answer) = raw(host, &request).await;
            assert!(status == expected && answer.contains(word), "{request}: {answer}");
        }
    };
    check("/events", &["Host: 127.0.0.1:7466", JSON], 202, "").await;
    check("/events", &["HOST: LOCALHOST.", "content-type: Application/Problem+JSON"], 202, "").await;
    check("http://localhost/events", &["Host: localhost", JSON], 202, "").await;
    check("/events", &["Host: localhost", JSON, "Sec-Fetch-Site: none"], 202, "").await;
    // What `curl -d` sends, what a form sends, and what `fetch` sends without being asked.
    check("/events", &["Host: localhost", FORM], 415, "curl: -H 'content-type: application/json'").await;
    check("/events", &["Host: localhost", "Content-Type: text/plain;charset=UTF-8"], 415, "application/json").await;
    check("/events", &["Host: localhost"], 415, "application/json").await;
    check("/events", &["Host: localhost", JSON, FORM], 415, "application/json").await;
    check("/events", &["Host: localhost", JSON, "Origin: https://evil.example"], 403, "a token").await;
    check("/events", &["Host: localhost", JSON, "Origin: null"], 403, "a token").await;
    check("/events", &["Host: localhost", JSON, "Sec-Fetch-Site: cross-site"], 403, "a token").await;
    check("/events", &["Host: evil.example", JSON], 421, "`hosts`").await;
    check("/events", &["Host: localhost@evil.example", JSON], 421, "").await;
    check("http://evil.example/events", &["Host: localhost", JSON], 421, "").await;
    check("/events", &["Host: localhost", "Host: evil.example", JSON], 421, "").await;
    check("/events", &[JSON], 421, "").await;
    assert_eq!(host.inbox.seen().accepted.len(), 4);
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_token_says_more_than_a_host() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, Some("right"));
    let post = "POST /events HTTP/1.1\r\nHost: proxy.example\r\nConnection: close\r\nContent-Length: 2\r\n";
    assert_eq!(raw(&host, &format!("{post}Authorization: Bearer right\r\n\r\n{{}}")).await.0, 202);
    assert_eq!(raw(&host, &format!("{post}Origin: https://evil.example\r\n\r\n{{}}")).await.0, 401);
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_can_not_be_told_from_others_is_refused() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, None);
    for (key, word) in [
        (&b"Gr\xc3\xb6\xc3\x9fe"[..], "beyond ASCII"),
        (b"a\tb", "a control character"),
        (b"", "is empty"),
        (&[b'k'; 257], "more than 256 bytes"),
    ] {
        let (status, body) = answer(host.post("{}").header("Idempotency-Key", key)).await;
        assert!(status == 400 && body["error"].as_str().is_some_and(|error| error.contains(word)), "{body}");
    }
    let twice = host.post("{}").header("Idempotency-Key", "a").header("Idempotency-Key", "a");
    assert_eq!(answer(twice).await.0, 400);
    assert_eq!(host.inbox.seen().offered, 0);
    // The key of an array's event is none that another request can have.
    assert_eq!(answer(host.post("[{}]").header("Idempotency-Key", "k")).await.0, 202);
    for key in ["k", "k:0", "k 0", "k#0", "k/0"] {
        assert_eq!(answer(host.post("{}").header("Idempotency-Key", key)).await.0, 202);
    }
    let keys: std::collections::HashSet<_> =
        host.inbox.seen().accepted.iter().map(|message| message.headers[1].1.clone()).collect();
    assert_eq!(keys.len(), 6, "{keys:?}");
    host.source.drained().await?;
    Ok(())
}

/// Connections that have sent `sent` and wait.
async fn waiting(host: &Host, count: usize, sent: &[u8]) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        // Those that gave way meanwhile take nothing more.
        let _ = stream.write_all(sent).await;
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn whoever_waits_longest_for_its_client_gives_way() -> anyhow::Result<()> {
    wirehook::open_files::allow_most()?;
    let host = Host::start(Mode::Accept, None);
    for (count, sent) in [
        (1300, &b""[..]),
        (1300, b"POST /ev"),
        (1300, POST),
        (
            1300,
            b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
        ),
        (5000, b"P"),
    ] {
        let streams = waiting(&host, count, sent).await;
        let (status, _) = timeout(AT_ONCE * 3, answer(host.post("{}"))).await?;
        assert_eq!(status, 202, "beside {count} that have sent {:?}", String::from_utf8_lossy(sent));
        drop(streams);
    }
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_sends_a_byte_at_a_time_is_not_waited_for() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, None);
    let began = Instant::now();
    let stream = TcpStream::connect(host.address).await?;
    let (mut answers, mut requests) = stream.into_split();
    let trickle = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        for byte in HEAD.bytes().cycle() {
            tick.tick().await;
            if requests.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    });
    let mut all = Vec::new();
    let _ = timeout(HEAD_TIMEOUT * 3, answers.read_to_end(&mut all)).await?;
    assert!(all.is_empty() && began.elapsed() >= HEAD_TIMEOUT, "{all:?} after {:?}", began.elapsed());
    trickle.abort();
    host.source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_body_that_stops_coming_is_not_waited_for() -> anyhow::Result<()> {
    let host = Host::start(Mode::Accept, None);
    // Together, they announce more than there is room for.
    let request = format!("{HEAD}content-length: {}\r\n\r\n[", 16 << 20);
    let announced = waiting(&host, REQUEST_BYTES_IN_FLIGHT_MAX / (16 << 20) + 1, request.as_bytes()).await;
    assert_eq!(answer(host.post("{}")).await.0, 202, "what is announced takes no room");
    for mut stream in announced {
        let mut status = [0; 12];
        timeout(BODY_PART_TIMEOUT * 3, stream.read_exact(&mut status)).await??;
        assert_eq!(&status, b"HTTP/1.1 408");
    }
    host.source.drained().await?;
    Ok(())
}
