//! Where in the file: byte offsets become lines and columns.

/// A settings file's name and text.
pub(super) struct Text<'a> {
    name: String,
    text: &'a str,
}

impl<'a> Text<'a> {
    pub(super) fn new(name: String, text: &'a str) -> Self {
        Self { name, text }
    }

    /// The line of a byte offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.before(offset).bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    /// `file:line`.
    pub(super) fn at_line(&self, offset: usize) -> String {
        format!("{}:{}", self.name, self.line(offset))
    }

    /// `file:line:column`; columns count characters, from 1.
    pub(super) fn at(&self, offset: usize) -> String {
        let line_before = self.before(offset).rsplit('\n').next().unwrap_or_default();
        format!("{}:{}:{}", self.name, self.line(offset), line_before.chars().count() + 1)
    }

    fn before(&self, offset: usize) -> &'a str {
        self.text.get(..offset.min(self.text.len())).unwrap_or(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_lines_and_columns() {
        let check = |text: &str, needle: &str, expected: &str| {
            let offset = text.find(needle).unwrap();
            assert_eq!(Text::new("w.toml".into(), text).at(offset), expected);
        };
        check("a", "a", "w.toml:1:1");
        check("x\n  b", "b", "w.toml:2:3");
        check("x\r\né = b", "b", "w.toml:2:5");
    }
}
