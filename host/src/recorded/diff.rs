//! What differs between two texts, line by line.

/// Pairs of lines that are compared for the shortest difference; beyond, everything between the first and the last
/// difference is shown as replaced.
const PAIRS_MAX: usize = 4_000_000;
/// Equal lines shown around a difference.
const CONTEXT_LINES: usize = 3;
/// Lines of a difference that are shown.
pub const LINES_MAX: usize = 200;

/// A line of a difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line<'a> {
    /// In both.
    Same(&'a str),
    /// Expected, and not there.
    Missing(&'a str),
    /// There, and not expected.
    Extra(&'a str),
    /// Equal lines that are not shown, or lines past [`LINES_MAX`]: how many.
    Skipped(usize),
}

impl std::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Same(line) => write!(f, "  {line}"),
            Self::Missing(line) => write!(f, "- {line}"),
            Self::Extra(line) => write!(f, "+ {line}"),
            Self::Skipped(count) => write!(f, "  … {count} more lines"),
        }
    }
}

/// The difference; empty where there is none.
pub fn diff<'a>(expected: &'a str, found: &'a str) -> Vec<Line<'a>> {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    if expected == found {
        return Vec::new();
    }
    let before = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let rest = expected.len().min(found.len()) - before;
    let after = expected.iter().rev().zip(found.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut lines: Vec<_> = expected[..before].iter().map(|line| Line::Same(line)).collect();
    lines.extend(changed(&expected[before..expected.len() - after], &found[before..found.len() - after]));
    lines.extend(expected[expected.len() - after..].iter().map(|line| Line::Same(line)));
    shortened(&lines)
}

fn changed<'a>(expected: &[&'a str], found: &[&'a str]) -> Vec<Line<'a>> {
    let mut lines = Vec::with_capacity(expected.len() + found.len());
    if expected.len().saturating_mul(found.len()) > PAIRS_MAX {
        lines.extend(expected.iter().map(|line| Line::Missing(line)));
        lines.extend(found.iter().map(|line| Line::Extra(line)));
        return lines;
    }
    // The longest common subsequence of what is left from each pair of lines on.
    let width = found.len() + 1;
    let mut common = vec![0_u32; (expected.len() + 1) * width];
    for i in (0..expected.len()).rev() {
        for j in (0..found.len()).rev() {
            common[i * width + j] = if expected[i] == found[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < expected.len() || j < found.len() {
        if i < expected.len() && j < found.len() && expected[i] == found[j] {
            lines.push(Line::Same(expected[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == found.len() || (i < expected.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            lines.push(Line::Missing(expected[i]));
            i += 1;
        } else {
            lines.push(Line::Extra(found[j]));
            j += 1;
        }
    }
    lines
}

/// With a few equal lines around each difference, and no more lines than can be read.
fn shortened<'a>(lines: &[Line<'a>]) -> Vec<Line<'a>> {
    let is_change = |line: &Line<'_>| !matches!(line, Line::Same(_));
    let near = |index: usize| {
        let from = index.saturating_sub(CONTEXT_LINES);
        lines[from..lines.len().min(index + CONTEXT_LINES + 1)].iter().any(is_change)
    };
    let mut shown: Vec<Line<'_>> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if shown.len() >= LINES_MAX {
            shown.push(Line::Skipped(lines.len() - index));
            break;
        }
        match (near(index), shown.last_mut()) {
            (true, _) => shown.push(line.clone()),
            (false, Some(Line::Skipped(count))) => *count += 1,
            (false, _) => shown.push(Line::Skipped(1)),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, proptest};

    use super::*;

    #[test]
    fn what_changed_is_shown_with_what_is_around_it() {
        let numbers = |skip: &str| (0..20).map(|n| n.to_string()).filter(|n| n != skip).collect::<Vec<_>>().join("\n");
        let (expected, found) = (numbers(""), numbers("10").replace("15", "x"));
        let lines: Vec<_> = diff(&expected, &found).iter().map(ToString::to_string).collect();
        let shown = "  … 7 more lines,  7,  8,  9,- 10,  11,  12,  13,  14,- 15,+ x,  16,  17,  18,  … 1 more lines";
        assert_eq!(lines.join(","), shown);
        assert!(diff("a\nb", "a\nb\n").is_empty());
    }

    #[test]
    fn a_long_difference_is_cut_and_says_so() {
        let (expected, found) = ("a\n".repeat(3_000), "b\n".repeat(3_000));
        let lines = diff(&expected, &found);
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert_eq!(lines.last(), Some(&Line::Skipped(6_000 - LINES_MAX)));
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_off_it(a in prop::collection::vec("[ab]", 0..12), b in prop::collection::vec("[ab]", 0..12)) {
            let (a, b): (Vec<&str>, Vec<&str>) = (a.iter().map(String::as_str).collect(), b.iter().map(String::as_str).collect());
            let lines = changed(&a, &b);
            let side = |skip: fn(&Line<'_>) -> bool| -> Vec<&str> {
                lines.iter().filter(|line| !skip(line)).map(|line| match line {
                    Line::Same(text) | Line::Missing(text) | Line::Extra(text) => *text,
                    Line::Skipped(_) => "",
                }).collect()
            };
            assert_eq!(side(|line| matches!(line, Line::Extra(_))), a);
            assert_eq!(side(|line| matches!(line, Line::Missing(_))), b);
        }
    }
}
