//! The way to standard output and standard error, the only one of the command line. What is data in a line, such as the name
//! of a task, can neither steer the terminal nor break the line.

use std::{
    fmt,
    io::{self, BufWriter, Stdout, Write as _},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::CliError;
use crate::escape;

/// Lines for people. A string becomes one line, whatever it holds.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// Adds one line.
    pub(super) fn line(&mut self, line: impl fmt::Display) {
        self.0.push_str(&escape::line(&line.to_string()));
        self.0.push('\n');
    }

    /// Adds text with line breaks of its own, such as a payload.
    pub(super) fn block(&mut self, block: &str) {
        self.0.push_str(&escape::block(block));
        self.0.push('\n');
    }

    /// Adds what another program wrote, each line but the first indented, so that none passes for one of this program.
    pub(super) fn paragraph(&mut self, text: &str) {
        let mut lines = text.trim_end().lines();
        self.line(lines.next().unwrap_or_default());
        lines.for_each(|line| self.line(format_args!("  {line}")));
    }

    /// Text that is escaped already, and may have colours.
    pub(super) fn escaped(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Text {
    fn from(line: &str) -> Self {
        let mut text = Self::default();
        text.line(line.strip_suffix('\n').unwrap_or(line));
        text
    }
}

impl From<&String> for Text {
    fn from(line: &String) -> Self {
        line.as_str().into()
    }
}

impl From<fmt::Arguments<'_>> for Text {
    fn from(line: fmt::Arguments<'_>) -> Self {
        line.to_string().as_str().into()
    }
}

/// Writes a result to standard output. Whoever reads it may stop reading.
pub(super) fn print(text: impl Into<Text>) -> Result<(), CliError> {
    write(text.into().0.as_bytes())
}

/// Writes one JSON document to standard output.
pub(super) fn print_json(document: &impl serde::Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(document)
        .map_err(|error| CliError::System { what: "write JSON", error: error.into() })?;
    print_stored_json(&json)
}

/// Writes JSON to standard output that is text already.
pub(super) fn print_stored_json(json: &str) -> Result<(), CliError> {
    write(format!("{}\n", escape::json(json)).as_bytes())
}

/// Standard output, for JSON that is written part by part. What is from outside in it goes through [`escape::json`].
pub(super) fn json_stream() -> BufWriter<Stdout> {
    BufWriter::new(io::stdout())
}

/// Writes a file for other programs to standard output, with nothing from outside in it.
pub(super) fn print_file(file: &[u8]) -> Result<(), CliError> {
    write(file)
}

fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    // What is still in its buffer at the end would be lost without a word.
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::System { what: "write to standard output", error })
        }
        _ => Ok(()),
    }
}

/// Writes to standard error, beside the results. Nobody can be told if that fails.
pub(super) fn note(text: impl Into<Text>) {
    let _ = io::stderr().lock().write_all(text.into().0.as_bytes());
}

/// Whether standard error takes some kilobytes without blocking, perhaps after a wait; without a limit, that may be long.
pub(super) fn errors_have_room(limit: Option<Duration>) -> bool {
    let errors = io::stderr();
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(&mut [PollFd::new(&errors, PollFlags::OUT)], limit.as_ref()) {
        Ok(ready) => ready > 0,
        Err(rustix::io::Errno::INTR) => false,
        // A write will tell.
        Err(_) => true,
    }
}

/// Asks on standard error, and leaves the cursor behind the question.
pub(super) fn ask(question: &str) {
    let _ = write!(io::stderr().lock(), "{} ", escape::line(question));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_one_line_whatever_it_holds() {
        assert_eq!(Text::from("removed a\nb\x1b[2J\n").0, "removed a\\nb\\u{1b}[2J\n");
    }

    #[test]
    fn what_another_program_wrote_keeps_its_lines_below_ours() {
        let mut text = Text::default();
        text.paragraph("cargo failed: error\n\x1b[1mCaused by\n\n");
        assert_eq!(text.0, "cargo failed: error\n  \\u{1b}[1mCaused by\n");
    }
}
