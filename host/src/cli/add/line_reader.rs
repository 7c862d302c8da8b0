//! Lines of a file or a pipe, of which none is copied, and none is waited for longer than wanted.

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

const USUAL: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct LineReader {
    file: File,
    buffer: Vec<u8>,
    /// What is read and was not given yet.
    unread: Range<usize>,
    /// From where on no end of a line was looked for.
    unseen: usize,
    position: u64,
    begun: bool,
    /// Within a line that is too long.
    skipping: bool,
}

#[derive(Debug)]
pub(super) enum Next<'a> {
    /// A line without its end.
    Line(&'a [u8]),
    /// A line that was left out.
    TooLong,
    /// No more has come within the time.
    Nothing,
    End,
}

impl LineReader {
    /// In bytes. Postgres itself takes values below 1 GB, of which it makes several copies.
    pub(super) const LONGEST: usize = 256 << 20;

    pub(super) fn new(file: File) -> Self {
        Self { file, buffer: vec![0; USUAL], unread: 0..0, unseen: 0, position: 0, begun: false, skipping: false }
    }

    /// How many bytes were given so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next line. Waits for it without limit, unless there is one.
    pub(super) fn next(&mut self, patience: Option<Duration>) -> io::Result<Next<'_>> {
        loop {
            let found = self.buffer[self.unseen..self.unread.end].iter().position(|byte| *byte == b'\n');
            if let Some(found) = found {
                let line = self.unread.start..self.unseen + found;
                return Ok(self.give(line, 1));
            }
            self.unseen = self.unread.end;
            if self.unread.len() > Self::LONGEST {
                self.position += self.unread.len() as u64;
                self.unread = 0..0;
                self.unseen = 0;
                self.skipping = true;
            }
            if let Some(patience) = patience
                && !self.comes_within(patience)?
            {
                return Ok(Next::Nothing);
            }
            if self.fill()? == 0 {
                if self.unread.is_empty() && !self.skipping {
                    return Ok(Next::End);
                }
                return Ok(self.give(self.unread.clone(), 0));
            }
        }
    }

    fn give(&mut self, line: Range<usize>, end: usize) -> Next<'_> {
        let next = line.end + end;
        self.position += (next - line.start) as u64;
        self.unread.start = next;
        self.unseen = next;
        if std::mem::take(&mut self.skipping) || line.len() > Self::LONGEST {
            return Next::TooLong;
        }
        let text = &self.buffer[line];
        // Some editors begin a file with a mark of its encoding.
        let mark = if std::mem::replace(&mut self.begun, true) { &b""[..] } else { "\u{feff}".as_bytes() };
        Next::Line(text.strip_prefix(mark).unwrap_or(text))
    }

    /// Whether there is something to read, or the end.
    fn comes_within(&self, patience: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(patience).ok();
        let mut file = [PollFd::new(&self.file, PollFlags::IN)];
        match poll(&mut file, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => Ok(false),
            ready => Ok(ready? > 0),
        }
    }

    /// Reads some more, after making room for it.
    fn fill(&mut self) -> io::Result<usize> {
        if self.unread.start > 0 {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unseen -= self.unread.start;
            self.unread = 0..self.unread.len();
        }
        if self.unread.end == self.buffer.len() {
            self.buffer.resize(2 * self.buffer.len(), 0);
        } else if self.buffer.len() > USUAL && self.unread.end < USUAL / 2 {
            // A long line has passed.
            self.buffer.truncate(USUAL);
            self.buffer.shrink_to_fit();
        }
        loop {
            match self.file.read(&mut self.buffer[self.unread.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    let read = read?;
                    self.unread.end += read;
                    return Ok(read);
                }
            }
        }
    }
}
