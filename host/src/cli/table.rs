//! Aligned columns for people.

use std::io;

use super::console::{Console, Look};
use crate::foreign;

/// The widest a column is padded to, in characters; a longer cell pushes its neighbours.
const COLUMN_WIDTH_MAX: usize = 60;

/// Rows of cells under headings.
#[derive(Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    /// Columns that stand at the right.
    numbers: &'static [usize],
    rows: Vec<Vec<(String, Look)>>,
}

impl Table {
    /// No rows yet.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), numbers: &[], rows: Vec::new() }
    }

    /// The columns with these positions hold numbers, one below the other by their last digits.
    #[must_use]
    pub fn numbers(self, columns: &'static [usize]) -> Self {
        Self { numbers: columns, ..self }
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<(String, Look)>) {
        self.rows.push(cells);
    }

    /// Prints it, or what there is instead of rows: `no deliveries`.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print_or(&self, nothing: &str, console: &mut Console) -> io::Result<()> {
        if self.rows.is_empty() { console.line(nothing) } else { self.print(console) }
    }

    /// Prints it; nothing at all without rows.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print(&self, console: &mut Console) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let headings: Vec<_> = self.headings.iter().map(|heading| (heading.to_uppercase(), Look::Heading)).collect();
        let widths = self.widths();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let line = line(row, &widths, self.numbers, console.coloured());
            console.line(line)?;
        }
        Ok(())
    }

    fn widths(&self) -> Vec<usize> {
        let column_width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| width(text));
            cells.chain([self.headings[column].len()]).max().unwrap_or_default().min(COLUMN_WIDTH_MAX)
        };
        (0..self.headings.len()).map(column_width).collect()
    }
}

/// In characters, as it is printed.
fn width(text: &str) -> usize {
    foreign::escape(text).chars().count()
}

fn line(row: &[(String, Look)], widths: &[usize], numbers: &[usize], coloured: bool) -> String {
    let mut line = String::new();
    for (index, (text, look)) in row.iter().enumerate() {
        let padding = widths[index].saturating_sub(width(text));
        let (before, after) = if numbers.contains(&index) { (padding, 0) } else { (0, padding) };
        line.extend(std::iter::repeat_n(' ', before));
        line.push_str(&look.paint(text, coloured));
        if index + 1 < row.len() {
            line.extend(std::iter::repeat_n(' ', after + 2));
        }
    }
    line.trim_end().to_owned()
}

/// A cell as it is.
#[allow(clippy::needless_pass_by_value, reason = "a number, a reference or a fresh string, whichever is at hand")]
pub fn plain(text: impl ToString) -> (String, Look) {
    (printable(&text.to_string()), Look::Plain)
}

/// A cell that may be empty, shown as `-`.
pub fn maybe(text: Option<impl ToString>) -> (String, Look) {
    plain(text.map_or_else(|| "-".to_owned(), |text| text.to_string()))
}

/// A count with its noun: `1 dead letter`, `2 dead letters`.
pub fn counted(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// Text from outside, with escapes for what would move the cursor, colour the terminal or mislead its reader.
pub fn printable(text: &str) -> String {
    foreign::escape(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let row = |a: &str, b: &str| vec![plain(a), plain(b)];
        let mut table = Table::new(&["id", "state"]);
        table.row(row("1", "dead"));
        table.row(row("1000", ""));
        let widths = table.widths();
        assert_eq!(line(&table.rows[0], &widths, table.numbers, false), "1     dead");
        assert_eq!(line(&table.rows[1], &widths, table.numbers, false), "1000");
        assert_eq!(line(&table.rows[0], &widths, &[0, 1], false), "   1   dead");
    }

    #[test]
    fn one_is_not_several() {
        let check = |count, expected: &str| assert_eq!(counted(count, "delivery", "deliveries"), expected);
        check(0, "0 deliveries");
        check(1, "1 delivery");
        check(2, "2 deliveries");
    }

    #[test]
    fn text_from_outside_can_not_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\n\u{202e}"), r"a\u{1b}[31mb\n\u{202e}");
    }
}
