use proptest::prelude::*;

use super::*;
use crate::plugin::limits::MEMORY_BYTES_MAX;

/// A value within a row's bounds, or none.
fn some_limits() -> impl Strategy<Value = SomeLimits> {
    let one = |row: &'static Row| proptest::option::of(row.least..=row.most);
    let values: Vec<_> = LIMITS.iter().map(one).collect();
    values.prop_map(|values| {
        let mut limits = SomeLimits::default();
        for (row, value) in LIMITS.iter().zip(values) {
            if let Some(value) = value {
                limits.set(row.limit, value);
            }
        }
        limits
    })
}

proptest! {
    #[test]
    fn the_lesser_holds(asked in some_limits(), granted in some_limits()) {
        for held in hold(&asked, &granted) {
            let row = held.limit.row();
            prop_assert!(held.in_force <= held.granted, "{held:?}");
            prop_assert!(held.in_force <= asked.get(row.limit).unwrap_or(row.default), "{held:?}");
            prop_assert!((row.least..=row.most).contains(&held.in_force), "{held:?}");
            let either = [held.granted, held.asked.unwrap_or(row.default)];
            prop_assert!(either.contains(&held.in_force), "{held:?}");
            prop_assert_eq!(held.is_lessened(), held.asked.is_some_and(|asked| asked > held.granted));
        }
    }

    #[test]
    fn granting_more_never_gives_less(asked in some_limits(), granted in some_limits(), limit in 0..LIMITS.len()) {
        let row = &LIMITS[limit];
        let mut more = granted;
        more.set(row.limit, row.most);
        let before = hold(&asked, &granted);
        let after = hold(&asked, &more);
        prop_assert!(before.iter().zip(&after).all(|(before, after)| before.in_force <= after.in_force));
    }

    #[test]
    fn a_value_is_read_as_it_is_shown(limits in some_limits()) {
        for (row, value) in limits.iter() {
            let shown = row.show(value);
            let read = match shown.strip_prefix('"') {
                Some(text) => row.read_text(text.trim_end_matches('"')),
                None => row.read_integer(shown.parse().unwrap()),
            };
            prop_assert_eq!(read, Ok(value), "{} {}", row.name, shown);
        }
    }
}

#[test]
fn rows_are_in_order_and_within_their_own_bounds() {
    for (index, row) in LIMITS.iter().enumerate() {
        assert_eq!(row.limit as usize, index, "{}", row.name);
        assert_eq!(Limit::parse(row.name).unwrap().limit, row.limit);
        assert!(row.contains(row.default) && row.contains(row.ungranted), "{}", row.name);
        assert!(row.default <= row.ungranted, "{}: nobody may lose what all have", row.name);
    }
    assert_eq!(Limit::Memory.row().most, MEMORY_BYTES_MAX as u64, "the engine reserves as much");
    assert_eq!(Limit::Concurrency.row().most, crate::plugin::WORKERS_MAX as u64);
}

#[test]
fn defaults_of_those_who_ask_for_nothing() {
    let limits = Limits::default();
    assert_eq!((limits.deadline, limits.memory_bytes_max), (Duration::from_millis(100), 64 << 20));
    assert_eq!((limits.webhooks_max, limits.body_bytes_max), (64, 1 << 20));
    assert_eq!((limits.headers_max, limits.header_bytes_max, limits.log_bytes_max), (32, 8 << 10, 16 << 10));
    assert_eq!(limits.events_per_instance_max, 1, "a fresh instance for every event");
}

#[test]
fn reuse_is_not_had_for_the_asking() {
    let mut asked = SomeLimits::default();
    asked.set(Limit::Reuse, 1_000);
    assert_eq!(Limits::lesser(&asked, &SomeLimits::default()).events_per_instance_max, 1);
    let mut granted = SomeLimits::default();
    granted.set(Limit::Reuse, 100);
    assert_eq!(Limits::lesser(&SomeLimits::default(), &granted).events_per_instance_max, 1, "nor without asking");
    assert_eq!(Limits::lesser(&asked, &granted).events_per_instance_max, 100);
}

#[test]
fn values_that_are_no_values() {
    let check = |limit: Limit, text: &str, expected: &str| {
        let fault = limit.row().read_text(text).unwrap_err();
        assert!(fault.contains(expected), "{text}: {fault}");
    };
    check(Limit::Deadline, "1h", "is not between \"5ms\" and \"10s\"");
    check(Limit::Memory, "1GiB", "is not between \"64KiB\" and \"256MiB\"");
    check(Limit::Body, "much", "is not between \"1B\" and \"4MiB\"");
    check(Limit::Reuse, "5", "is a string, not an integer; write reuse without quotes");
    assert!(Limit::Log.row().read_integer(5).unwrap_err().contains("such as \"16KiB\""));
    assert!(Limit::Headers.row().read_integer(-1).unwrap_err().contains("is not between 0 and 64"));
}

/// `UPDATE_EXPECT=1` writes the table anew.
#[test]
fn the_page_has_this_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/limits.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- table of limits: begin -->\n", "<!-- table of limits: end -->");
    let (before, rest) = page.split_once(begin).expect("the page has a place for the table");
    let (_, after) = rest.split_once(end).expect("the table has an end");
    let mut table = "| limit | default | without a grant | least | most | what | when it is broken |\n|---|---|---|---|---|---|---|\n".to_owned();
    for row in LIMITS {
        let [default, ungranted, least, most] =
            [row.default, row.ungranted, row.least, row.most].map(|value| row.show(value));
        table.push_str(&format!(
            "| `{}` | `{default}` | `{ungranted}` | `{least}` | `{most}` | {} | {} |\n",
            row.name, row.what, row.broken
        ));
    }
    let expected = format!("{before}{begin}{table}{end}{after}");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &expected).unwrap();
    } else {
        assert!(page == expected, "docs/limits.md differs from the code; UPDATE_EXPECT=1 writes it anew");
    }
}
