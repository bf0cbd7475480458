//! `POST /events`, for the scenarios that need no server of its own: what it answers 202 to is durable.

use anyhow::{Result, ensure};
use wirehook_tests::conformance::source::{Bus, Guarantee, Order, Publisher};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::source_conformance;

source_conformance!(Http: an_event_arrives_decoded, a_host_killed_under_load);

struct Http {
    publisher: HttpPublisher,
}

impl Bus for Http {
    const GUARANTEE: Guarantee = Guarantee::AtLeastOnce;
    type Publisher = EventPoster;

    async fn start() -> Result<Self> {
        Ok(Self { publisher: HttpPublisher::new()? })
    }

    async fn stopped() -> Result<Self> {
        Self::start().await
    }

    fn source_toml(&self, name: &str) -> String {
        let port = self.publisher.port;
        format!("[[source]]\nname = {name:?}\nkind = \"http\"\nlisten = \"127.0.0.1:{port}\"\n")
    }

    fn publisher(&self) -> EventPoster {
        EventPoster(self.publisher.clone())
    }

    /// The host itself is the server.
    fn kill(&mut self) {}

    async fn restart(&mut self) -> Result<()> {
        Ok(())
    }

    async fn unaccepted(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// Posts `EntityEvent`s, whose ids make a post that can be repeated.
#[derive(Clone)]
struct EventPoster(HttpPublisher);

impl EventPoster {
    async fn post(&self, body: Vec<u8>) -> Result<()> {
        let (status, text) = self.0.post(body).await?;
        ensure!(status == 202, "answered {status}: {text}");
        Ok(())
    }
}

impl Publisher for EventPoster {
    async fn publish(&mut self, orders: &[Order]) -> Result<()> {
        let bodies: Vec<_> = orders.iter().map(Order::entity_event).collect();
        self.post([b"[", bodies.join(&b","[..]).as_slice(), b"]"].concat()).await
    }

    async fn publish_garbage(&mut self) -> Result<()> {
        self.post(b"\xff is no JSON".to_vec()).await
    }
}
