//! Operators' requests over a real socket.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use wirehook::clock::{ManualClock, Timestamp};
use wirehook::ops::client::OpsClient;
use wirehook::ops::protocol::REQUEST_LINE_BYTES_MAX;
use wirehook::ops::socket::{OpsSocket, path_beside};
use wirehook::ops::{HostStatus, Operator, OpsHooks, Reply, Request, server};
use wirehook::store::{DeadLetterFilter, Redriven};

mod fake;
use fake::FakeStore;

#[derive(Default)]
struct Hooks(Mutex<Vec<Redriven>>);

impl OpsHooks for Hooks {
    fn redriven(&self, redriven: &Redriven) {
        self.0.lock().unwrap().push(redriven.clone());
    }

    fn host(&self) -> Option<HostStatus> {
        Some(HostStatus { pid: 42, version: "0".to_owned(), ..HostStatus::default() })
    }
}

struct Host {
    store: Arc<FakeStore>,
    hooks: Arc<Hooks>,
    end: tokio::sync::oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

fn start(path: &Path) -> Host {
    let (store, hooks) = (FakeStore::with_letters(), Arc::new(Hooks::default()));
    let clock = ManualClock::starting_at(Timestamp(1_000));
    let operator = Operator { store: store.clone(), hooks: hooks.clone(), clock };
    let socket = OpsSocket::bind(path).unwrap();
    let (end, ended) = tokio::sync::oneshot::channel();
    let served = tokio::spawn(server::serve(socket, operator, async { drop(ended.await) }));
    Host { store, hooks, end, served }
}

async fn ask(path: &Path, request: Request) -> Vec<Reply> {
    OpsClient::connect(path).await.unwrap().expect("a host").ask(request).await.unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn is_whole(path: &Path) {
    assert!(OpsClient::connect(path).await.unwrap().is_none(), "nobody listens yet");
    let host = start(path);
    assert_eq!(mode(&path_beside(path)), 0o600);
    let replies = ask(path, Request::Status).await;
    let [Reply::Status(status)] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!((status.host.as_ref().unwrap().pid, status.store.events), (42, 7));
    host.end.send(()).unwrap();
    host.served.await.unwrap();
    assert!(std::fs::symlink_metadata(path_beside(path)).is_err(), "the socket is gone with its host");
    assert!(OpsClient::connect(path).await.unwrap().is_none());
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_and_goes_with_its_host() {
    let folder = tempfile::tempdir().unwrap();
    is_whole(&folder.path().join("wirehook.db")).await;
}

fn deep(folder: &Path) -> PathBuf {
    let deep = folder.join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    deep.join("wirehook.db")
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_has_its_socket_beside_the_store_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = deep(folder.path());
    is_whole(&path).await;
    let host = start(&path);
    let beside = std::fs::symlink_metadata(path_beside(&path)).unwrap();
    assert!(!beside.is_symlink(), "nothing of it is in another folder");
    // What a killed host leaves is taken away by the next one.
    // (Here it lives on and cleans up nothing, as if it had been killed.)
    let next = start(&path);
    assert_eq!(ask(&path, Request::Status).await.len(), 1);
    drop((host, next));
    let _may_be_gone = std::fs::remove_file(path_beside(&path));
    // So is a link that a host of an earlier version left.
    std::os::unix::fs::symlink("/nowhere/sock", path_beside(&path)).unwrap();
    assert!(OpsClient::connect(&path).await.unwrap().is_none());
    is_whole(&path).await;
}

#[tokio::test]
async fn a_dead_hosts_socket_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wirehook.db");
    // Closing a listener leaves its file, as a kill does.
    drop(std::os::unix::net::UnixListener::bind(path_beside(&path)).unwrap());
    assert!(OpsClient::connect(&path).await.unwrap().is_none(), "nobody answers there");
    let host = start(&path);
    assert_eq!(ask(&path, Request::Status).await.len(), 1);
    drop(host);
}

#[tokio::test]
async fn a_redrive_wakes_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wirehook.db");
    let host = start(&path);
    let filter = DeadLetterFilter { endpoint: Some("shop".to_owned()), ..DeadLetterFilter::default() };
    let replies = ask(&path, Request::Redrive(filter)).await;
    let [Reply::Redriven(redriven)] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!((redriven.runs, redriven.deliveries, redriven.refused), (0, 2, 0));
    assert_eq!(*host.hooks.0.lock().unwrap(), std::slice::from_ref(redriven));
    assert_eq!(host.store.ids(), [1, 4]);
    assert_eq!(*host.store.redriven_at.lock().unwrap(), [Timestamp(1_000)]);
}

#[tokio::test]
async fn a_failure_of_the_store_is_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wirehook.db");
    let _host = start(&path);
    let replies = ask(&path, Request::ListDeliveries(Default::default())).await;
    assert!(matches!(&replies[..], [Reply::Failed { message }] if message == "the store is closed"), "{replies:?}");
    let replies = ask(&path, Request::ShowDeadLetter { id: 99 }).await;
    assert!(matches!(&replies[..], [Reply::NotFound]), "{replies:?}");
}

#[tokio::test]
async fn nonsense_is_answered_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wirehook.db");
    let _host = start(&path);
    let check = async |sent: Vec<u8>, expected: &str| {
        let mut stream = UnixStream::connect(path_beside(&path)).await.unwrap();
        // The server may answer and close before the last byte of a flood is written.
        let _ = stream.write_all(&sent).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains(expected), "{answer}");
    };
    check(b"hello\n".to_vec(), "a line is not understood").await;
    check(b"{\"protocol\":2,\"request\":\"status\"}\n".to_vec(), "speaks version 1 of the protocol, this command 2")
        .await;
    check(vec![b' '; REQUEST_LINE_BYTES_MAX as usize + 1], "a line is longer than").await;
    assert_eq!(ask(&path, Request::Status).await.len(), 1);
}
