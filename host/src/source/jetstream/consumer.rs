//! A stream's consumer: what one that exists may not be, and how one is made.

use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream;

use super::JetstreamSource;
use super::filters::{filters, filters_of, is_deaf, kept, lacking};
use super::pull::PULL_MESSAGES_MAX;
use super::resume::Resume;
use crate::event::subject::{InvalidPattern, SubjectPattern};
use crate::source::nats::api::Api;
use crate::source::{BATCH_MESSAGES_MAX, BATCHES_IN_FLIGHT_MAX};

/// After which the server delivers again what was not acknowledged, in consumers that Wirehook makes.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// Hosts that share one consumer without one having to wait for the acks of another.
pub const HOSTS_MAX: usize = 8;
/// Messages of one consumer that a host may have and not have acknowledged: on their way into the inbox, and asked for.
/// What is more stays at the broker.
pub const HOST_MESSAGES_MAX: usize = BATCHES_IN_FLIGHT_MAX * BATCH_MESSAGES_MAX + PULL_MESSAGES_MAX;
/// Messages that may be delivered and not acknowledged, over all hosts, in consumers that Wirehook makes.
pub const ACK_PENDING_MAX: usize = HOSTS_MAX * HOST_MESSAGES_MAX;
/// After which the server deletes a consumer that is to go with its source, when nobody asks it for messages: its host
/// was killed.
pub const INACTIVE_MAX: Duration = Duration::from_secs(300);

/// A consumer, and what of it is not wanted.
pub(super) struct Found {
    pub(super) consumer: consumer::Info,
    /// The subjects that are wanted, where the server delivers others as well: it knows one filter for a consumer only,
    /// and several were asked for.
    pub(super) wanted: Option<Vec<SubjectPattern>>,
    /// What of the settings the consumer leaves out, in words.
    pub(super) lacking: Option<String>,
}

/// The consumer that exists. `is_first` where this process has not had it before.
///
/// # Errors
///
/// In words, when it is of no use.
pub(super) fn existing(
    source: &JetstreamSource,
    api: &Api,
    stream: &stream::Info,
    consumer: consumer::Info,
    is_first: bool,
) -> Result<Found, String> {
    let config = &consumer.config;
    if config.deliver_subject.is_some() {
        return Err(format!(
            "the consumer `{}` can't be pulled from: the server pushes its messages to a subject; delete it or name \
             another `durable`",
            source.durable
        ));
    }
    if config.ack_policy == AckPolicy::All {
        return Err(format!(
            "the consumer `{}` has the ack policy `all`, by which one ack would settle events that are not durable \
             yet; delete it or name another `durable`",
            source.durable
        ));
    }
    let filters = filters(&source.subjects, kept(&stream.config));
    let wanted = match is_filtered_here(api, &filters) && filters_of(config).is_empty() {
        true => Some(patterns(&source.subjects)?),
        false => None,
    };
    if is_first {
        for danger in dangers(config, if wanted.is_some() { &[] } else { &filters }) {
            tracing::warn!(source = %source.name, stream = stream.config.name, consumer = source.durable, "{danger}");
        }
    }
    let lacking = lacking(&filters, &filters_of(config));
    let lacking = (!lacking.is_empty()).then(|| {
        let (durable, has) = (&source.durable, filters_of(config));
        let stream = &stream.config.name;
        format!(
            "the consumer `{durable}` of the stream `{stream}` leaves out {lacking:?} of `subjects`, for its filter is \
             {has:?}; the rest is read; give it another filter, delete it, or name another `durable`"
        )
    });
    Ok(Found { consumer, wanted, lacking })
}

/// What is wrong with a consumer whose filter can match nothing that its stream keeps, in words.
pub(super) fn deafness(consumer: &consumer::Info, stream: &stream::Config) -> Option<String> {
    let (has, kept) = (filters_of(&consumer.config), kept(stream));
    is_deaf(&has, kept).then(|| {
        format!(
            "nothing can come of the stream `{}`: it keeps {kept:?}, and the filter of the consumer `{}` is {has:?}; change \
             `subjects`, or let the stream keep others: `nats stream edit {}`",
            stream.name, consumer.name, stream.name
        )
    })
}

