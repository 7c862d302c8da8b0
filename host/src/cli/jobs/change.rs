//! `taskbay jobs complete`, `fail`, `retry`, `reschedule` and `remove`.

use clap::Args;

use super::{
    super::{
        CliError, Ending,
        database::{Connected, explain},
        note,
        options::DatabaseOptions,
        print, print_json,
        run_at::RunAtOptions,
        whole_number::{ATTEMPTS, PRIORITIES, whole_number},
    },
    apply::apply,
    filter::Target,
    json::JsonJob,
    report::{holder, name},
};
use crate::{
    admin::Action,
    config::Layer,
    queue::{JobState, Reschedule, RowAccess},
};

/// Delete jobs as if they had been done
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs complete 42 43
  taskbay jobs complete --task send_newsletter --failed --yes")]
pub(super) struct Complete {
    #[command(flatten)]
    target: Target,
    /// Print JSON: the jobs that were changed, and those that were not
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

/// Make jobs fail for good; they stay, and are not tried again
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs fail 42 --reason 'the customer has left'
  taskbay jobs fail --task send_newsletter --older-than 7d --yes")]
pub(super) struct Fail {
    #[command(flatten)]
    target: Target,
    /// What the jobs' last_error says [default: \"Manually marked as failed\"]
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON: the jobs that were changed, and those that were not
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

/// Run jobs again that failed, now and with all of their attempts
///
/// Jobs that failed for good and jobs that wait for their next attempt become due at once, and count as never tried: they have as
/// many attempts as when they were added, or as their task allows. Their last error stays until they end again. Options such as
/// --task mean the failed and the waiting ones alone; --failed, those that failed for good. Nobody is notified: an idle worker
/// takes such a job at its next poll.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs retry 42 43
  taskbay jobs retry --failed --task send_email --yes
  taskbay jobs retry --failed --failed-since yesterday --yes")]
pub(super) struct Retry {
    #[command(flatten)]
    target: Target,
    /// Print JSON: the jobs that were changed, and those that were not
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

/// Change when, how soon and how often jobs are tried
///
/// A job that failed for good has no attempts left, and is left alone unless --attempts or --max-attempts gives it some:
/// `taskbay jobs retry` runs it again. Nobody is notified: an idle worker takes a job that has become due at its next poll.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs reschedule 42 --run-at 2030-01-31T12:00:00Z
  taskbay jobs reschedule 42 43 --in 10m --priority -5
  taskbay jobs reschedule --task send_email --state scheduled --run-at 2030-01-31 --yes")]
pub(super) struct RescheduleJobs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    run_at: RunAtOptions,
    /// Lower runs sooner; may be negative
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole_number::<i16>(PRIORITIES))]
    priority: Option<i16>,
    /// How often they count as tried; 0 is as if they had just been added
    #[arg(long, value_name = "N", value_parser = whole_number::<i16>(0..=i16::MAX.into()))]
    attempts: Option<i16>,
    /// How often they may be tried
    #[arg(long, value_name = "N", value_parser = whole_number::<i16>(ATTEMPTS))]
    max_attempts: Option<i16>,
    /// Print JSON: the jobs that were changed, and those that were not
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

/// Delete jobs that wait or failed, or the job under a key
///
/// With --key alone, a job that a worker holds goes on, but loses its key and is not tried again. Otherwise jobs that a worker
/// holds are left alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs remove 42 43
  taskbay jobs remove --key nightly
  taskbay jobs remove --failed --failed-before 30d --yes")]
pub(super) struct Remove {
    #[command(flatten)]
    target: Target,
    /// Print JSON: the jobs that were removed, and those that were not; with --key alone, the job or null
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

impl Complete {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        apply(&self.target, Action::Complete, None, self.json, &settings).await
    }
}

impl Fail {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        apply(&self.target, Action::Fail(self.reason), None, self.json, &settings).await
    }
}

impl Retry {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        apply(&self.target, Action::Retry, None, self.json, &settings).await
    }
}

impl RescheduleJobs {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let Self { run_at, priority, attempts, max_attempts, .. } = &self;
        let (run_at, priority, attempts, max_attempts) = (run_at.time(), *priority, *attempts, *max_attempts);
        let change = Reschedule { run_at: None, priority, attempts, max_attempts };
        if change == Reschedule::default() && run_at.is_none() {
            return Err(CliError::Usage(
                "say what to change: --run-at (or --in), --priority, --attempts or --max-attempts".to_owned(),
            ));
        }
        apply(&self.target, Action::Reschedule(change), run_at, self.json, &settings).await
    }
}

impl Remove {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        match self.target.only_key() {
            Some(key) => remove_key(key, self.json, &settings).await,
            None => apply(&self.target, Action::Remove, None, self.json, &settings).await,
        }
    }
}

async fn remove_key(key: &str, as_json: bool, settings: &Layer) -> Result<Ending, CliError> {
    let connected = Connected::find(settings).await?;
    let (database, admin) = connected.open(RowAccess::Change).await?;
    let removed = admin.remove_under_key(key).await.map_err(explain(&database))?;
    let done = removed.as_ref().map(|job| match job.state {
        JobState::Running => {
            format!(
                "{} {}; it goes on, without its key, and is not tried again",
                name(job),
                holder(job.locked_by.as_deref(), job.locked_at)
            )
        }
        _ => format!("removed {}", name(job)),
    });
    let printed = match &done {
        _ if as_json => print_json(&removed.as_ref().map(JsonJob::of)),
        Some(done) => print(&format!("{done}\n")),
        None => {
            note(format_args!("there is no job under the key {key:?}"));
            Ok(())
        }
    };
    printed.map_err(CliError::after_change(done.unwrap_or_default()))?;
    Ok(if removed.is_some() { Ending::Success } else { Ending::Refusals })
}
