//! `taskbay add --file`: adds the jobs that the lines of a file are, batch by batch, each in one transaction, so that it is
//! always known up to which line they are added.

use std::{
    fmt,
    fs::File,
    io,
    ops::Range,
    os::fd::AsFd,
    path::Path,
    time::{Duration, Instant},
};

use indicatif::HumanCount;
use thiserror::Error;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::{
    super::{CliError, Ending, database::explain_refusal, note, print},
    lines::{self, Form, Piece, Reading},
    progress::Progress,
    strangers::Strangers,
};
use crate::{
    config::Clock,
    queue::{self, Database, NewJob, QueueError},
};

/// How long the database is waited for before a batch is given up.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How many bad lines are shown when all are checked.
const SHOWN: u64 = 20;

/// Why not all lines were added.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("cannot open {name}: {error}")]
    Unopened { name: String, error: io::Error },
    #[error("cannot read {name} after line {after}: {error}. {added}")]
    Unreadable { name: String, after: u64, error: io::Error, added: Added },
    #[error("line {line} of {name} is not a job: {problem}. {added}")]
    BadLine { name: String, line: u64, problem: String, added: Added },
    #[error(
        "{name} has {}, and was to be read from line {from} on. Nothing is added",
        if *lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") }
    )]
    TooShort { name: String, lines: u64, from: u64 },
    #[error("line {line} of {name} was refused: {reason}. {added}")]
    Refused { name: String, line: u64, reason: String, added: Added },
    #[error("{error}{}{added}", if error.has_statements() { "\n" } else { ". " })]
    Database { error: Box<CliError>, added: Added },
}

/// Which lines are added, and how to go on: the end of each message.
#[derive(Debug, Clone)]
pub struct Added {
    from: u64,
    /// The last line of which it is known.
    through: u64,
    /// The last line of which it is not known.
    in_doubt: Option<u64>,
}

impl fmt::Display for Added {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = self.through.max(self.from - 1) + 1;
        match (self.through >= self.from).then_some((self.from, self.through)) {
            None if next == 1 && self.in_doubt.is_none() => return f.write_str("Nothing is added"),
            None => f.write_str("Nothing is added")?,
            Some((from, through)) if from == through => write!(f, "Line {from} is added")?,
            Some((from, through)) => write!(f, "Lines {from} to {through} are added")?,
        }
        match self.in_doubt {
            Some(last) => {
                write!(f, "; of lines {next} to {last} it is not known, see whether their jobs are there. Go on")?;
                write!(f, " with --from-line {next} if they are not, or {} if they are", last + 1)
            }
            None => write!(f, "; go on with --from-line {next}"),
        }
    }
}

/// A file and how it is read.
#[derive(Debug)]
pub(super) struct Lines {
    name: String,
    file: File,
    size: Option<u64>,
    pub(super) form: Form,
    from: u64,
    /// Whose clock says when a job is due that has no time.
    pub(super) clock: Clock,
}

impl Lines {
    /// Opens it; `-` is standard input.
    pub(super) fn open(path: &Path, form: Form, from: u64) -> Result<Self, FileError> {
        let standard_input = path == Path::new("-");
        let name = if standard_input { "standard input".to_owned() } else { path.display().to_string() };
        let open =
            || if standard_input { Ok(io::stdin().as_fd().try_clone_to_owned()?.into()) } else { File::open(path) };
        match open().and_then(|file| Ok((file.metadata()?, file))) {
            Ok((metadata, file)) => {
                let size = metadata.is_file().then_some(metadata.len());
                Ok(Self { name, file, size, form, from, clock: Clock::default() })
            }
            Err(error) => Err(FileError::Unopened { name, error }),
        }
    }

