//! Where log lines go: to standard error, which may be closed by its reader, or be a file on a full disk.
//!
//! A line that cannot be written is dropped and counted. When a line can be written again, one before it says how many were lost.

use std::{
    io::{self, ErrorKind, Write},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use tracing_subscriber::fmt::MakeWriter;

use crate::{config::LogFormat, escape};

/// The log's output. Clones share it.
#[derive(Debug)]
pub(super) struct LogOutput<W> {
    lines: Arc<Mutex<Lines<W>>>,
}

/// Takes one line at a time; writing to it never fails.
#[derive(Debug)]
pub(super) struct Line<'a, W>(&'a Mutex<Lines<W>>);

#[derive(Debug)]
struct Lines<W> {
    output: W,
    format: LogFormat,
    /// How many were lost since the last one that was written, and why the last of them was.
    lost: u64,
    reason: String,
    /// The output ends within a line.
    is_torn: bool,
}

impl<W> LogOutput<W> {
    pub(super) fn new(output: W, format: LogFormat) -> Self {
        let lines = Lines { output, format, lost: 0, reason: String::new(), is_torn: false };
        Self { lines: Arc::new(Mutex::new(lines)) }
    }
}

impl<'a, W: Write + 'a> MakeWriter<'a> for LogOutput<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Line<'a, W> {
        Line(&self.lines)
    }
}

impl<W: Write> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Lines<W> {
    /// Text lines are escaped where they are put together. JSON may have in it what a terminal would obey or hide.
    fn add(&mut self, line: &[u8]) {
        match self.format {
            LogFormat::Text => self.write(line),
            LogFormat::Json => self.write(escape::json(&String::from_utf8_lossy(line)).as_bytes()),
        }
    }

    fn write(&mut self, line: &[u8]) {
        if self.lost > 0 {
            let notice = self.notice();
            match self.try_to_write(notice.as_bytes()) {
                Ok(()) => (self.lost, self.is_torn) = (0, false),
                Err(error) => return self.lose(&error),
            }
        }
        if let Err(error) = self.try_to_write(line) {
            self.lose(&error);
        }
    }

    fn lose(&mut self, error: &io::Error) {
        self.lost += 1;
        self.reason = error.to_string();
    }

    fn try_to_write(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn notice(&self) -> String {
        let Self { lost, reason, .. } = self;
        let message = format!("{lost} lines of this log were lost, because they could not be written: {reason}");
        let begin = if self.is_torn { "\n" } else { "" };
        match self.format {
            LogFormat::Text => format!("{begin}{:.3} WARN  {message}\n", Timestamp::now()),
            LogFormat::Json => {
                let line = serde_json::json!({
                    "timestamp": Timestamp::now().to_string(),
                    "level": "WARN",
                    "event": "log_lines_lost",
                    "lost": lost,
                    "message": message,
                });
                format!("{begin}{line}\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes.
    #[derive(Debug, Default)]
    struct Disk {
        room: usize,
        written: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.room);
            if fits == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= fits;
            self.written.extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(output: &LogOutput<Disk>) -> Vec<String> {
        let written = output.lines.lock().unwrap().output.written.clone();
        String::from_utf8(written).unwrap().lines().map(str::to_owned).collect()
    }

    fn give_room(output: &LogOutput<Disk>, room: usize) {
        output.lines.lock().unwrap().output.room = room;
    }

    #[test]
    fn lines_that_find_no_room_are_dropped_and_counted() {
        let output = LogOutput::new(Disk::default(), LogFormat::Text);
        give_room(&output, 8);
        for line in ["first\n", "second\n", "third\n"] {
            output.make_writer().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(lines(&output), ["first", "se"]);
        give_room(&output, 1_000);
        output.make_writer().write_all(b"fourth\n").unwrap();
        output.make_writer().write_all(b"fifth\n").unwrap();
        let lines = lines(&output);
        assert!(lines[2].contains("2 lines of this log were lost"), "{lines:?}");
        assert_eq!(
            (lines.len(), lines[1].as_str(), lines[3].as_str(), lines[4].as_str()),
            (5, "se", "fourth", "fifth")
        );
    }

    #[test]
    fn a_notice_that_finds_no_room_itself_is_said_later_and_counts_what_came_meanwhile() {
        let output = LogOutput::new(Disk::default(), LogFormat::Json);
        output.make_writer().write_all(b"first\n").unwrap();
        give_room(&output, 3);
        output.make_writer().write_all(b"second\n").unwrap();
        give_room(&output, 1_000);
        output.make_writer().write_all(b"third\n").unwrap();
        let lines = lines(&output);
        let notice: serde_json::Value = serde_json::from_str(&lines[1]).expect("it begins on a line of its own");
        assert_eq!((notice["lost"].as_u64(), lines[2].as_str()), (Some(2), "third"));
    }
}
