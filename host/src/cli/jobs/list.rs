//! `taskbay jobs list`.

use clap::{Args, ValueEnum};

use super::{
    super::{
        CliError, Ending,
        database::{Connected, explain},
        note,
        options::DatabaseOptions,
        print,
        whole_number::whole_number,
    },
    filter::{FilterOptions, tell_unknown_tasks},
    json::JsonJob,
    json_output::JsonOutput,
    stats::{precision, summarize},
    table::{job_table, shorten},
};
use crate::{
    admin::Listing,
    config::Layer,
    queue::{Database, JobOrder, RowAccess},
};

/// How many lines a table has. A longer list is several of them, each as wide as its jobs want it.
const PAGE: usize = 1_000;

/// List jobs, the oldest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs list
  taskbay jobs list --failed --task send_email --failed-since yesterday
  taskbay jobs list --state ready --sort priority --limit 10      what workers take next
  taskbay jobs list --json | jq '.[].payload'")]
pub(super) struct List {
    #[command(flatten)]
    filter: FilterOptions,
    /// The order
    #[arg(long, value_enum, default_value_t = Order::Oldest, value_name = "ORDER")]
    sort: Order,
    /// The most jobs that are listed; standard error says if there are more
    #[arg(short, long, value_name = "N", default_value_t = 50, value_parser = whole_number::<u32>(1..=u32::MAX.into()))]
    limit: u32,
    /// List all of them, however many there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// How many jobs there are of each task and in each state, instead of the jobs: as `taskbay jobs stats`
    #[arg(long)]
    summary: bool,
    /// With --summary, count every job of a large table, too
    #[arg(long, requires = "summary")]
    exact: bool,
    /// Print JSON: a list with one object per job, whose fields are the columns of the view `jobs`, payload and state
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
        let (database, admin) = connected.open(RowAccess::Read).await?;
        if self.summary {
            return summarize(&database, &admin, &filter, precision(self.exact), self.json).await;
        }
        let order = match self.sort {
            Order::Oldest => JobOrder::Oldest,
            Order::Newest => JobOrder::Newest,
            Order::RunAt => JobOrder::RunAt,
            Order::Priority => JobOrder::Priority,
        };
        let limit = if self.all { None } else { Some(usize::try_from(self.limit).unwrap_or(usize::MAX)) };
        let mut jobs = admin.list(&filter, order, limit).await.map_err(explain(&database))?;
        if self.json {
            print_as_json(&mut jobs, &database).await?;
        } else {
            print_as_tables(&mut jobs, &database).await?;
            if jobs.is_empty() {
                print(if filter.is_empty() { "there are no jobs\n" } else { "there are no such jobs\n" })?;
            }
        }
        tell_unknown_tasks(&admin, &filter).await;
        if let Some(limit) = limit.filter(|_| jobs.has_more()) {
            note(format_args!(
                "there are more than these {limit}: --limit lists more and --all all of them; `taskbay jobs stats` counts"
            ));
        }
        Ok(Ending::Success)
    }
}

async fn print_as_json(jobs: &mut Listing<'_>, database: &Database) -> Result<(), CliError> {
    let mut output = JsonOutput::begin("[")?;
    while let Some(job) = jobs.next().await.map_err(explain(database))? {
        output.element(&JsonJob::of(&job))?;
        if output.reader_is_gone() {
            return Ok(());
        }
    }
    output.end_list("]\n")?;
    output.flush()
}

async fn print_as_tables(jobs: &mut Listing<'_>, database: &Database) -> Result<(), CliError> {
    loop {
        let mut page = Vec::new();
        while page.len() < PAGE {
            let Some(job) = jobs.next().await.map_err(explain(database))? else { break };
            page.push(shorten(job));
        }
        if page.is_empty() {
            return Ok(());
        }
        print(job_table(&page))?;
        if page.len() < PAGE {
            return Ok(());
        }
    }
}
