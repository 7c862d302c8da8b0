//! `taskbay jobs list` and `taskbay jobs stats`.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::{
    super::{
        CliError, Ending,
        database::{Connected, explain},
        options::DatabaseOptions,
        print, print_json,
    },
    filter::FilterOptions,
    json::JsonJob,
    table::{job_table, table},
};
use crate::{
    config::Layer,
    queue::{JobCount, JobFilter, JobOrder, JobState, Session},
};

/// List jobs, the oldest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs list
  taskbay jobs list --failed --task send_email --older-than 1d
  taskbay jobs list --state ready --sort priority --limit 10      what workers take next
  taskbay jobs list --json | jq '.[].payload'")]
pub(super) struct List {
    #[command(flatten)]
    filter: FilterOptions,
    /// The order
    #[arg(long, value_enum, default_value_t = Order::Oldest, value_name = "ORDER")]
    sort: Order,
    /// The most jobs that are listed
    #[arg(short, long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// How many jobs there are of each task and in each state, instead of the jobs: as `taskbay jobs stats`
    #[arg(long)]
    summary: bool,
    /// Print JSON: a list with one object per job, whose fields are the columns of the view `jobs`, payload and state
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

/// Say how many jobs there are of each task and in each state
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs stats
  taskbay jobs stats --task send_email --json")]
pub(super) struct Stats {
    #[command(flatten)]
    filter: FilterOptions,
    /// Print JSON: an object with the numbers of each task
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// As they were added
    Oldest,
    /// The last added first
    Newest,
    /// By when they run
    RunAt,
    /// As workers take them
    Priority,
}

impl List {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let filter = self.filter.to_filter();
        let connected = Connected::find(&settings).await?;
        let (database, session) = connected.open().await?;
        if self.summary {
            return summarize(&session, &filter, self.json).await.map_err(explain(&database))?;
        }
        let order = match self.sort {
            Order::Oldest => JobOrder::Oldest,
            Order::Newest => JobOrder::Newest,
            Order::RunAt => JobOrder::RunAt,
            Order::Priority => JobOrder::Priority,
        };
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        // One more than asked for tells whether there are more.
        let found = session.list_jobs(&filter, order, limit.saturating_add(1)).await;
        let mut jobs = found.map_err(explain(&database))?;
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        if self.json {
            print_json(&JsonJob::list(&jobs))?;
        } else if jobs.is_empty() {
            print(if filter.is_empty() { "there are no jobs\n" } else { "there are no such jobs\n" })?;
        } else {
            print(job_table(&jobs))?;
            if more {
                print(&format!(
                    "there are more than these {limit}: see --limit, and `taskbay jobs stats` for numbers\n"
                ))?;
            }
        }
        Ok(Ending::Success)
    }
}

impl Stats {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let connected = Connected::find(&settings).await?;
        let (database, session) = connected.open().await?;
        summarize(&session, &self.filter.to_filter(), self.json).await.map_err(explain(&database))?
    }
}

async fn summarize(
    session: &Session,
    filter: &JobFilter,
    as_json: bool,
) -> Result<Result<Ending, CliError>, crate::queue::QueueError> {
    let counts = session.count_jobs(filter).await?;
    Ok(print_counts(&counts, as_json).map(|()| Ending::Success))
}

fn print_counts(counts: &[JobCount], as_json: bool) -> Result<(), CliError> {
    let mut tasks: BTreeMap<&str, BTreeMap<JobState, i64>> = BTreeMap::new();
    for count in counts {
        tasks.entry(&count.task_identifier).or_default().insert(count.state, count.jobs);
    }
    let of = |states: &BTreeMap<JobState, i64>, state: JobState| states.get(&state).copied().unwrap_or_default();
    let total: i64 = counts.iter().map(|count| count.jobs).sum();
    let numbers = |states: &BTreeMap<JobState, i64>| {
        let mut numbers: Map<String, Value> =
            JobState::ALL.iter().map(|state| (state.to_string(), Value::from(of(states, *state)))).collect();
        numbers.insert("total".to_owned(), Value::from(states.values().sum::<i64>()));
        Value::Object(numbers)
    };
    let mut all: BTreeMap<JobState, i64> = BTreeMap::new();
    for count in counts {
        *all.entry(count.state).or_default() += count.jobs;
    }
    if as_json {
        let by_task: Map<String, Value> =
            tasks.iter().map(|(task, states)| ((*task).to_owned(), numbers(states))).collect();
        return print_json(&json!({ "total": numbers(&all), "tasks": by_task }));
    }
    if total == 0 {
        return print("there are no such jobs\n");
    }
    let row = |task: &str, states: &BTreeMap<JobState, i64>| {
        let counts = JobState::ALL.iter().map(|state| of(states, *state).to_string());
        std::iter::once(task.to_owned())
            .chain(counts)
            .chain([states.values().sum::<i64>().to_string()])
            .collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<String>> =
        tasks.iter().map(|(task, states)| row(if task.is_empty() { "?" } else { task }, states)).collect();
    if rows.len() > 1 {
        rows.push(row("all", &all));
    }
    print(table(&["TASK", "SCHEDULED", "READY", "RUNNING", "RETRYING", "FAILED", "TOTAL"], rows))
}
