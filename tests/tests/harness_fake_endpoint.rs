//! The fake endpoint itself: a judge must be judged first.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, SECRET, Script};
use wirehook_tests::{http_client, python_verifier};

const DEADLINE: Duration = Duration::from_secs(10);

/// A request signed as the page's `send_signed_webhook` does.
fn signed(url: &str, id: &str, body: &str, secret: &str) -> Result<reqwest::RequestBuilder> {
    use hmac::{Hmac, KeyInit, Mac};
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().to_string();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(format!("{timestamp}.{body}").as_bytes());
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    let request = http_client::new()?.post(url).header("webhook-id", id).header("x-timestamp", timestamp);
    Ok(request.header("x-signature", signature).body(body.to_owned()))
}

#[tokio::test]
async fn statuses_are_told_apart_by_webhook_id() -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::statuses(&[503, 503, 200])).await?;
    let mut statuses = Vec::new();
    for id in ["a", "b", "a", "a", "a"] {
        statuses.push(signed(&endpoint.url(), id, "{}", SECRET)?.send().await?.status().as_u16());
    }
    assert_eq!(statuses, [503, 503, 503, 200, 200]);
    endpoint.wait_for("both ids", DEADLINE, |log| log.ids() == 2 && log.of("a").len() == 4).await?;
    endpoint.expect_all_signed()
}

#[tokio::test]
async fn a_wrong_secret_or_no_signature_is_seen() -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    signed(&endpoint.url(), "a", "{}", "another secret")?.send().await?;
    assert!(endpoint.expect_all_signed().is_err());
    assert!(!python_verifier::judge(&endpoint.requests(), SECRET).await?.0);

    let bare = FakeEndpoint::start(Script::ok()).await?;
    http_client::new()?.post(bare.url()).body("{}").send().await?;
    assert!(bare.expect_all_signed().is_err());
    Ok(())
}

#[tokio::test]
async fn the_python_verifier_agrees_on_a_good_signature() -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    signed(&endpoint.url(), "a", r#"{"é":1}"#, SECRET)?.send().await?;
    endpoint.expect_all_signed()?;
    python_verifier::accept_all(&endpoint.requests(), SECRET).await
}

#[tokio::test]
async fn a_wait_ends_with_the_arrival_it_waits_for_and_fails_at_its_deadline() -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let request = signed(&endpoint.url(), "a", "{}", SECRET)?;
    let (arrival, sent) = tokio::join!(endpoint.wait_for("one", DEADLINE, |log| log.ids() == 1), request.send());
    arrival?;
    sent?;
    let late = endpoint.wait_for("two", Duration::from_millis(50), |log| log.ids() == 2).await;
    assert!(late.is_err_and(|error| error.to_string().contains("1 requests with 1 ids")));
    Ok(())
}

#[tokio::test]
async fn it_hangs_drips_floods_redirects_and_hangs_up() -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::always(Answer::Hang)).await?;
    let url = endpoint.url();
    let brief = |request: reqwest::RequestBuilder| request.timeout(Duration::from_millis(200));
    assert!(brief(signed(&url, "a", "", SECRET)?).send().await.is_err_and(|error| error.is_timeout()));

    endpoint.set_script(Script::always(Answer::Drip(Duration::from_millis(10))));
    let dripping = brief(signed(&url, "a", "", SECRET)?).send().await?;
    assert!(dripping.bytes().await.is_err_and(|error| error.is_timeout()));

    endpoint.set_script(Script::always(Answer::Huge(1_000_000)));
    assert!(signed(&url, "a", "", SECRET)?.send().await?.bytes().await?.len() >= 1_000_000);

    endpoint.set_script(Script::always(Answer::redirect("http://127.0.0.1:1/")));
    assert_eq!(signed(&url, "a", "", SECRET)?.send().await?.headers()["location"], "http://127.0.0.1:1/");

    endpoint.set_script(Script::always(Answer::HangUp));
    assert!(signed(&url, "a", "", SECRET)?.send().await.is_err());
    Ok(())
}

#[tokio::test]
async fn it_can_be_down_first_and_again() -> Result<()> {
    let mut endpoint = FakeEndpoint::down(Script::ok())?;
    assert!(signed(&endpoint.url(), "a", "", SECRET)?.send().await.is_err());
    endpoint.listen().await?;
    assert!(signed(&endpoint.url(), "a", "", SECRET)?.send().await?.status().is_success());
    endpoint.hang_up().await;
    assert!(signed(&endpoint.url(), "a", "", SECRET)?.send().await.is_err());
    assert_eq!((endpoint.requests().len(), endpoint.connections()), (1, 1));
    Ok(())
}
