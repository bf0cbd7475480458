//! The server or the host is killed, or the server is not there.

use anyhow::{Context, Result, ensure};

use super::load::{Load, events_least, orders};
use super::stage::{DEADLINE, Stage};
use super::{Bus, Guarantee, SOURCE};
use crate::publisher::HttpPublisher;

/// Orders published after the last outage, at least.
fn afterwards() -> usize {
    events_least() / 4
}

/// How often a server or host is killed. What a bus loses that keeps nothing is told by one gap, so it is killed once.
fn kills(guarantee: Guarantee) -> usize {
    match guarantee {
        Guarantee::AtLeastOnce => 2,
        Guarantee::AtMostOnce => 1,
    }
}

/// SIGKILL to the server under load, and a new start. Reconnects are counted.
pub async fn a_server_killed_under_load<B: Bus>() -> Result<()> {
    let mut stage = Stage::<B>::ready().await?;
    let load = Load::start(&stage.bus);
    for kill in 1..=kills(B::GUARANTEE) {
        let share = events_least() / 4 * kill;
        stage.until("a share of the orders", |arrivals| arrivals.count() >= share).await?;
        stage.bus.kill();
        stage.until_disconnected().await?;
        stage.bus.restart().await?;
        let labels = format!("source=\"{SOURCE}\"");
        stage.host.wait_metric("wirehook_source_reconnects_total", &labels, kill as f64, DEADLINE).await?;
        stage.host.wait_ready().await?;
    }
    expect_guarantee(stage, load).await
}

/// SIGKILL to the host under load, and a new start.
pub async fn a_host_killed_under_load<B: Bus>() -> Result<()> {
    let mut stage = Stage::<B>::ready().await?;
    let load = Load::start(&stage.bus);
    for kill in 1..=kills(B::GUARANTEE) {
        let share = events_least() / 4 * kill;
        stage.until("a share of the orders", |arrivals| arrivals.count() >= share).await?;
        stage.host.kill9().await?;
        stage.host.start().await.with_context(|| format!("after kill {kill}"))?;
    }
    expect_guarantee(stage, load).await
}

/// The host is ready again; the load goes on for a while and ends.
async fn expect_guarantee<B: Bus>(mut stage: Stage<B>, load: Load) -> Result<()> {
    let after = load.begun();
    let end = load.finish(after + afterwards()).await?;
    match B::GUARANTEE {
        Guarantee::AtLeastOnce => {
            stage.until_all(end).await?;
            stage.until_settled().await?;
        }
        Guarantee::AtMostOnce => {
            let arrived = stage.until("all since", |arrivals| arrivals.missing(after..end).is_empty()).await;
            arrived.with_context(|| format!("missing since {after}: {:?}", stage.arrivals.missing(after..end)))?;
            expect_one_gap(&stage.arrivals.missing(0..after))?;
        }
    }
    stage.expect_clean().await
}

/// The bus keeps the order of what is published, and so does the inbox: what one outage loses has no hole in it.
fn expect_one_gap(missing: &[usize]) -> Result<()> {
    let (Some(first), Some(last)) = (missing.first(), missing.last()) else { return Ok(()) };
    println!("lost: {} orders, {first} to {last}", missing.len());
    ensure!(last - first + 1 == missing.len(), "more is lost than one outage loses: {missing:?}");
    Ok(())
}

/// The host is up without the bus, names the source that is down, and works for the others; when the bus comes up it is
/// joined.
pub async fn a_bus_that_is_down_at_the_start_is_joined_later<B: Bus>() -> Result<()> {
    let other = HttpPublisher::new()?;
    let mut stage = Stage::with(B::stopped().await?, |builder| builder.http(other.port, "")).await?;
    stage.host.spawn(&[]).await?;
    let why = stage.until_disconnected().await?;
    println!("/readyz said: {why}");

    other.publish_orders([0]).await?;
    stage.until_all(1).await?;
    stage.bus.restart().await?;
    stage.host.wait_ready().await?;
    stage.publish(&orders(1..11)).await?;
    stage.until_all(11).await?;
    stage.expect_clean().await
}

#[cfg(test)]
mod tests {
    use super::expect_one_gap;

    #[test]
    fn a_second_gap_is_found() {
        assert!(expect_one_gap(&[]).is_ok());
        assert!(expect_one_gap(&[7]).is_ok());
        assert!(expect_one_gap(&[7, 8, 9]).is_ok());
        assert!(expect_one_gap(&[7, 9]).is_err());
    }
}
