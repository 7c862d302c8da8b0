//! `taskbay add`: adds one job.

use std::{io::Read, time::SystemTime};

use clap::{Args, ValueEnum};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{
    CliError, Ending,
    database::{Connected, explain},
    moment,
    options::DatabaseOptions,
    print,
};
use crate::{
    config::Layer,
    queue::{Database, JobKeyMode, NewJob},
};

/// Add a job, and print its id
///
/// Without a configured database, the job goes to the embedded Postgres that `taskbay dev` runs in this folder or in one
/// above it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay add send_email '{\"to\": \"ada@example.com\", \"subject\": \"Hello\"}'
  taskbay add import_file @orders.json --queue imports
  generate-report | taskbay add publish -
  taskbay add clean_up --run-at 10m --key nightly --max-attempts 3")]
pub(super) struct Add {
    /// The task's name
    task: String,
    /// JSON for the task; @FILE reads it from a file, - from standard input
    #[arg(default_value = "{}", hide_default_value = true)]
    payload: String,
    /// Run it after the jobs that are in this queue, one at a time
    #[arg(long, alias = "queue-name", value_name = "NAME")]
    queue: Option<String>,
    /// Not before this time, such as 2030-01-31T12:00:00Z, or after this long, such as 10m
    #[arg(long, visible_alias = "in", value_name = "TIME", value_parser = moment::parse_future)]
    run_at: Option<SystemTime>,
    /// How often it may be tried [default: 25]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    max_attempts: Option<i16>,
    /// At most one job waits under a key: what happens to the one that does is --key-mode's matter
    #[arg(long, alias = "job-key")]
    key: Option<String>,
    /// What happens to the job that waits under the key
    #[arg(long, alias = "job-key-mode", value_enum, default_value_t = KeyMode::Replace, requires = "key")]
    key_mode: KeyMode,
    /// Lower runs sooner; may be negative [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i16>,
    /// A flag by which workers can be kept from the job; may be given several times
    #[arg(long = "flag", value_name = "NAME", action = clap::ArgAction::Append)]
    flags: Vec<String>,
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
        let job = NewJob {
            payload: Some(read_payload(&self.payload)?),
            queue_name: self.queue,
            run_at: self.run_at,
            max_attempts: self.max_attempts,
            job_key: self.key,
            job_key_mode: match self.key_mode {
                KeyMode::Replace => JobKeyMode::Replace,
                KeyMode::PreserveRunAt => JobKeyMode::PreserveRunAt,
                KeyMode::UnsafeDedupe => JobKeyMode::UnsafeDedupe,
            },
            priority: self.priority,
            flags: self.flags,
            ..NewJob::new(self.task)
        };
        let connected = Connected::find(&settings).await?;
        let database = Database::new(connected.settings.clone())?;
        let added = database.session().await?.add_job(&job).await.map_err(explain(&database))?;
        print(&format!("{}\n", added.id))?;
        Ok(Ending::Success)
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