/// What in an existing consumer's configuration can lose events, in words.
fn dangers(config: &consumer::Config, filters: &[String]) -> Vec<String> {
    let mut dangers = Vec::new();
    if config.ack_policy == AckPolicy::None {
        dangers.push("the consumer acknowledges by itself (ack policy `none`): a crash loses events".to_owned());
    }
    if config.max_deliver > 0 {
        dangers.push(format!(
            "the consumer gives a message up after {} deliveries: a store that is down for long loses events; set \
             max_deliver to -1",
            config.max_deliver
        ));
    }
    if config.headers_only {
        dangers.push("the consumer delivers headers only: no event can be decoded".to_owned());
    }
    let wanted: Vec<_> = filters.iter().filter(|filter| *filter != ">").collect();
    let has = filters_of(config);
    if !wanted.iter().copied().eq(&has) {
        dangers.push(format!("the consumer's filter is {has:?}, but `subjects` says {wanted:?}; the consumer's holds"));
    }
    dangers
}

/// Makes the consumer.
///
/// # Errors
///
/// In words.
pub(super) async fn created(
    source: &JetstreamSource,
    api: &Api,
    stream: &stream::Info,
    resume: &Resume,
) -> Result<Found, String> {
    let deliver_policy = resume.policy(source.start, stream.created.unix_timestamp_nanos())?;
    let mut config = pull::Config {
        description: Some(format!("Wirehook source {}", source.name)),
        deliver_policy,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: ACK_PENDING_MAX as i64,
        ..Default::default()
    };
    match source.ephemeral {
        true => (config.name, config.inactive_threshold) = (Some(source.durable.clone()), INACTIVE_MAX),
        false => config.durable_name = Some(source.durable.clone()),
    }
    let filters = filters(&source.subjects, kept(&stream.config));
    let mut wanted = None;
    match filters.as_slice() {
        [filter] => config.filter_subject.clone_from(filter),
        // By all of the source's subjects: the stream may come to have others than it has now.
        filters if is_filtered_here(api, filters) => wanted = Some(patterns(&source.subjects)?),
        filters => config.filter_subjects = filters.to_vec(),
    }
    let consumer = api.create_consumer(&stream.config.name, &source.durable, config).await.map_err(|error| {
        format!("can't create the consumer `{}` of the stream `{}`: {error}", source.durable, stream.config.name)
    })?;
    let skipped = match deliver_policy {
        DeliverPolicy::All => 0,
        _ => stream.state.messages.saturating_sub(consumer.num_pending),
    };
    tracing::info!(
        source = %source.name, stream = stream.config.name, consumer = source.durable, ?deliver_policy, skipped,
        "created the consumer; `skipped` are messages of the stream that it leaves out"
    );
    Ok(Found { consumer, wanted, lacking: None })
}

/// Whether what is not wanted is acknowledged here unread, since the server can't leave it out.
fn is_filtered_here(api: &Api, filters: &[String]) -> bool {
    filters.len() > 1 && !knows_several_filters(&api.wire().info().version)
}

/// nats-server 2.10 and later.
fn knows_several_filters(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse::<u64>().ok());
    (numbers.next(), numbers.next()) >= (Some(2), Some(10))
}

fn patterns(filters: &[String]) -> Result<Vec<SubjectPattern>, String> {
    filters.iter().map(|filter| filter.parse().map_err(|error: InvalidPattern| error.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_from_2_10_on_know_several_filters() {
        let check = |version: &str, expected: bool| assert_eq!(knows_several_filters(version), expected, "{version}");
        check("2.9.10", false);
        check("2.10.0", true);
        check("2.11.0-RC.1", true);
        check("3.0.0", true);
        check("", false);
    }

    #[test]
    fn a_dangerous_consumer_is_told() {
        let sound = consumer::Config { ack_policy: AckPolicy::Explicit, max_deliver: -1, ..Default::default() };
        let check = |config: consumer::Config, subjects: &[&str], expected: &[&str]| {
            let subjects: Vec<_> = subjects.iter().map(ToString::to_string).collect();
            let dangers = dangers(&config, &subjects);
            assert_eq!(dangers.len(), expected.len(), "{dangers:?}");
            assert!(dangers.iter().zip(expected).all(|(danger, word)| danger.contains(word)), "{dangers:?}");
        };
        check(sound.clone(), &[], &[]);
        check(sound.clone(), &[">"], &[]);
        check(consumer::Config { filter_subject: "a.>".into(), ..sound.clone() }, &["a.>"], &[]);
        check(consumer::Config { filter_subjects: vec!["b".into(), "a".into()], ..sound.clone() }, &["a", "b"], &[]);
        check(consumer::Config { filter_subject: "a.>".into(), ..sound.clone() }, &["b.>"], &["filter"]);
        check(consumer::Config { max_deliver: 5, ..sound.clone() }, &[], &["5 deliveries"]);
        check(
            consumer::Config { ack_policy: AckPolicy::None, headers_only: true, ..sound },
            &[],
            &["crash loses", "headers only"],
        );
    }
}
