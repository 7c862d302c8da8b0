//! `taskbay add`: adds one job, or those in a file.

mod file;
mod line_problem;
mod line_reader;
mod lines;
mod progress;
mod strangers;

use std::{io::Read, path::PathBuf, time::SystemTime};

use clap::{Args, ValueEnum};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{
    CliError, Ending,
    database::{Connected, explain_refusal},
    options::DatabaseOptions,
    print,
    run_at::{RunAtOptions, clock},
    whole_number::{ATTEMPTS, PRIORITIES, whole_number},
};
use crate::{
    config::{Clock, Layer},
    queue::{Database, JobKeyMode, NewJob, Session},
};

pub(super) use file::FileError;

/// Add a job and print its id, or add a file of jobs
///
/// With --file, each line of the file is a job: a JSON object with `identifier`, the task's name, and if need be `payload`,
/// `queue_name`, `run_at` (a time such as 2030-01-31T12:00:00Z, or microseconds since 1970), `max_attempts`, `job_key`, `job_key_mode`, `priority` and `flags`.
/// With a TASK before it, each line is only the payload of a job of that task, to which the other options apply. Blank lines
/// are skipped. Memory does not grow with the file. Jobs are added in the order of their lines and some thousands in one
/// transaction; whatever ends that early, an error or Ctrl-C, the last message says up to which line they are added.
///
/// If no worker has registered the task in the database yet, a warning says so; the job is added all the same.
///
/// The database is the configured one. While `taskbay dev` runs in this folder or in one above it, none needs to be configured: the
/// job then goes to the database of `taskbay dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay add send_email '{\"to\": \"ada@example.com\", \"subject\": \"Hello\"}'
  taskbay add import_file @orders.json --queue imports
  generate-report | taskbay add publish -
  taskbay add clean_up --run-at 10m --key nightly --max-attempts 3
  taskbay add --file jobs.ndjson                     each line such as {\"identifier\": \"send_email\", \"payload\": {...}}
  taskbay add send_email --file mails.ndjson         each line a payload of send_email
  psql -Atc 'select json_build_object(...) from customers' | taskbay add send_email --file -")]
pub(super) struct Add {
    /// The task's name
    #[arg(required_unless_present = "file", value_parser = parse_task)]
    task: Option<String>,
    /// JSON for the task; @FILE reads it from a file, - from standard input
    #[arg(default_value = "{}", hide_default_value = true)]
    payload: String,
    /// Run it after the jobs that are in this queue, one at a time
    #[arg(long, alias = "queue-name", value_name = "NAME")]
    queue: Option<String>,
    #[command(flatten)]
    run_at: RunAtOptions,
    /// How often it may be tried [default: 25]
    #[arg(long, value_name = "N", value_parser = whole_number::<i16>(ATTEMPTS))]
    max_attempts: Option<i16>,
    /// At most one job waits under a key: what happens to the one that does is --key-mode's matter
    #[arg(long, alias = "job-key")]
    key: Option<String>,
    /// What happens to the job that waits under the key
    #[arg(long, alias = "job-key-mode", value_enum, default_value_t = KeyMode::Replace, requires = "key")]
    key_mode: KeyMode,
    /// Lower runs sooner; may be negative [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole_number::<i16>(PRIORITIES))]
    priority: Option<i16>,
    /// A flag by which workers can be kept from the job; may be given several times
    #[arg(long = "flag", value_name = "NAME", action = clap::ArgAction::Append)]
    flags: Vec<String>,
    /// Add each line of a file as a job; - reads standard input
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["payload", "key"])]
    file: Option<PathBuf>,
    /// Begin with this line of the file
    #[arg(long, value_name = "N", requires = "file", default_value_t = 1, hide_default_value = true,
          value_parser = whole_number::<u64>(1..=i64::MAX))]
    from_line: u64,
    /// Check all lines of the file, without a database, and add nothing
    #[arg(long, requires = "file")]
    dry_run: bool,
    #[command(flatten)]
    database: DatabaseOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeyMode {
    /// It becomes as the new one
    Replace,
    /// The same, but it keeps its time
    #[value(alias = "preserve_run_at")]
    PreserveRunAt,
    /// It stays as it is, even if it runs now or has failed for good
    #[value(alias = "unsafe_dedupe")]
    UnsafeDedupe,
}

