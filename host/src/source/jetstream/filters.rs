//! Which of a source's subjects concern a stream, as the filter of its consumer.

use async_nats::jetstream::consumer::Config;
use async_nats::jetstream::stream;

/// Those of `wanted` that a stream with `kept` subjects can have, without those that others of them include: a server
/// refuses filters that overlap. All of them where none fits, as with a mirror, which has no subjects of its own.
pub(super) fn filters(wanted: &[String], kept: &[String]) -> Vec<String> {
    let mut fitting: Vec<_> = wanted.iter().filter(|filter| kept.iter().any(|kept| overlap(filter, kept))).collect();
    if fitting.is_empty() {
        fitting = wanted.iter().collect();
    }
    fitting.sort_unstable();
    fitting.dedup();
    let is_included = |filter: &&&String| fitting.iter().any(|wider| *wider != **filter && includes(wider, filter));
    fitting.iter().filter(|filter| !is_included(filter)).map(ToString::to_string).collect()
}

/// The subjects that a stream can have; none where that can't be said: it takes messages from other streams, whatever
/// their subjects, or changes subjects.
pub(super) fn kept(config: &stream::Config) -> &[String] {
    let takes_others = config.sources.as_ref().is_some_and(|sources| !sources.is_empty()) || config.mirror.is_some();
    if takes_others || config.subject_transform.is_some() { &[] } else { &config.subjects }
}

/// Whether a consumer with the filters `has`, none for everything, can't get anything of a stream with `kept` subjects.
pub(super) fn is_deaf(has: &[String], kept: &[String]) -> bool {
    let matches = |filter: &String| kept.iter().any(|kept| overlap(filter, kept));
    !kept.is_empty() && !has.is_empty() && !has.iter().any(matches)
}

/// The filters of a consumer that exists; none where it has the whole stream.
pub(super) fn filters_of(config: &Config) -> Vec<String> {
    let mut filters = config.filter_subjects.clone();
    filters.extend(Some(&config.filter_subject).filter(|filter| !filter.is_empty()).cloned());
    filters.retain(|filter| filter != ">");
    filters.sort_unstable();
    filters
}

/// Those of `wanted` of which a consumer with the filters `has` leaves something out.
pub(super) fn lacking<'a>(wanted: &'a [String], has: &[String]) -> Vec<&'a String> {
    let is_covered = |wanted: &str| has.is_empty() || has.iter().any(|has| includes(has, wanted));
    wanted.iter().filter(|wanted| !is_covered(wanted)).collect()
}

/// Whether whatever matches `narrow` matches `wide`.
fn includes(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
    loop {
        match (wide.next(), narrow.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(wide), Some(narrow)) if wide == narrow => {}
            _ => return false,
        }
    }
}

/// Whether a subject can match both.
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_asked_for_what_it_can_have() {
        let check = |wanted: &[&str], kept: &[&str], expected: &[&str]| {
            let [wanted, kept] = [wanted, kept].map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(filters(&wanted, &kept), expected, "{wanted:?} of {kept:?}");
        };
        check(&[], &["a.>"], &[]);
        check(&["a.>", "b.>"], &["a.x", "c"], &["a.>"]);
        check(&["a.>", "b.>"], &["a.>", "b.y"], &["a.>", "b.>"]);
        check(&["a.*", "b"], &["a.>"], &["a.*"]);
        check(&["a.*.c"], &["a.b.*"], &["a.*.c"]);
        check(&["b", "a"], &[], &["a", "b"]);
        check(&["a.*", "a.>", "a.b", "a.b"], &["a.>"], &["a.>"]);
        check(&["a.*", "a.*.c"], &["a.>"], &["a.*", "a.*.c"]);
        check(&["a"], &["b"], &["a"]);
    }

    #[test]
    fn what_a_consumer_leaves_out_is_known() {
        let check = |wanted: &[&str], has: &[&str], expected: &[&str]| {
            let [wanted, has] = [wanted, has].map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(lacking(&wanted, &has), expected, "{wanted:?} of {has:?}");
        };
        check(&["a.>", "b"], &[], &[]);
        check(&["a.>", "b"], &["a.*"], &["a.>", "b"]);
        check(&["a.x", "b"], &["a.*", "b"], &[]);
        check(&[], &["a.*"], &[]);
    }

    #[test]
    fn a_filter_that_can_match_nothing_is_known() {
        let check = |has: &[&str], kept: &[&str], expected: bool| {
            let [has, kept] = [has, kept].map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(is_deaf(&has, &kept), expected, "{has:?} of {kept:?}");
        };
        check(&[], &["a.>"], false);
        check(&["a.*"], &["a.>"], false);
        check(&["b.>"], &["a.>"], true);
        check(&["b.>", "a.x"], &["a.>"], false);
        check(&["b.>"], &[], false);
        check(&["a"], &["a.>"], true);
    }

    #[test]
    fn inclusion_is_by_whole_tokens() {
        let check = |wide: &str, narrow: &str, expected: bool| assert_eq!(includes(wide, narrow), expected, "{wide}");
        check("a.>", "a.b.c", true);
        check("a.>", "a.>", true);
        check("a.>", "a", false);
        check("a.*", "a.>", false);
        check("a.*", "a.*", true);
        check("a.b", "a.*", false);
        check(">", "*", true);
    }
}
