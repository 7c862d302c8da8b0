//! Which jobs a command is about: by their ids, or by what they have in common.

use std::{
    io::{IsTerminal, stderr, stdin},
    time::SystemTime,
};

use clap::Args;

use super::super::{CliError, moment, note, output::ask};
use crate::{
    admin::{Admin, Selection},
    queue::{JobFilter, JobState},
};

/// What jobs have in common. Several values of one option: any of them. Several options: all of them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which jobs")]
pub(super) struct FilterOptions {
    /// Jobs of this task; may be given several times, as the other options here
    #[arg(long = "task", value_name = "NAME")]
    tasks: Vec<String>,
    /// Jobs in this queue
    #[arg(long = "queue", value_name = "NAME")]
    queues: Vec<String>,
    /// The job under this key
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// Jobs in this state: ready, scheduled, running, retrying or failed
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',')]
    states: Vec<JobState>,
    /// Jobs that failed for good: the same as --state failed
    #[arg(long, visible_alias = "all-failed")]
    failed: bool,
    /// Jobs that this worker holds
    #[arg(long = "locked-by", value_name = "WORKER")]
    workers: Vec<String>,
    /// Jobs that have this flag
    #[arg(long = "flag", value_name = "NAME")]
    flags: Vec<String>,
    /// Jobs that were added at this time or later: 2030-01-31T12:00:00Z, 2030-01-31, yesterday, or 2d for two days ago
    #[arg(long, visible_aliases = ["after", "newer-than"], value_name = "TIME", allow_hyphen_values = true, value_parser = moment::parse_past)]
    added_since: Option<SystemTime>,
    /// Jobs that were added before
    #[arg(long, visible_aliases = ["before", "older-than"], value_name = "TIME", allow_hyphen_values = true, value_parser = moment::parse_past)]
    added_before: Option<SystemTime>,
    /// Jobs whose last attempt failed at this time or later, whether they are tried again or not; see --failed
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = moment::parse_past)]
    failed_since: Option<SystemTime>,
    /// Jobs whose last attempt failed before
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = moment::parse_past)]
    failed_before: Option<SystemTime>,
}

/// The jobs that a command changes.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The jobs' ids
    #[arg(value_name = "ID", value_parser = parse_id)]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: FilterOptions,
    /// Do not ask before many jobs are changed
    #[arg(short, long)]
    yes: bool,
}

/// Says of tasks that the database does not know, so that no job can be found, which were probably meant.
pub(super) async fn tell_unknown_tasks(admin: &Admin, filter: &JobFilter) {
    // What goes wrong here is of no importance.
    for task in admin.unknown_tasks(filter).await.unwrap_or_default() {
        let hint = task.nearest.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        note(format_args!("this database knows no task {:?}{hint}", task.name));
    }
}

/// Reads the id of a job.
pub(super) fn parse_id(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| {
        "a job's id is a whole number, as `taskbay jobs list` shows it; a job under a key is found with --key"
            .to_owned()
    })
}

impl FilterOptions {
    pub(super) fn to_filter(&self) -> JobFilter {
        let mut states = self.states.clone();
        if self.failed {
            states.push(JobState::Failed);
        }
        JobFilter {
            ids: Vec::new(),
            tasks: self.tasks.clone(),
            queues: self.queues.clone(),
            keys: self.keys.clone(),
            states,
            workers: self.workers.clone(),
            flags: self.flags.clone(),
            created_before: self.added_before,
            created_after: self.added_since,
            failed_before: self.failed_before,
            failed_after: self.failed_since,
        }
    }
}

impl Target {
    /// The jobs that are meant.
    pub(super) fn selection(&self) -> Result<Selection, CliError> {
        let filter = self.filter.to_filter();
        match (self.ids.is_empty(), filter.is_empty()) {
            (true, true) => Err(CliError::Usage(
                "say which jobs: by their ids, as `taskbay jobs list` shows them, or by options such as --failed, --task or --key"
                    .to_owned(),
            )),
            (false, false) => Err(CliError::Usage(
                "give either the ids of jobs, or options such as --task that say which jobs are meant".to_owned(),
            )),
            (false, true) => Ok(Selection::Ids(self.ids.clone())),
            (true, false) => Ok(Selection::Matching(filter)),
        }
    }

    /// The one key that is given, if nothing else is.
    pub(super) fn only_key(&self) -> Option<&str> {
        let filter = self.filter.to_filter();
        let alone = self.ids.is_empty() && filter == JobFilter { keys: filter.keys.clone(), ..JobFilter::default() };
        self.filter.keys.first().filter(|_| alone && self.filter.keys.len() == 1).map(String::as_str)
    }

    /// Whether the jobs that are found have to be confirmed.
    pub(super) fn asks(&self) -> bool {
        !self.yes
    }

    /// Asks whether to go on with as many jobs as were found.
    pub(super) fn confirm(&self, what: &str, jobs: i64) -> Result<bool, CliError> {
        if jobs == 0 {
            return Ok(true);
        }
        let plural = if jobs == 1 { "" } else { "s" };
        if !(stdin().is_terminal() && stderr().is_terminal()) {
            let them = if jobs == 1 { "it" } else { "them" };
            return Err(CliError::Usage(format!("{jobs} job{plural} would be changed: add --yes to {what} {them}")));
        }
        ask(&format!("{} {jobs} job{plural}? [y/N]", capital(what)));
        let mut answer = String::new();
        stdin().read_line(&mut answer).map_err(CliError::system("read the answer"))?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

/// With a capital letter.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}
