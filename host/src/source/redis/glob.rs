//! Patterns of `PSUBSCRIBE`, as Redis itself matches them (`stringmatchlen` in its `util.c`).

/// Steps after which a match is given up: there are no more than the pattern's bytes times the channel's, and names of
/// channels may be long.
const STEPS_MAX: usize = 1_000_000;

/// Whether `channel` matches `pattern`: `*` is any bytes, `?` is one, `[a-c]` and `[^a-c]` are one of a set, and `\` takes
/// the next byte as it is. A set that is not closed ends with the pattern. No wildcard matches an empty name.
pub(super) fn matches(pattern: &[u8], channel: &[u8]) -> bool {
    if channel.is_empty() {
        return pattern.is_empty();
    }
    let (mut pattern, mut channel) = (pattern, channel);
    // Where to go on when what follows the last `*` does not match: the `*` takes one byte more then.
    let mut resume: Option<(&[u8], &[u8])> = None;
    for _ in 0..STEPS_MAX {
        if let [b'*', rest @ ..] = pattern {
            pattern = rest;
            resume = Some((rest, channel));
            continue;
        }
        let matched = match (pattern, channel) {
            ([], []) => return true,
            ([], _) | (_, []) => None,
            (_, [byte, left @ ..]) => one(pattern, *byte).map(|rest| (rest, left)),
        };
        match (matched, resume) {
            (Some(next), _) => (pattern, channel) = next,
            (None, Some((rest, [_, left @ ..]))) => {
                (pattern, channel) = (rest, left);
                resume = Some((rest, left));
            }
            (None, _) => return false,
        }
    }
    false
}

/// What is left of a pattern that does not begin with `*`, where its first element matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', set @ ..] => within(set, byte),
        [b'\\', escaped, rest @ ..] => (*escaped == byte).then_some(rest),
        [literal, rest @ ..] => (*literal == byte).then_some(rest),
        [] => None,
    }
}

/// As [`one`], from behind the `[` on.
fn within(set: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut set) = match set {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    let rest = loop {
        set = match set {
            [b'\\', escaped, rest @ ..] => {
                found |= *escaped == byte;
                rest
            }
            [b']', rest @ ..] => break rest,
            [] => break &[],
            [from, b'-', to, rest @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
        };
    };
    (found != negated).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let check = |pattern: &str, channel: &str, expected: bool| {
            assert_eq!(matches(pattern.as_bytes(), channel.as_bytes()), expected, "{pattern} {channel}");
        };
        check("", "", true);
        check("", "a", false);
        check("*", "", false);
        check("*", "fraiseql.order.created", true);
        check("fraiseql.*", "fraiseql.", true);
        check("fraiseql.*", "fraiseql", false);
        check("*.created", "fraiseql.created.created", true);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("a**b", "ab", true);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("a?", "a", false);
        check("[abc]", "b", true);
        check("[^abc]", "b", false);
        check("[^abc]", "d", true);
        check("[a-c]x", "bx", true);
        check("[c-a]x", "bx", true);
        check("[a-c]", "d", false);
        check("[a-]", "a", true);
        check("[a\\]b]", "]", true);
        check("[]", "a", false);
        check("[^]", "a", true);
        check("[abc", "c", true);
        check("[abc", "cc", false);
        check("\\*", "*", true);
        check("\\*", "a", false);
        check("a\\", "a\\", true);
        check("[", "a", false);
        check("*[ab]*", "--b--", true);
    }

    #[test]
    fn many_stars_end_in_time() {
        let (pattern, channel) = ("a*".repeat(200) + "b", "a".repeat(512));
        assert!(!matches(pattern.as_bytes(), channel.as_bytes()));
    }

    proptest! {
        #[test]
        fn a_name_without_wildcards_matches_itself_alone(name in "[a-z.]{0,12}", other in "[a-z.]{0,12}") {
            prop_assert_eq!(matches(name.as_bytes(), other.as_bytes()), name == other);
        }

        #[test]
        fn a_star_takes_anything(parts in proptest::collection::vec("[ab]{0,3}", 1..5), gaps in "[ab]{0,4}") {
            let (pattern, channel) = (format!("x{}", parts.join("*")), format!("x{}", parts.join(&gaps)));
            prop_assert!(matches(pattern.as_bytes(), channel.as_bytes()));
        }

        #[test]
        fn nothing_panics(pattern in "[a\\[\\]^\\\\*?-]{0,12}", channel in "[a-c\\[\\]^-]{0,12}") {
            matches(pattern.as_bytes(), channel.as_bytes());
        }
    }
}
