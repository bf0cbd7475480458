//! Subjects: dot-separated tokens, and patterns over them with the wildcards of NATS.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// Longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// A pattern: `*` stands for one token, `>` at the end for one or more.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SubjectPattern(Box<str>);

/// Many patterns, looked up at once. The cost of a look-up grows with the subject's tokens, not with the patterns.
#[derive(Clone, Debug, Default)]
pub struct SubjectMatcher {
    root: Node,
}

/// Why a text is no pattern.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidPattern {
    /// Nothing there, or two dots in a row, or a dot at an end.
    #[error(
        "the subject `{0}` has an empty token; write tokens with single dots between them, as in `fraiseql.order.*`"
    )]
    EmptyToken(String),
    /// `>` before the end.
    #[error("the subject `{0}` has `>` before its end; `>` stands for all that follows, use `*` for one token")]
    TailBeforeEnd(String),
    /// `ord*`
    #[error("the subject `{0}` has a wildcard within a token; `*` and `>` stand for whole tokens only")]
    WildcardWithinToken(String),
    /// A space or control character.
    #[error("the subject `{0}` has a space or a control character in it")]
    Whitespace(String),
    /// Over [`PATTERN_BYTES_MAX`].
    #[error("the subject has {0} bytes; the limit is {PATTERN_BYTES_MAX}")]
    TooLong(usize),
}

impl SubjectPattern {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `subject` matches.
    pub fn matches(&self, subject: &str) -> bool {
        let mut tokens = subject.split('.');
        for wanted in self.0.split('.') {
            match (wanted, tokens.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(token)) if wanted == token => {}
                (_, Some(_)) => return false,
            }
        }
        tokens.next().is_none()
    }
}

impl FromStr for SubjectPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(InvalidPattern::TooLong(text.len()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidPattern::Whitespace(text.escape_debug().to_string()));
        }
        let mut tokens = text.split('.').peekable();
        while let Some(token) = tokens.next() {
            match token {
                "" => return Err(InvalidPattern::EmptyToken(text.to_owned())),
                ">" if tokens.peek().is_some() => return Err(InvalidPattern::TailBeforeEnd(text.to_owned())),
                "*" | ">" => {}
                token if token.contains(['*', '>']) => {
                    return Err(InvalidPattern::WildcardWithinToken(text.to_owned()));
                }
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for SubjectPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One token's place in the tree of patterns.
#[derive(Clone, Debug, Default)]
struct Node {
    tokens: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    /// Whose pattern ends here.
    ends: Vec<usize>,
    /// Whose pattern has `>` here.
    tails: Vec<usize>,
}

impl SubjectMatcher {
    /// Compiles patterns, each with the number of whoever subscribed by it; one subscriber may have many.
    pub fn new<'a>(patterns: impl IntoIterator<Item = (&'a SubjectPattern, usize)>) -> Self {
        let mut matcher = Self::default();
        for (pattern, subscriber) in patterns {
            matcher.root.insert(pattern, subscriber);
        }
        matcher
    }

    /// Puts every subscriber with a pattern that matches into `found`, ascending, each once. What was in it is gone.
    pub fn matches(&self, subject: &str, found: &mut Vec<usize>) {
        found.clear();
        self.root.collect(Some(subject), found);
        found.sort_unstable();
        found.dedup();
    }
}

impl Node {
    fn insert(&mut self, pattern: &SubjectPattern, subscriber: usize) {
        let mut node = self;
        for token in pattern.as_str().split('.') {
            node = match token {
                ">" => return node.tails.push(subscriber),
                "*" => node.any.get_or_insert_default(),
                token => node.tokens.entry(token.into()).or_default(),
            };
        }
        node.ends.push(subscriber);
    }

    /// Recursion is as deep as the longest pattern has tokens, however long the subject.
    fn collect(&self, rest: Option<&str>, found: &mut Vec<usize>) {
        let Some(rest) = rest else {
            found.extend(&self.ends);
            return;
        };
        found.extend(&self.tails);
        let (token, rest) = match rest.split_once('.') {
            Some((token, rest)) => (token, Some(rest)),
            None => (rest, None),
        };
        if let Some(node) = self.tokens.get(token) {
            node.collect(rest, found);
        }
        if let Some(node) = &self.any {
            node.collect(rest, found);
        }
    }
}

/// `PascalCase` as one token in snake_case: `OrderLine` → `order_line`, `HTTPServer` → `http_server`. Whatever is
/// neither letter nor digit becomes `_`, never doubled nor at an end. `None` where nothing is left.
pub fn snake_case(name: &str) -> Option<String> {
    let mut token = String::with_capacity(name.len() + 4);
    let mut previous: Option<char> = None;
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        if !character.is_alphanumeric() {
            previous = None;
            continue;
        }
        let begins_word = match previous {
            None => true,
            Some(previous) if is_capital(character) => {
                !is_capital(previous) || characters.peek().is_some_and(|next| next.is_lowercase())
            }
            Some(_) => false,
        };
        if begins_word && !token.is_empty() {
            token.push('_');
        }
        token.extend(character.to_lowercase().filter(|lower| lower.is_alphanumeric()));
        previous = Some(character);
    }
    (!token.is_empty()).then_some(token)
}

