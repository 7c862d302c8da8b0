//! Reads a file of lines into batches of jobs, ahead of those who store them. Knows no database.
//!
//! Whatever the size of the file, a batch and a line are in memory, and one more batch on its way.

use std::{
    collections::HashSet,
    fs::File,
    io,
    time::{Duration, SystemTime},
};

use serde::de::IgnoredAny;
use tokio::sync::mpsc;

use super::{
    line_problem,
    line_reader::{LineReader, Next},
};
use crate::{config::Clock, queue::NewJob};

/// A batch is one transaction: long enough that its commit does not matter, short enough that the first jobs run soon.
const JOBS_OF_A_BATCH: usize = 10_000;
const BYTES_OF_A_BATCH: usize = 4 << 20;
/// Where lines trickle in, jobs do not wait longer for others to come.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a line is.
#[derive(Debug)]
pub(super) enum Form {
    /// A job, with the names that `NewJob::from_spec` reads.
    Jobs,
    /// The payload of a job that is otherwise as this one.
    Payloads(Box<NewJob>),
}

/// Some lines that follow each other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) jobs: Vec<NewJob>,
    /// The lines of the jobs, from 1.
    pub(super) lines: Vec<u64>,
    /// The last line that was read.
    pub(super) last: u64,
    /// How many bytes of the file are read.
    pub(super) position: u64,
}

/// What follows in the file.
#[derive(Debug)]
pub(super) enum Piece {
    Jobs(Batch),
    /// A line that is no job, and why not.
    Bad {
        line: u64,
        problem: String,
    },
    /// Nothing can be read after this line.
    Unreadable {
        after: u64,
        error: io::Error,
    },
}

/// How a file is read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) form: Form,
    /// The first line that counts.
    pub(super) from: u64,
    /// Whether lines follow after a bad one.
    pub(super) tolerant: bool,
    /// Whose clock says when a job is due that has no time.
    pub(super) clock: Clock,
}

impl Reading {
    /// Reads the file to its end, or until nobody wants more of it. Blocks.
    pub(super) fn run(&self, file: File, pieces: &mpsc::Sender<Piece>) {
        // An error here says that nobody reads on.
        let _ = self.read(LineReader::new(file), pieces);
    }

    fn read(&self, mut reader: LineReader, pieces: &mpsc::Sender<Piece>) -> Result<(), mpsc::error::SendError<Piece>> {
        let mut batch = Batch::default();
        let mut keys = HashSet::new();
        let mut bytes = 0;
        let mut line = 0;
        loop {
            let full = batch.jobs.len() >= JOBS_OF_A_BATCH || bytes >= BYTES_OF_A_BATCH;
            let patience = (!batch.jobs.is_empty()).then_some(PATIENCE);
            let next = if full { Ok(Next::Nothing) } else { reader.next(patience) };
            let problem = match next {
                Ok(Next::Line(text)) => {
                    line += 1;
                    if line < self.from {
                        continue;
                    }
                    match self.form.read(text) {
                        Ok(None) => None,
                        Ok(Some(mut job)) => {
                            if self.clock == Clock::Process {
                                job.run_at.get_or_insert_with(SystemTime::now);
                            }
                            // One call of the database knows a key once; later lines change what earlier ones added.
                            if let Some(key) = &job.job_key
                                && !keys.insert(key.clone())
                            {
                                keys = HashSet::from([key.clone()]);
                                bytes = 0;
                                pieces.blocking_send(Piece::Jobs(std::mem::take(&mut batch)))?;
                            }
                            bytes += text.len();
                            batch.jobs.push(job);
                            batch.lines.push(line);
                            None
                        }
                        Err(problem) => Some(problem),
                    }
                }
                Ok(Next::TooLong) => {
                    line += 1;
                    let longest = LineReader::LONGEST >> 20;
                    Some(format!("it is longer than {longest} MB, which is more than a job should hold"))
                }
                Ok(Next::Nothing) => {
                    keys.clear();
                    bytes = 0;
                    pieces.blocking_send(Piece::Jobs(std::mem::take(&mut batch)))?;
                    continue;
                }
                Ok(Next::End) => {
                    batch.last = line;
                    return pieces.blocking_send(Piece::Jobs(batch));
                }
                Err(error) => {
                    pieces.blocking_send(Piece::Jobs(batch))?;
                    return pieces.blocking_send(Piece::Unreadable { after: line, error });
                }
            };
            if let Some(problem) = problem.filter(|_| line >= self.from) {
                keys.clear();
                bytes = 0;
                pieces.blocking_send(Piece::Jobs(std::mem::take(&mut batch)))?;
                pieces.blocking_send(Piece::Bad { line, problem })?;
                if !self.tolerant {
                    return Ok(());
                }
            }
            batch.last = line;
            batch.position = reader.position();
        }
    }
}

impl Form {
    /// Sets the time of the jobs whose payloads the lines are.
    pub(super) fn payloads_run_at(&mut self, time: Option<SystemTime>) {
        if let Self::Payloads(job) = self {
            job.run_at = time;
        }
    }

    /// The job of a line, if it is not blank; or what is wrong with it.
    fn read(&self, line: &[u8]) -> Result<Option<NewJob>, String> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let text = std::str::from_utf8(line)
            .map_err(|error| format!("it is not UTF-8 text, from byte {} on", error.valid_up_to() + 1))?
            .trim_ascii();
        let job = match self {
            Self::Jobs => NewJob::from_spec(text).map_err(|error| line_problem::of_job(text, &error.reason()))?,
            Self::Payloads(job) => {
                serde_json::from_str::<IgnoredAny>(text).map_err(|error| line_problem::not_json(&error))?;
                NewJob { payload: Some(text.to_owned()), ..(**job).clone() }
            }
        };
        if job.identifier.is_empty() {
            return Err("its `identifier` is empty, and no plugin can have a task without a name".to_owned());
        }
        job.check()?;
        Ok(Some(job))
    }
}
