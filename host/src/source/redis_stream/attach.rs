//! From the settings to a group of every stream that can be read from.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::RedisStreamSource;
use super::entry::EntryId;
use super::group::{Group, Swept};
use super::standing::Standing;
use crate::source::redis::failure::Failure;

/// A group that can be read from.
pub(super) struct Attached {
    pub(super) group: Group,
    /// What was taken over already.
    pub(super) swept: Swept,
    /// Where the next sweep goes on.
    pub(super) places: Vec<EntryId>,
}

/// Connects, makes the groups that are missing, and takes over what nobody works on. All that the source will have to do
/// has been tried then, but for reading. `made` are the streams whose groups are this source's own work.
pub(super) async fn attach(
    source: &RedisStreamSource,
    keys: &Arc<[Arc<str>]>,
    standing: &mut Standing,
    made: &mut BTreeSet<usize>,
) -> Result<Attached, Failure> {
    let group = Group::connect(source, keys, &standing.consumer).await?;
    for (stream, key) in keys.iter().enumerate() {
        if found_or_made(source, &group, stream, key, standing).await.map_err(|failure| failure.of_stream(key))? {
            made.insert(stream);
        }
        standing.note(key, &source.group);
    }
    let mut places = vec![EntryId::default(); keys.len()];
    let swept = group.commands.sweep(&mut places).await?;
    Ok(Attached { group, swept, places })
}

/// Whether the group was made here.
async fn found_or_made(
    source: &RedisStreamSource,
    group: &Group,
    stream: usize,
    key: &str,
    standing: &Standing,
) -> Result<bool, Failure> {
    if group.commands.exists(stream).await? {
        return Ok(false);
    }
    let made = make(source, group, stream, key, standing).await?;
    // For what it tries on the way.
    group.commands.exists(stream).await?;
    Ok(made)
}

async fn make(
    source: &RedisStreamSource,
    group: &Group,
    stream: usize,
    key: &str,
    standing: &Standing,
) -> Result<bool, Failure> {
    let origin = standing.origin(key, &source.group, source.start);
    let length = group.commands.length(stream).await;
    if !group.commands.make(stream, &origin).await? {
        return Ok(false);
    }
    if standing.had(key, &source.group) {
        tracing::warn!(
            source = %source.name, stream = key, group = source.group, entries = length,
            "the group was lost, and is made again at the beginning of the stream: entries that were accepted before are \
             known by their ids; entries that were lost with the stream are lost"
        );
        return Ok(true);
    }
    let skipped = match origin.as_str() {
        "0" => "nothing".to_owned(),
        "$" => length.map_or("every entry until now".to_owned(), |length| format!("{length} entries")),
        origin => format!("entries up to {origin}"),
    };
    tracing::info!(
        source = %source.name, stream = key, group = source.group, origin, entries = length, skipped,
        "made the group; `skipped` is what it leaves out, by `start`"
    );
    Ok(true)
}
