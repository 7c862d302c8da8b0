//! Where log lines go: to standard error, which may be closed by its reader, be a file on a full disk, or be a pipe that nobody reads.
//!
//! No write may block, since whoever logs would wait with it. What finds no room waits in a queue, which a thread writes when there is
//! some. A line that cannot be written, or that the queue has no room for, is dropped and counted. The next line that can be written is
//! preceded by one that says how many were lost.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing_subscriber::fmt::MakeWriter;

use crate::{config::LogFormat, escape};

/// How many bytes wait at most.
const MOST_WAITING: usize = 256 << 10;
/// A pipe that has room at all has room for so much.
const PIECE: usize = 4 << 10;
/// How long the end of the program is put off for a reader that reads nothing, and for one that is slow.
const STALLED_FOR: Duration = Duration::from_secs(1);
const SLOW_FOR: Duration = Duration::from_secs(5);

/// Whether a write of a [`PIECE`] would not block. It may wait for that, without a limit for ever.
pub(super) type HasRoom = fn(Option<Duration>) -> bool;

/// The log's output. Clones share it.
#[derive(Debug)]
pub(super) struct LogOutput<W> {
    lines: Arc<Mutex<Lines<W>>>,
}

/// Takes one line at a time; writing to it never fails.
#[derive(Debug)]
pub(super) struct Line<'a, W>(&'a LogOutput<W>);

#[derive(Debug)]
struct Lines<W> {
    output: W,
    has_room: HasRoom,
    format: LogFormat,
    /// What could not be written yet, in order. The first may be the rest of a line.
    waiting: VecDeque<Waiting>,
    /// How much of it there is.
    bytes: usize,
    /// A thread writes it.
    is_followed: bool,
    /// How many were lost since the last notice, and why the last of them was.
    lost: u64,
    reason: String,
    /// The output ends within a line.
    is_torn: bool,
}

#[derive(Debug)]
struct Waiting {
    rest: Vec<u8>,
    /// How many lines are lost if this is.
    lines: u64,
}

impl<W> Clone for LogOutput<W> {
    fn clone(&self) -> Self {
        Self { lines: Arc::clone(&self.lines) }
    }
}

impl<W> LogOutput<W> {
    pub(super) fn new(output: W, has_room: HasRoom, format: LogFormat) -> Self {
        let lines = Lines {
            output,
            has_room,
            format,
            waiting: VecDeque::new(),
            bytes: 0,
            is_followed: false,
            lost: 0,
            reason: String::new(),
            is_torn: false,
        };
        Self { lines: Arc::new(Mutex::new(lines)) }
    }

    fn lock(&self) -> MutexGuard<'_, Lines<W>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write + Send + 'static> LogOutput<W> {
    /// Writes what waits, before the program ends. A reader that has stalled does not keep it from ending.
    pub(super) fn finish(&self) {
        let began = Instant::now();
        while began.elapsed() < SLOW_FOR {
            let has_room = {
                let mut lines = self.lock();
                lines.write_waiting();
                if lines.waiting.is_empty() {
                    return;
                }
                lines.has_room
            };
            if !has_room(Some(STALLED_FOR)) {
                return;
            }
        }
    }

    fn add(&self, line: &[u8]) {
        let mut lines = self.lock();
        lines.add(line);
        if lines.waiting.is_empty() || lines.is_followed {
            return;
        }
        let this = self.clone();
        let follow = thread::Builder::new().name("taskbay-log".to_owned()).spawn(move || this.follow());
        // Without a thread, the next line is written with what waits.
        lines.is_followed = follow.is_ok();
    }

    /// Writes what waits when there is room, until nothing does.
    fn follow(&self) {
        let has_room = self.lock().has_room;
        loop {
            has_room(None);
            let mut lines = self.lock();
            lines.write_waiting();
            if lines.waiting.is_empty() {
                lines.is_followed = false;
                return;
            }
        }
    }
}

impl<'a, W: Write + Send + 'static> MakeWriter<'a> for LogOutput<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Line<'a, W> {
        Line(self)
    }
}