    /// Adds their jobs.
    pub(super) async fn add(self, database: Database) -> Result<Ending, CliError> {
        let mut stops = Stops::listen()?;
        let mut progress = Progress::new(self.size);
        let (name, from) = (self.name.clone(), self.from);
        let mut adding = Adding {
            database,
            added: Added { from, through: 0, in_doubt: None },
            reached: false,
            strangers: Strangers::default(),
        };
        let mut pieces = self.start(false);
        let ended = adding.all(&name, &mut pieces, &mut progress, &mut stops).await;
        let added = adding.added;
        let summary = progress.finish();
        match ended? {
            // The line after the last one is where those go on who have added them all.
            None if added.through + 1 < from => Err(FileError::TooShort { name, lines: added.through, from }.into()),
            None if added.through < from && from > 1 => {
                print(&format!("added nothing: {name} ends with line {}\n", added.through))?;
                Ok(Ending::Success)
            }
            None => {
                let done = format!("added {summary}");
                print(&format!("{done}\n")).map_err(CliError::after_change(done))?;
                Ok(Ending::Success)
            }
            Some(signal) => {
                note(format_args!("taskbay: stopped. {added}"));
                Ok(Ending::Signal(signal))
            }
        }
    }

    /// Looks at all of them, and adds none.
    pub(super) async fn check(self) -> Result<Ending, CliError> {
        let mut progress = Progress::new(self.size);
        let (name, from) = (self.name.clone(), self.from);
        let mut pieces = self.start(true);
        let (mut bad, mut jobs, mut through) = (0_u64, 0_usize, 0_u64);
        while let Some(piece) = pieces.recv().await {
            match piece {
                Piece::Jobs(batch) => {
                    progress.more(batch.jobs.len());
                    progress.at(batch.position);
                    jobs += batch.jobs.len();
                    through = through.max(batch.last);
                }
                Piece::Bad { line, problem } => {
                    bad += 1;
                    through = line;
                    if bad <= SHOWN {
                        let bad = format!("taskbay: line {line} of {name} is not a job: {problem}");
                        progress.aside(|| note(&bad));
                    }
                }
                Piece::Unreadable { after, error } => {
                    let added = Added { from, through: 0, in_doubt: None };
                    return Err(FileError::Unreadable { name, after, error, added }.into());
                }
            }
        }
        progress.finish();
        if through + 1 < from {
            return Err(FileError::TooShort { name, lines: through, from }.into());
        }
        let good = format!("{} line{}", HumanCount(jobs as u64), if jobs == 1 { " is a job" } else { "s are jobs" });
        if bad == 0 {
            print(&format!("checked {name}: {good}, and no line is wrong; nothing was added\n"))?;
            return Ok(Ending::Success);
        }
        if bad > SHOWN {
            note(format_args!("taskbay: ... and {} lines more", bad - SHOWN));
        }
        let plural = if bad == 1 { "line is not a job" } else { "lines are not jobs" };
        print(&format!("checked {name}: {bad} {plural}, and {good}; nothing was added\n"))?;
        Ok(Ending::Refusals)
    }

    /// Reads in a thread of its own, which may hang in a read for ever: it ends with the program.
    fn start(self, tolerant: bool) -> mpsc::Receiver<Piece> {
        let (send, pieces) = mpsc::channel(1);
        std::thread::spawn(move || {
            Reading { form: self.form, from: self.from, tolerant, clock: self.clock }.run(self.file, &send);
        });
        pieces
    }
}

/// What is added so far, and where.
struct Adding {
    database: Database,
    added: Added,
    /// Whether the database has stored something.
    reached: bool,
    strangers: Strangers,
}

/// Why a part of a batch was not added.
enum Failure {
    Error(QueueError),
    Signal(i32),
}

impl Adding {
    /// Adds one piece after the other, or returns the signal that ended it.
    async fn all(
        &mut self,
        name: &str,
        pieces: &mut mpsc::Receiver<Piece>,
        progress: &mut Progress,
        stops: &mut Stops,
    ) -> Result<Option<i32>, CliError> {
        loop {
            let piece = tokio::select! {
                biased;
                signal = stops.next() => return Ok(Some(signal)),
                piece = pieces.recv() => piece,
            };
            let name = name.to_owned();
            match piece {
                None => return Ok(None),
                Some(Piece::Jobs(batch)) => {
                    let stopped = self.batch(&name, &batch, progress, stops).await?;
                    progress.at(batch.position);
                    if stopped.is_some() {
                        return Ok(stopped);
                    }
                    self.added.through = self.added.through.max(batch.last);
                }
                Some(Piece::Bad { line, problem }) => {
                    return Err(FileError::BadLine { name, line, problem, added: self.added.clone() }.into());
                }
                Some(Piece::Unreadable { after, error }) => {
                    return Err(FileError::Unreadable { name, after, error, added: self.added.clone() }.into());
                }
            }
        }
    }

