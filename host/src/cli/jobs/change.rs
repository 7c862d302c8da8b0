//! `taskbay jobs complete`, `fail`, `reschedule` and `remove`.

use std::{collections::HashSet, time::SystemTime};

use clap::Args;
use serde_json::json;

use super::{
    super::{
        CliError, Ending,
        database::{Connected, explain},
        moment::{self, age},
        note,
        options::DatabaseOptions,
        print, print_json,
    },
    filter::Target,
    json::JsonJob,
};
use crate::{
    config::Layer,
    queue::{Database, JobFilter, JobOrder, JobState, QueueError, Reschedule, Session, StoredJob},
};

/// How many jobs one statement changes.
const BATCH: usize = 1_000;
/// How many jobs are named one by one, unless they were so by the user.
const NAMED: usize = 20;

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

/// Change when, how soon and how often jobs are tried
///
/// Nobody is notified: a worker that is idle takes a job that has become due at its next poll.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs reschedule 42 --run-at 2030-01-31T12:00:00Z
  taskbay jobs reschedule 42 43 --in 10m --priority -5
  taskbay jobs reschedule --failed --task send_email --attempts 0 --run-at now      try again what failed for good")]
pub(super) struct RescheduleJobs {
    #[command(flatten)]
    target: Target,
    /// Not before this time, such as 2030-01-31T12:00:00Z, or after this long, such as 10m, or now
    #[arg(long, visible_alias = "in", value_name = "TIME", value_parser = moment::parse_future)]
    run_at: Option<SystemTime>,
    /// Lower runs sooner; may be negative
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i16>,
    /// How often they count as tried; 0 is as if they had just been added
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(0..))]
    attempts: Option<i16>,
    /// How often they may be tried
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    max_attempts: Option<i16>,
    /// Print JSON: the jobs that were changed, and those that were not
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

/// Remove the job under a key
///
/// If a worker holds the job, it goes on, but loses its key and is not tried again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs remove --key nightly")]
pub(super) struct Remove {
    /// The key
    #[arg(long)]
    key: String,
    /// Print JSON: the job, or null
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

/// What is done to jobs.
enum Change {
    Complete,
    Fail(Option<String>),
    Reschedule(Reschedule),
}

impl Complete {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        apply(&self.target, &Change::Complete, self.json, &settings).await
    }
}

impl Fail {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        apply(&self.target, &Change::Fail(self.reason), self.json, &settings).await
    }
}

impl RescheduleJobs {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let Self { run_at, priority, attempts, max_attempts, .. } = self;
        let change = Reschedule { run_at, priority, attempts, max_attempts };
        if change == Reschedule::default() {
            return Err(CliError::Usage(
                "say what to change: --run-at (or --in), --priority, --attempts or --max-attempts".to_owned(),
            ));
        }
        apply(&self.target, &Change::Reschedule(change), self.json, &settings).await
    }
}

impl Remove {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let connected = Connected::find(&settings).await?;
        let (database, session) = connected.open().await?;
        let removed = session.remove_job(&self.key).await.map_err(explain(&database))?;
        if self.json {
            print_json(&removed.as_ref().map(JsonJob::of))?;
        } else {
            match &removed {
                None => note(format_args!("there is no job under the key {:?}", self.key)),
                Some(job) if job.state == JobState::Running => {
                    let name = name(job);
                    print(&format!("{name} {}; it goes on, without its key, and is not tried again\n", holder(job)))?;
                }
                Some(job) => print(&format!("removed {}\n", name(job)))?,
            }
        }
        Ok(if removed.is_some() { Ending::Success } else { Ending::Refusals })
    }
}

impl Change {
    fn verb(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Fail(_) => "fail",
            Self::Reschedule(_) => "reschedule",
        }
    }

    fn done(&self) -> &'static str {
        match self {
            Self::Complete => "completed",
            Self::Fail(_) => "failed",
            Self::Reschedule(_) => "rescheduled",
        }
    }

    async fn apply_to(&self, session: &Session, ids: &[i64]) -> Result<Vec<StoredJob>, QueueError> {
        match self {
            Self::Complete => session.administer_complete(ids).await,
            Self::Fail(reason) => session.administer_fail(ids, reason.as_deref()).await,
            Self::Reschedule(change) => session.administer_reschedule(ids, change).await,
        }
    }
}

async fn apply(target: &Target, change: &Change, as_json: bool, settings: &Layer) -> Result<Ending, CliError> {
    let filter = target.filter()?;
    let connected = Connected::find(settings).await?;
    let (database, session) = connected.open().await?;
    let ids = match &filter {
        None => target.ids.clone(),
        Some(filter) => session.find_job_ids(filter).await.map_err(explain(&database))?,
    };
    if filter.is_some() && !target.confirm(change.verb(), ids.len())? {
        print("nothing was changed\n")?;
        return Ok(Ending::Refusals);
    }
    let mut changed = Vec::new();
    let mut left = Vec::new();
    for ids in ids.chunks(BATCH) {
        let done = change.apply_to(&session, ids).await.map_err(explain(&database))?;
        left.extend(left_alone(&session, &database, ids, &done).await?);
        changed.extend(done);
    }
    if as_json {
        let left: Vec<_> = left.iter().map(|(id, reason)| json!({ "id": id, "reason": reason })).collect();
        print_json(&json!({ change.done(): JsonJob::list(&changed), "left_alone": left }))?;
    } else {
        tell(change, &changed, &left, filter.is_some())?;
    }
    Ok(if changed.is_empty() { Ending::Refusals } else { Ending::Success })
}

/// The jobs that were not changed, each with the reason.
async fn left_alone(
    session: &Session,
    database: &Database,
    ids: &[i64],
    done: &[StoredJob],
) -> Result<Vec<(i64, String)>, CliError> {
    let done: HashSet<i64> = done.iter().map(|job| job.id).collect();
    let left: Vec<i64> = ids.iter().copied().filter(|id| !done.contains(id)).collect();
    if left.is_empty() {
        return Ok(Vec::new());
    }
    let found = session.list_jobs(&JobFilter::ids(&left), JobOrder::Oldest, left.len()).await;
    let found = found.map_err(explain(database))?;
    let reason = |id: i64| match found.iter().find(|job| job.id == id) {
        None => "does not exist; it may be done already".to_owned(),
        Some(job) if job.state == JobState::Running => format!("{} and was left alone", holder(job)),
        Some(_) => "was being run and was left alone; it is not any more".to_owned(),
    };
    Ok(left.into_iter().map(|id| (id, reason(id))).collect())
}

fn tell(change: &Change, changed: &[StoredJob], left: &[(i64, String)], found: bool) -> Result<(), CliError> {
    if found && changed.is_empty() && left.is_empty() {
        return print("there are no such jobs: nothing was changed\n");
    }
    let done = change.done();
    if found && changed.len() > NAMED {
        print(&format!("{done} {} jobs\n", changed.len()))?;
    } else {
        for job in changed {
            print(&format!("{done} {}\n", name(job)))?;
        }
    }
    for (id, reason) in left {
        note(format_args!("job {id} {reason}"));
    }
    Ok(())
}

fn name(job: &StoredJob) -> String {
    format!("job {} ({})", job.id, job.task_identifier)
}

/// `is being run by pool-… since 3s`
fn holder(job: &StoredJob) -> String {
    let since = job.locked_at.map_or_else(String::new, |since| format!(" since {}", age(since)));
    format!("is being run by {}{since}", job.locked_by.as_deref().unwrap_or("somebody"))
}