/// A payload that cannot be stored.
#[derive(Debug, Error)]
pub enum WrongPayload {
    #[error("cannot read the payload from {place}: {error}")]
    Unreadable { place: String, error: std::io::Error },
    #[error("the payload {place} is not JSON: {error}.{hint}")]
    NotJson { place: String, error: serde_json::Error, hint: &'static str },
}

impl Add {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        self.database.add_to(layer);
    }

    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        if let Some(path) = &self.file {
            let mut lines = file::Lines::open(path, self.form()?, self.from_line)?;
            if self.dry_run {
                return lines.check().await;
            }
            let connected = Connected::find(&settings).await?;
            let database = Database::new(connected.settings.clone())?;
            lines.clock = clock(&settings);
            if self.run_at.time().is_some() {
                let session = database.session().await?;
                lines.form.payloads_run_at(self.due(&settings, &database, &session).await?);
            }
            return lines.add(database).await;
        }
        let payload = Some(read_payload(&self.payload)?);
        let connected = Connected::find(&settings).await?;
        let database = Database::new(connected.settings.clone())?;
        let session = database.session().await?;
        let job = NewJob { payload, run_at: self.due(&settings, &database, &session).await?, ..self.job() };
        strangers::warn(&session, &job.identifier).await;
        let added = match session.add_job(&job).await {
            Ok(added) => added,
            Err(error) => return Err(explain_refusal(&database, error).await),
        };
        let done = || format!("added job {} ({})", added.id, job.identifier);
        print(&format!("{}\n", added.id)).map_err(|error| CliError::after_change(done())(error))?;
        Ok(Ending::Success)
    }

    /// When the job is due, by the clock of the settings; `None`: at once, by the database's.
    async fn due(
        &self,
        settings: &Layer,
        database: &Database,
        session: &Session,
    ) -> Result<Option<SystemTime>, CliError> {
        match (self.run_at.time(), clock(settings)) {
            (Some(run_at), _) => run_at.by_clock_of(settings, database, session).await.map(Some),
            (None, Clock::Process) => Ok(Some(SystemTime::now())),
            (None, Clock::Database) => Ok(None),
        }
    }

    /// The job without its payload and its time.
    fn job(&self) -> NewJob {
        NewJob {
            queue_name: self.queue.clone(),
            max_attempts: self.max_attempts,
            job_key: self.key.clone(),
            job_key_mode: match self.key_mode {
                KeyMode::Replace => JobKeyMode::Replace,
                KeyMode::PreserveRunAt => JobKeyMode::PreserveRunAt,
                KeyMode::UnsafeDedupe => JobKeyMode::UnsafeDedupe,
            },
            priority: self.priority,
            flags: self.flags.clone(),
            ..NewJob::new(self.task.as_deref().unwrap_or_default())
        }
    }

    /// What a line of a file is.
    fn form(&self) -> Result<lines::Form, CliError> {
        let job = self.job();
        if self.task.is_some() {
            job.check().map_err(CliError::Usage)?;
            return Ok(lines::Form::Payloads(Box::new(job)));
        }
        if job == NewJob::new("") && self.run_at.time().is_none() {
            return Ok(lines::Form::Jobs);
        }
        Err(CliError::Usage(
            "the lines of the file say all of their jobs, so no option for jobs goes with --file unless a task is named, \
             whose payloads the lines are then: taskbay add TASK --file FILE"
                .to_owned(),
        ))
    }
}

fn parse_task(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a task has a name, because no plugin can have one without".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// The payload's text, as it was written.
fn read_payload(argument: &str) -> Result<String, WrongPayload> {
    let (place, text) = match argument.strip_prefix('@') {
        Some(file) => (format!("in {file}"), std::fs::read_to_string(file).map_err(|error| (file.to_owned(), error))),
        None if argument == "-" => {
            let mut text = String::new();
            let read = std::io::stdin().lock().read_to_string(&mut text);
            ("from standard input".to_owned(), read.map(|_| text).map_err(|error| ("standard input".to_owned(), error)))
        }
        None => (argument.to_owned(), Ok(argument.to_owned())),
    };
    let text = text.map_err(|(place, error)| WrongPayload::Unreadable { place, error })?;
    match serde_json::from_str::<Box<RawValue>>(&text) {
        Ok(value) => Ok(value.get().to_owned()),
        Err(error) => {
            let typed = place == argument;
            let hint =
                if typed { " Quote it for the shell, with double quotes inside: '{\"name\": \"value\"}'" } else { "" };
            Err(WrongPayload::NotJson { place, error, hint })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_kept_as_it_was_written() {
        assert_eq!(read_payload(r#"{"n": 9007199254740993.10}"#).unwrap(), r#"{"n": 9007199254740993.10}"#);
        assert_eq!(read_payload("null").unwrap(), "null");
    }

    #[test]
    fn what_is_not_json_is_refused_with_the_place_and_the_way_to_write_it() {
        let refused = read_payload("{to: ada}").unwrap_err().to_string();
        assert!(
            refused.contains("{to: ada}") && refused.contains("column 2") && refused.contains("Quote it"),
            "{refused}"
        );
        assert!(read_payload("@no-such-file.json").unwrap_err().to_string().contains("no-such-file.json"));
        assert!(read_payload("").is_err());
    }
}
