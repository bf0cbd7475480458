//! Standard output and error as a command sees them; in tests, two buffers.

use std::io::{self, BufRead, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::failure::{Failure, Failures};
use crate::foreign;
use crate::settings::Environment;
use crate::settings::encoded::{arguments, without_credentials};

/// What an answer to a question may be, in bytes.
const ANSWER_BYTES_MAX: u64 = 1024;

/// Standard output and error, and whether somebody is there to be asked.
pub struct Console {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    coloured_out: bool,
    coloured_err: bool,
    interactive: bool,
    watched: bool,
    /// Whether data is printed as JSON.
    pub json: bool,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("json", &self.json).finish_non_exhaustive()
    }
}

/// How a cell or a word looks on a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Look {
    /// As it is.
    #[default]
    Plain,
    /// A heading.
    Heading,
    /// All is well.
    Good,
    /// Not yet well, or well with a but.
    Uneasy,
    /// Not well.
    Bad,
}

impl Look {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Heading => Style::new().bold(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Uneasy => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }

    /// `text` in this look where `coloured`.
    pub fn paint(self, text: &str, coloured: bool) -> String {
        if coloured && self != Self::Plain {
            let style = self.style();
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

impl Console {
    /// This process's own; coloured on a terminal, unless `$NO_COLOR` is set.
    pub fn of_process(environment: &Environment) -> Self {
        let colours = environment.variable("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            coloured_out: colours && io::stdout().is_terminal(),
            coloured_err: colours && io::stderr().is_terminal(),
            interactive: io::stdin().is_terminal() && io::stderr().is_terminal(),
            watched: io::stderr().is_terminal(),
            out: Box::new(io::BufWriter::new(io::stdout())),
            err: Box::new(io::stderr()),
            json: false,
        }
    }

    /// Two writers, without colours and with nobody to ask.
    pub fn of(out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Self {
        Self {
            out: Box::new(out),
            err: Box::new(err),
            coloured_out: false,
            coloured_err: false,
            interactive: false,
            watched: false,
            json: false,
        }
    }

    /// Whether data is coloured.
    pub fn coloured(&self) -> bool {
        self.coloured_out
    }

    /// Whether somebody is there to be asked.
    pub fn interactive(&self) -> bool {
        self.interactive
    }

    /// Whether somebody watches what long work comes to.
    pub fn watched(&self) -> bool {
        self.watched
    }

    /// A bar for work of `length` steps, on standard error where that is a terminal; nowhere else.
    pub fn progress(&self, length: u64) -> ProgressBar {
        let target = if self.watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        let template = "{bar:40} {human_pos}/{human_len}, {eta} left";
        // The template is a constant, so that the style can only be right.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar
    }

    /// Data: one object on a line.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn object(&mut self, object: &impl Serialize) -> io::Result<()> {
        foreign::write_json(&mut self.out, object)?;
        self.out.write_all(b"\n")
    }

    /// Data: one line for people, whatever is in it: only the looks of [`Look::paint`] reach a terminal as they are.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn line(&mut self, line: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{}", one_line(&line.to_string(), self.coloured_out))
    }

    /// Data: bytes as they are.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Lets go of what is buffered.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Everything that went wrong, to standard error.
    pub fn failures(&mut self, failures: &Failures) {
        // Data comes first, also where both end on one terminal. A closed output can't be told anything.
        let _ = self.out.flush();
        for failure in &failures.failures {
            self.said("error", Look::Bad, failure);
        }
    }

    /// What is allowed but hardly meant, to standard error.
    pub fn warning(&mut self, warning: &Failure) {
        let _ = self.out.flush();
        self.said("warning", Look::Uneasy, warning);
    }

    fn said(&mut self, word: &str, look: Look, failure: &Failure) {
        // An argument may be a URL in a place where none is taken apart.
        let message = without_credentials(&failure.message, arguments());
        let message = indented(&message);
        let mut text = format!("{} {message}\n", look.paint(&format!("{word}:"), self.coloured_err));
        if let Some(at) = &failure.at {
            text.push_str(&format!("  at {}\n", indented(at)));
        }
        if let Some(help) = &failure.help {
            text.push_str(&format!("  {} {}\n", Look::Good.paint("help:", self.coloured_err), indented(help)));
        }
        // Where standard error is closed, nobody is left to tell.
        let _ = self.err.write_all(text.as_bytes());
    }

    /// Asks on the terminal; anything but `y` or `yes` is no.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn confirm(&mut self, question: &str) -> io::Result<bool> {
        self.out.flush()?;
        write!(self.err, "{question} [y/N] ")?;
        self.err.flush()?;
        Ok(matches!(self.answer()?.to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks on the terminal; nothing is `default`, and so it is where nobody is there to be asked.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn ask(&mut self, question: &str, default: &str) -> io::Result<String> {
        if !self.interactive {
            return Ok(default.to_owned());
        }
        self.out.flush()?;
        write!(self.err, "{question} [{default}] ")?;
        self.err.flush()?;
        let answer = self.answer()?;
        Ok(if answer.is_empty() { default.to_owned() } else { answer })
    }

    fn answer(&mut self) -> io::Result<String> {
        let mut answer = String::new();
        io::Read::take(io::stdin().lock(), ANSWER_BYTES_MAX).read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }
}

/// The line without what others could have put into it; where `coloured`, with the looks that [`Look::paint`] gives.
fn one_line(line: &str, coloured: bool) -> String {
    if !coloured {
        return foreign::escape(line).into_owned();
    }
    // The longest first: what one begins with may be another.
    let looks = [Look::Bad, Look::Good, Look::Uneasy, Look::Heading].map(|look| look.style().render().to_string());
    let reset = anstyle::Reset.render().to_string();
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\u{1b}') {
        shown.push_str(&foreign::escape(&rest[..at]));
        let look = looks.iter().chain([&reset]).find(|look| rest[at..].starts_with(look.as_str()));
        let length = look.map_or(1, String::len);
        match look {
            Some(look) => shown.push_str(look),
            None => shown.push_str(&foreign::escape("\u{1b}")),
        }
        rest = &rest[at + length..];
    }
    shown.push_str(&foreign::escape(rest));
    shown
}

/// Text over several lines, none of which but the first begins where the lines of others do.
fn indented(text: &str) -> String {
    foreign::escape_but(text.trim_end_matches('\n'), |c| c == '\n').replace('\n', "\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_look_drives_the_terminal() {
        let painted = Look::Bad.paint("a\n\u{1b}[8mb\u{202e}", true);
        let bad = Look::Bad.style();
        assert_eq!(one_line(&painted, true), format!("{bad}a\\n\\u{{1b}}[8mb\\u{{202e}}{bad:#}"));
        assert_eq!(one_line("a\n\u{1b}[31mb", false), r"a\n\u{1b}[31mb");
        assert_eq!(one_line(&Look::Heading.paint("id", true), true), Look::Heading.paint("id", true));
    }

    #[test]
    fn a_failure_over_several_lines_is_one() {
        assert_eq!(indented("a\nerror: b\r\u{9b}\n"), "a\n    error: b\\r\\u{9b}");
    }
}
