//! `taskbay jobs stats`, which is also `taskbay jobs list --summary`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    super::{
        CliError, Ending,
        database::{Connected, explain},
        note,
        options::DatabaseOptions,
        print, print_json,
    },
    filter::{FilterOptions, tell_unknown_tasks},
    table::table,
};
use crate::{
    admin::{Admin, Precision},
    config::Layer,
    queue::{Database, JobCounts, JobFilter, JobState, RowAccess},
};

/// Say how many jobs there are of each task and in each state
///
/// Of a table of more than 64 MB, a sample is read and the numbers are estimated; standard error says so, and ~ and < mark
/// them. --exact reads every job.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs stats
  taskbay jobs stats --task send_email --json
  taskbay jobs stats --exact")]
pub(super) struct Stats {
    #[command(flatten)]
    filter: FilterOptions,
    /// Count every job of a large table, too
    #[arg(long)]
    exact: bool,
    /// Print JSON: an object with the numbers of each task, and what part of the table was read; null if they are exact
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

impl Stats {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let connected = Connected::find(&settings).await?;
        let (database, admin) = connected.open(RowAccess::Read).await?;
        summarize(&database, &admin, &self.filter.to_filter(), precision(self.exact), self.json).await
    }
}

pub(super) fn precision(exact: bool) -> Precision {
    if exact { Precision::Exact } else { Precision::Estimate }
}

pub(super) async fn summarize(
    database: &Database,
    admin: &Admin,
    filter: &JobFilter,
    precision: Precision,
    as_json: bool,
) -> Result<Ending, CliError> {
    let counts = admin.count(filter, precision).await.map_err(explain(database))?;
    if as_json {
        print_as_json(&counts)?
    } else {
        print_as_table(&counts)?
    }
    tell_unknown_tasks(admin, filter).await;
    if let Some(part) = counts.sampled {
        note(format_args!(
            "estimated from {:.2} % of the table, which is large: a task or state with fewer than about {} jobs may be \
             missing. --exact counts every job",
            part * 100.0,
            unseen_below(part)
        ));
    }
    Ok(Ending::Success)
}

type States = BTreeMap<JobState, i64>;

fn of(states: &States, state: JobState) -> i64 {
    states.get(&state).copied().unwrap_or_default()
}

/// The numbers of each task, and of all.
fn by_task(counts: &JobCounts) -> (BTreeMap<&str, States>, States) {
    let mut tasks: BTreeMap<&str, States> = BTreeMap::new();
    let mut all = States::new();
    for count in &counts.counts {
        tasks.entry(&count.task_identifier).or_default().insert(count.state, count.jobs);
        *all.entry(count.state).or_default() += count.jobs;
    }
    (tasks, all)
}

fn print_as_json(counts: &JobCounts) -> Result<(), CliError> {
    let (tasks, all) = by_task(counts);
    let numbers = |states: &States| {
        let mut numbers: Map<String, Value> =
            JobState::ALL.iter().map(|state| (state.to_string(), Value::from(of(states, *state)))).collect();
        numbers.insert("total".to_owned(), Value::from(states.values().sum::<i64>()));
        Value::Object(numbers)
    };
    let by_task: Map<String, Value> =
        tasks.iter().map(|(task, states)| ((*task).to_owned(), numbers(states))).collect();
    print_json(&json!({ "total": numbers(&all), "tasks": by_task, "sampled": counts.sampled }))
}

fn print_as_table(counts: &JobCounts) -> Result<(), CliError> {
    let (tasks, all) = by_task(counts);
    if tasks.is_empty() && counts.sampled.is_none() {
        return print("there are no such jobs\n");
    }
    let number = |count: i64| match counts.sampled {
        None => count.to_string(),
        Some(part) if count == 0 => format!("<{}", unseen_below(part)),
        Some(_) => format!("~{}", rounded(count)),
    };
    let row = |task: &str, states: &States| {
        let counts = JobState::ALL.iter().map(|state| number(of(states, *state)));
        std::iter::once(task.to_owned()).chain(counts).chain([number(states.values().sum::<i64>())]).collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<String>> =
        tasks.iter().map(|(task, states)| row(if task.is_empty() { "?" } else { task }, states)).collect();
    if rows.len() != 1 {
        rows.push(row("all", &all));
    }
    print(table(&["TASK", "SCHEDULED", "READY", "RUNNING", "RETRYING", "FAILED", "TOTAL"], rows))
}

/// With fewer jobs than this, none of them may be in the sample: one time in twenty.
#[expect(clippy::cast_possible_truncation, reason = "an estimate")]
fn unseen_below(part: f64) -> i64 {
    (3.0 / part).ceil() as i64
}

/// To three digits: an estimate has no more.
fn rounded(count: i64) -> i64 {
    let digits = count.max(1).ilog10().saturating_sub(2);
    let unit = 10_i64.pow(digits);
    (count + unit / 2) / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_have_three_digits() {
        assert_eq!([0, 7, 999, 1_234, 1_235_999].map(rounded), [0, 7, 999, 1_230, 1_240_000]);
        assert_eq!(unseen_below(0.08), 38);
    }
}
