use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use tokio::runtime::Runtime;

use super::*;
use crate::secret::Secret;

fn settings(url: &str, methods: &[Method]) -> HttpSettings {
    HttpSettings {
        url: url.parse().unwrap(),
        methods: methods.to_vec(),
        timeout: Duration::from_secs(5),
        headers: vec![("authorization".to_owned(), Secret::new("Bearer of-the-operator"))],
    }
}

fn outgoing(runtime: &Runtime, http: Vec<HttpSettings>, allow: &[&str]) -> Outgoing {
    let ceiling = PluginCeiling {
        name: "rates".into(),
        sha256: None,
        endpoints: Vec::new(),
        grants: std::iter::once(crate::plugin::Grant::Http).collect(),
        limits: crate::plugin::limits::SomeLimits::default(),
        backlog: crate::settings::BacklogSettings::default(),
        http,
    };
    let egress = EgressSettings { allow: allow.iter().map(|net| net.parse().unwrap()).collect(), proxy: None };
    Outgoing::new(runtime.handle().clone(), &Network::default(), &[ceiling], &egress).unwrap()
}

fn request(method: &str, url: &str) -> Request {
    Request { method: method.to_owned(), url: url.to_owned(), headers: Vec::new(), body: None }
}

fn admit(request: Request) -> Result<Admitted, Error> {
    let runtime = Runtime::new().unwrap();
    let allowed = vec![
        settings("http://93.184.215.14/v1", &[Method::GET]),
        settings("http://93.184.215.14/v1/orders", &[Method::POST]),
        settings("http://10.0.0.7/", &[Method::GET]),
    ];
    outgoing(&runtime, allowed, &[]).by_plugin["rates"].admit(request)
}

#[track_caller]
fn check_refused(request: Request, expected: &str) {
    let text = match admit(request) {
        Err(Error::Denied(text)) => format!("denied: {text}"),
        Err(Error::Invalid(text)) => format!("invalid: {text}"),
        other => panic!("{other:?}"),
    };
    assert!(text.contains(expected), "{text}");
}

#[test]
fn what_the_operator_allows_goes_out_with_credentials_that_the_plugin_never_had() {
    let mut asked = request("GET", "http://93.184.215.14/v1/rates?day=today#x");
    asked.headers.push(("Accept".to_owned(), "application/json".to_owned()));
    let Admitted { request: out, timeout, .. } = admit(asked).unwrap();
    assert_eq!(out.headers()["authorization"], "Bearer of-the-operator");
    assert_eq!(out.headers()["accept"], "application/json");
    assert!(out.headers()["user-agent"].to_str().unwrap().starts_with("wirehook/"));
    assert_eq!(timeout, Duration::from_secs(5));
    assert!(admit(request("POST", "http://93.184.215.14/v1/orders")).is_ok(), "the first that has the method");
}

#[test]
fn everything_else_is_refused_with_what_to_write() {
    check_refused(request("GET", "http://93.184.215.15/v1/rates?key=secret"), "add the URL as a [[plugin.http]]");
    check_refused(request("DELETE", "http://93.184.215.14/v1/rates"), "add the method to its [[plugin.http]]");
    check_refused(request("get", "http://93.184.215.14/v1/rates"), "is not allowed");
    check_refused(request("GET", "http://10.0.0.7/"), "denied: 10.0.0.7 lies in 10.0.0.0/8");
    check_refused(request("GET", "http://user:password@93.184.215.14/v1"), "a URL with credentials");
    check_refused(request("GET", "/v1"), "can't be read");
    check_refused(request("GET", &format!("http://93.184.215.14/v1/{}", "x".repeat(2048))), "2048 at most");
    let Err(Error::Denied(text)) = admit(request("GET", "http://a.net/?key=secret")) else { panic!() };
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn headers_and_bodies_are_bounded_and_some_are_the_host_s() {
    let with = |name: &str, value: &str| Request {
        headers: vec![(name.to_owned(), value.to_owned())],
        ..request("GET", "http://93.184.215.14/v1")
    };
    for name in ["Authorization", "cookie", "Host", "content-length", "webhook-id", "Transfer-Encoding", "Expect"] {
        check_refused(with(name, "1"), "the host keeps for itself");
    }
    check_refused(with("x", "a\r\nb: c"), "invalid");
    check_refused(with("x", &"v".repeat(9 << 10)), "8192 at most");
    let body = Some(vec![0; (256 << 10) + 1]);
    check_refused(Request { body, ..request("POST", "http://93.184.215.14/v1/orders") }, "262144 at most");
}

#[test]
fn a_plugin_without_an_entry_asks_nothing() {
    let Err(Error::Denied(text)) =
        Outgoing::default().send("rates", request("GET", "http://a.net"), Duration::from_secs(1))
    else {
        panic!()
    };
    assert!(text.contains("[[plugin.http]]"), "{text}");
}

/// A server that answers one request with `answer` and returns the request's head.
fn server(answer: Vec<u8>) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(&stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
        // A client that has seen enough hangs up, which is what one of the tests is about.
        let _ = (&stream).write_all(&answer);
        head
    });
    (address, serving)
}

fn ask(answer: Vec<u8>, allow: &[&str]) -> (Result<Response, Error>, Option<String>) {
    let (address, serving) = server(answer);
    let runtime = Runtime::new().unwrap();
    let outgoing =
        outgoing(&runtime, vec![settings(&format!("http://localhost:{}", address.port()), &[Method::GET])], allow);
    let url = format!("http://localhost:{}/rates", address.port());
    let answer = outgoing.send("rates", request("GET", &url), Duration::from_secs(30));
    let reached = !matches!(answer, Err(Error::Denied(_)));
    (answer, reached.then(|| serving.join().unwrap()))
}

#[test]
fn an_answer_comes_back_whatever_its_status() {
    let (answer, head) = ask(
        b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\nset-cookie: a=b\r\ncontent-length: 2\r\n\r\nok"
            .to_vec(),
        &["127.0.0.0/8", "::1/128"],
    );
    let answer = answer.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (302, &b"ok"[..]), "a redirect is not followed");
    assert!(answer.headers.iter().any(|(name, _)| name == "location"), "{:?}", answer.headers);
    assert!(!answer.headers.iter().any(|(name, _)| name == "set-cookie"), "{:?}", answer.headers);
    let head = head.unwrap();
    assert!(head.starts_with("GET /rates HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer of-the-operator\r\n"), "{head}");
}

#[test]
fn credentials_that_an_endpoint_repeats_are_not_the_plugin_s() {
    let answer = b"HTTP/1.1 200 OK\r\nx-echo: Bearer of-the-operator\r\ncontent-length: 33\r\n\r\ngot: Bearer of-the-operator (ok)\n";
    let (answer, _) = ask(answer.to_vec(), &["127.0.0.0/8", "::1/128"]);
    let answer = answer.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.body), "got: Bearer <redacted> (ok)\n");
    assert!(answer.headers.contains(&("x-echo".to_owned(), "Bearer <redacted>".to_owned())), "{:?}", answer.headers);
}

#[test]
fn an_answer_that_is_too_large_is_none() {
    let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    answer.resize(2 << 20, b'x');
    let (answer, _) = ask(answer, &["127.0.0.0/8", "::1/128"]);
    assert!(matches!(answer, Err(Error::TooLarge)), "{answer:?}");
}

#[test]
fn a_name_that_leads_inside_is_not_reached_though_it_is_listed() {
    let (answer, _) = ask(Vec::new(), &[]);
    let Err(Error::Denied(text)) = answer else { panic!("{answer:?}") };
    assert!(text.contains("leads inside"), "{text}");
}
