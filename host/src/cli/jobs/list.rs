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
    stats::summarize,
    table::{job_table, shorten},
};
use crate::{
    config::Layer,
    queue::{Database, JobOrder, JobStream, RowAccess, StoredJob},
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
        let (database, session) = connected.open(RowAccess::Read).await?;
        if self.summary {
            return summarize(&database, &session, &filter, self.exact, self.json).await;
        }
        let order = match self.sort {
            Order::Oldest => JobOrder::Oldest,
            Order::Newest => JobOrder::Newest,
            Order::RunAt => JobOrder::RunAt,
            Order::Priority => JobOrder::Priority,
        };
        let limit = if self.all { None } else { Some(usize::try_from(self.limit).unwrap_or(usize::MAX)) };
        // One more than asked for tells whether there are more.
        let stream = session.stream_jobs(&filter, order, limit.map(|limit| limit.saturating_add(1))).await;
        let mut jobs = Jobs { database: &database, stream: stream.map_err(explain(&database))?, limit, listed: 0 };
        if self.json {
            print_as_json(&mut jobs).await?;
        } else {
            print_as_tables(&mut jobs).await?;
            if jobs.listed == 0 {
                print(if filter.is_empty() { "there are no jobs\n" } else { "there are no such jobs\n" })?;
            }
        }
        tell_unknown_tasks(&session, &filter).await;
        if let Some(limit) = limit.filter(|limit| jobs.listed > *limit) {
            note(format_args!(
                "there are more than these {limit}: --limit lists more and --all all of them; `taskbay jobs stats` counts"
            ));
        }
        Ok(Ending::Success)
    }
}

/// The jobs to be listed.
struct Jobs<'a> {
    database: &'a Database,
    stream: JobStream<'a>,
    limit: Option<usize>,
    /// How many were read, those beyond the limit with them.
    listed: usize,
}

impl Jobs<'_> {
    async fn next(&mut self) -> Result<Option<StoredJob>, CliError> {
        let job = self.stream.next().await.map_err(explain(self.database))?;
        self.listed += usize::from(job.is_some());
        Ok(job.filter(|_| self.limit.is_none_or(|limit| self.listed <= limit)))
    }
}

async fn print_as_json(jobs: &mut Jobs<'_>) -> Result<(), CliError> {
    let mut output = JsonOutput::begin("[")?;
    while let Some(job) = jobs.next().await? {
        output.element(&JsonJob::of(&job))?;
        if output.reader_is_gone() {
            return Ok(());
        }
    }
    output.end_list("]\n")?;
    output.flush()
}

async fn print_as_tables(jobs: &mut Jobs<'_>) -> Result<(), CliError> {
    loop {
        let mut page = Vec::new();
        while page.len() < PAGE {
            let Some(job) = jobs.next().await? else { break };
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