    /// Adds a batch. If the database refuses it, its halves one after the other, down to the line that is at fault.
    async fn batch(
        &mut self,
        name: &str,
        batch: &lines::Batch,
        progress: &mut Progress,
        stops: &mut Stops,
    ) -> Result<Option<i32>, CliError> {
        self.strangers.warn(&self.database, &batch.jobs, |warning| progress.aside(|| note(warning))).await;
        let mut parts: Vec<Range<usize>> = std::iter::once(0..batch.jobs.len()).collect();
        while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
            match self.part(&batch.jobs[part.clone()], batch.lines[part.end - 1], progress, stops).await {
                Ok(stopped) => {
                    progress.more(part.len());
                    self.added.through = batch.lines[part.end - 1];
                    if stopped.is_some() {
                        return Ok(stopped);
                    }
                }
                Err(Failure::Signal(signal)) => return Ok(Some(signal)),
                // Those that may be stored already are not for another try in parts.
                Err(Failure::Error(error)) if self.added.in_doubt.is_some() || !is_about_jobs(&error) => {
                    let error = Box::new(explain_refusal(&self.database, error).await);
                    return Err(FileError::Database { error, added: self.added.clone() }.into());
                }
                Err(Failure::Error(_)) if part.len() > 1 => {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                }
                Err(Failure::Error(error)) => {
                    let (line, reason) = (batch.lines[part.start], error.reason());
                    return Err(
                        FileError::Refused { name: name.to_owned(), line, reason, added: self.added.clone() }.into()
                    );
                }
            }
        }
        Ok(None)
    }

    /// Adds these jobs, the last of which is in this line, in one transaction. A first signal waits for its end, unless the
    /// database is away; it is returned then.
    async fn part(
        &mut self,
        jobs: &[NewJob],
        last: u64,
        progress: &Progress,
        stops: &mut Stops,
    ) -> Result<Option<i32>, Failure> {
        let mut batch = queue::Batch::new(jobs);
        let mut stopped = None;
        let mut wait = FIRST_WAIT;
        let began = Instant::now();
        loop {
            let tried = {
                let mut adding = std::pin::pin!(batch.add(&self.database));
                loop {
                    tokio::select! {
                        tried = &mut adding => break Some(tried),
                        signal = stops.next() => match stopped {
                            None => {
                                stopped = Some(signal);
                                progress.aside(|| note("taskbay: stopping after the jobs under way"));
                            }
                            Some(_) => break None,
                        },
                    }
                }
            };
            let Some(tried) = tried else {
                // It is broken off somewhere between its first statement and its commit.
                self.added.in_doubt = Some(last);
                return Err(Failure::Signal(stopped.unwrap_or_default()));
            };
            let Err(error) = tried else {
                self.reached = true;
                self.added.in_doubt = None;
                return Ok(stopped);
            };
            // A name or an address that is wrong from the start does not become right.
            let never_there = !self.reached && matches!(error, QueueError::Connect { .. });
            self.added.in_doubt = batch.is_in_doubt().then_some(last);
            if never_there || !error.is_temporary() || began.elapsed() > PATIENCE {
                return Err(Failure::Error(error));
            }
            if let Some(signal) = stopped {
                return Err(Failure::Signal(signal));
            }
            progress.aside(|| {
                tracing::warn!(
                    event = "adding_again",
                    through = self.added.through,
                    "{error}; trying again in {wait:?}"
                );
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                signal = stops.next() => return Err(Failure::Signal(signal)),
            }
            wait = (2 * wait).min(LONGEST_WAIT);
        }
    }
}

/// Whether other jobs might not be refused: not if the tables are missing, or this role may not use them.
fn is_about_jobs(error: &QueueError) -> bool {
    let class = error.code().and_then(|code| code.code().get(..2));
    !error.is_temporary()
        && !matches!(error, QueueError::Connect { .. })
        && !matches!(class, Some("28" | "3D" | "3F" | "42"))
}

/// What asks the program to stop.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::system("listen for signals"));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Can be dropped and called again without missing one.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    }
}