impl<W: Write + Send + 'static> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Lines<W> {
    /// Text lines are escaped where they are put together. JSON may have in it what a terminal would obey or hide.
    fn add(&mut self, line: &[u8]) {
        let line = match self.format {
            LogFormat::Text => line.to_vec(),
            LogFormat::Json => escape::json(&String::from_utf8_lossy(line)).into_owned().into_bytes(),
        };
        // One line is taken however long it is.
        if self.bytes > 0 && self.bytes + line.len() > MOST_WAITING {
            self.lost += 1;
            "its reader is too slow or has stopped reading".clone_into(&mut self.reason);
        } else {
            if self.lost > 0 {
                let notice = self.notice().into_bytes();
                let lines = std::mem::take(&mut self.lost);
                self.put(notice, lines);
            }
            self.put(line, 1);
        }
        self.write_waiting();
    }

    fn put(&mut self, rest: Vec<u8>, lines: u64) {
        self.bytes += rest.len();
        self.waiting.push_back(Waiting { rest, lines });
    }

    /// Writes as much as there is room for. After an error, all that waits is lost.
    fn write_waiting(&mut self) {
        while let Some(first) = self.waiting.front_mut() {
            if !(self.has_room)(Some(Duration::ZERO)) {
                return;
            }
            let piece = &first.rest[..first.rest.len().min(PIECE)];
            let written = match self.output.write(piece) {
                Ok(0) if !piece.is_empty() => Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other,
            };
            match written {
                Ok(written) => {
                    first.rest.drain(..written);
                    self.bytes -= written;
                    self.is_torn = !first.rest.is_empty();
                    if !self.is_torn {
                        self.waiting.pop_front();
                    }
                }
                Err(error) => self.lose_waiting(&error),
            }
        }
    }

    fn lose_waiting(&mut self, error: &io::Error) {
        self.lost += self.waiting.drain(..).map(|waiting| waiting.lines).sum::<u64>();
        self.bytes = 0;
        self.reason = error.to_string();
    }

    fn notice(&self) -> String {
        let Self { lost, reason, .. } = self;
        let message = format!("{lost} lines of this log were lost, because they could not be written: {reason}");
        // Of a line that waits, the rest comes first.
        let begin = if self.is_torn && self.waiting.is_empty() { "\n" } else { "" };
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
        let output = LogOutput::new(Disk::default(), |_| true, LogFormat::Text);
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
        let output = LogOutput::new(Disk::default(), |_| true, LogFormat::Json);
        output.make_writer().write_all(b"first\n").unwrap();
        give_room(&output, 3);
        output.make_writer().write_all(b"second\n").unwrap();
        give_room(&output, 1_000);
        output.make_writer().write_all(b"third\n").unwrap();
        let lines = lines(&output);
        let notice: serde_json::Value = serde_json::from_str(&lines[1]).expect("it begins on a line of its own");
        assert_eq!((notice["lost"].as_u64(), lines[2].as_str()), (Some(2), "third"));
    }

    /// A pipe whose reader has stalled until it is told to go on.
    mod stalled {
        use std::sync::atomic::{AtomicBool, Ordering};

        static READS: AtomicBool = AtomicBool::new(false);

        pub(super) fn has_room(limit: Option<std::time::Duration>) -> bool {
            while limit.is_none() && !READS.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            READS.load(Ordering::Acquire)
        }

        pub(super) fn goes_on() {
            READS.store(true, Ordering::Release);
        }
    }

    #[test]
    fn lines_wait_for_a_stalled_reader_and_those_without_room_are_counted() {
        let output = LogOutput::new(Disk::default(), stalled::has_room, LogFormat::Text);
        give_room(&output, usize::MAX);
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..300 {
            output.make_writer().write_all(line.as_bytes()).unwrap();
        }
        assert!(lines(&output).is_empty(), "it has stalled");
        stalled::goes_on();
        output.finish();
        output.make_writer().write_all(b"last\n").unwrap();
        let lines = lines(&output);
        assert_eq!((lines.len(), lines[255].len(), lines[257].as_str()), (258, 1023, "last"));
        assert!(
            lines[256].contains("44 lines of this log were lost") && lines[256].contains("reader"),
            "{}",
            lines[256]
        );
    }
}