/// Upper case that has a lower case: letters such as `𝔇` have none, and begin no word.
fn is_capital(character: char) -> bool {
    character.is_uppercase() && !character.to_lowercase().eq([character])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> SubjectPattern {
        text.parse().unwrap()
    }

    #[test]
    fn wildcards_are_those_of_nats() {
        let check = |text: &str, subject: &str, expected: bool| {
            assert_eq!(pattern(text).matches(subject), expected, "{text} {subject}");
            let mut found = Vec::new();
            SubjectMatcher::new([(&pattern(text), 7)]).matches(subject, &mut found);
            assert_eq!(!found.is_empty(), expected, "compiled {text} {subject}");
        };
        check("fraiseql.order.created", "fraiseql.order.created", true);
        check("fraiseql.order.created", "fraiseql.order", false);
        check("fraiseql.order", "fraiseql.order.created", false);
        check("fraiseql.*.created", "fraiseql.order.created", true);
        check("fraiseql.*", "fraiseql.order.created", false);
        check("fraiseql.*", "fraiseql", false);
        check("*", "fraiseql", true);
        check("fraiseql.>", "fraiseql.order.created", true);
        check("fraiseql.>", "fraiseql.order", true);
        check("fraiseql.>", "fraiseql", false);
        check(">", "anything", true);
        check("*.>", "one", false);
        check("fraiseql.order.*", "fraiseql.Order.created", false);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let check = |text: &str, expected: fn(String) -> InvalidPattern| {
            assert_eq!(text.parse::<SubjectPattern>(), Err(expected(text.to_owned())));
        };
        check("", InvalidPattern::EmptyToken);
        check("a..b", InvalidPattern::EmptyToken);
        check(".a", InvalidPattern::EmptyToken);
        check("a.", InvalidPattern::EmptyToken);
        check("a.>.b", InvalidPattern::TailBeforeEnd);
        check("a.b*", InvalidPattern::WildcardWithinToken);
        check("a.b>", InvalidPattern::WildcardWithinToken);
        check("a b", InvalidPattern::Whitespace);
        assert_eq!("a".repeat(1025).parse::<SubjectPattern>(), Err(InvalidPattern::TooLong(1025)));
    }

    #[test]
    fn a_subscriber_is_found_once_and_in_order() {
        let patterns = [pattern("a.*"), pattern("a.>"), pattern("a.b"), pattern("c")];
        let matcher = SubjectMatcher::new(patterns.iter().zip([5, 2, 5, 1]));
        let mut found = vec![99];
        matcher.matches("a.b", &mut found);
        assert_eq!(found, [2, 5]);
    }

    #[test]
    fn a_name_becomes_one_token() {
        let check = |name: &str, expected: Option<&str>| assert_eq!(snake_case(name).as_deref(), expected, "{name}");
        check("Order", Some("order"));
        check("order", Some("order"));
        check("OrderLine", Some("order_line"));
        check("HTTPServer", Some("http_server"));
        check("userID", Some("user_id"));
        check("order_line", Some("order_line"));
        check("OrderV2Line", Some("order_v2_line"));
        check("sales.Order Line", Some("sales_order_line"));
        check("tb_Order", Some("tb_order"));
        check("__a--b*>", Some("a_b"));
        check("Größe", Some("größe"));
        check(". *", None);
        check("", None);
    }

    fn tokens(of: &'static str) -> impl Strategy<Value = String> {
        proptest::collection::vec(of, 1..5).prop_map(|tokens| tokens.join("."))
    }

    fn naive(pattern: &[&str], subject: &[&str]) -> bool {
        match (pattern, subject) {
            ([], []) => true,
            ([">"], [_, ..]) => true,
            ([first, pattern @ ..], [token, subject @ ..]) => {
                (*first == "*" || first == token) && naive(pattern, subject)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn compiled_plain_and_naive_agree(
            texts in proptest::collection::vec((tokens("[ab*]"), any::<bool>()), 0..12),
            subject in tokens("[abc]"),
        ) {
            let texts: Vec<_> = texts.into_iter().map(|(t, tail)| if tail { t + ".>" } else { t }).collect();
            let patterns: Vec<_> = texts.iter().map(|text| pattern(text)).collect();
            let tokens: Vec<_> = subject.split('.').collect();
            let expected: Vec<_> = texts.iter().enumerate()
                .filter(|(_, text)| naive(&text.split('.').collect::<Vec<_>>(), &tokens))
                .map(|(index, _)| index).collect();
            let plain: Vec<_> = patterns.iter().enumerate()
                .filter(|(_, pattern)| pattern.matches(&subject)).map(|(index, _)| index).collect();
            let mut compiled = Vec::new();
            SubjectMatcher::new(patterns.iter().zip(0..)).matches(&subject, &mut compiled);
            prop_assert_eq!(&plain, &expected);
            prop_assert_eq!(&compiled, &expected);
        }

        #[test]
        fn any_name_is_a_literal_token_or_nothing(name in any::<String>()) {
            if let Some(token) = snake_case(&name) {
                let pattern: SubjectPattern = token.parse().unwrap();
                prop_assert!(pattern.matches(&token) && !token.contains(['.', '*', '>']));
                prop_assert_eq!(snake_case(&token), Some(token));
            }
        }
    }
}
