//! `taskbay jobs workers` and `taskbay jobs unlock`.

use clap::Args;
use serde_json::json;

use super::{
    super::{
        CliError, Ending,
        database::{Connected, explain},
        moment::{age, written},
        note,
        options::DatabaseOptions,
        print, print_json,
    },
    stats::precision,
    table::table,
};
use crate::{
    admin::{LivingHosts, UnlockReport},
    config::Layer,
    queue::{LockHolder, LockHolders, RowAccess, UnlockedWorker},
};

/// List the workers that hold jobs or queues
///
/// LIVES says whether a Taskbay host shows that it lives; workers of graphile-worker show nothing. No index knows which jobs are
/// locked. Of a table of more than 64 MB, a sample is read: numbers of jobs are estimated, and a worker with few jobs may be
/// missing; standard error says so. --exact reads every job.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs workers
  taskbay jobs workers --exact")]
pub(super) struct Workers {
    /// Look at every job of a large table, too
    #[arg(long)]
    exact: bool,
    /// Print JSON: a list with one object per worker
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

/// Release the locks of workers that are gone
///
/// The jobs that these workers were running can be run by others from then on. A Taskbay host that shows that it lives is refused:
/// stop it, and it releases its jobs itself; --force takes its locks all the same, and its jobs may run twice. Workers of
/// graphile-worker do not show whether they live: make sure that they are gone. Any worker releases locks that are older than four
/// hours.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs workers                               who holds locks, and since when
  taskbay jobs unlock taskbay-0123456789abcdef01
  taskbay jobs unlock --force taskbay-live-0123456789abcdef01")]
pub(super) struct Unlock {
    /// The workers, as locked_by names them: taskbay-…, pool-… or, before graphile-worker 0.17, worker-…
    #[arg(required = true, value_name = "WORKER")]
    workers: Vec<String>,
    /// Also release the locks of hosts that are alive: the jobs that they run may run twice
    #[arg(long)]
    force: bool,
    /// Print JSON: a list with one object per worker
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

impl Workers {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let connected = Connected::find(&settings).await?;
        let (database, admin) = connected.open(RowAccess::Read).await?;
        let found = admin.workers(precision(self.exact)).await;
        let LockHolders { holders, sampled } = found.map_err(explain(&database))?;
        if self.json {
            let list: Vec<_> = holders
                .iter()
                .map(|holder| {
                    json!({
                        "worker": holder.worker, "jobs": holder.jobs, "queues": holder.queues,
                        "since": written(holder.since), "lives": holder.lives, "sampled": sampled,
                    })
                })
                .collect();
            print_json(&list)?;
        } else if holders.is_empty() {
            print("no worker holds a job or a queue\n")?;
        } else {
            let mark = if sampled.is_some() { "~" } else { "" };
            let row = |holder: &LockHolder| {
                vec![
                    holder.worker.clone(),
                    holder.lives.map_or("?", |lives| if lives { "yes" } else { "no" }).to_owned(),
                    format!("{mark}{}", holder.jobs),
                    holder.queues.to_string(),
                    format!("{} ago", age(holder.since)),
                ]
            };
            print(table(&["WORKER", "LIVES", "JOBS", "QUEUES", "OLDEST LOCK"], holders.iter().map(row).collect()))?;
        }
        if let Some(part) = sampled {
            note(format_args!(
                "estimated from {:.2} % of the table of jobs, which is large: a worker that holds few jobs may be missing. \
                 --exact looks at every job",
                part * 100.0
            ));
        }
        Ok(Ending::Success)
    }
}

impl Unlock {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let connected = Connected::find(&settings).await?;
        let (database, admin) = connected.open(RowAccess::Unlock).await?;
        let names: Vec<&str> = self.workers.iter().map(String::as_str).collect();
        let living = if self.force { LivingHosts::LoseLocks } else { LivingHosts::KeepLocks };
        let report = admin.unlock(&names, living).await.map_err(explain(&database))?;
        let UnlockReport { unlocked, kept, alive } = report;
        let all = kept.is_empty() && unlocked.iter().all(holds);
        let printed = self.print(&unlocked);
        for worker in kept {
            note(format_args!(
                "{worker} is alive, so its locks stay: stop that host, and it releases its jobs, or take its locks with --force, \
                 and its jobs may run twice"
            ));
        }
        for worker in unlocked.iter().filter(|worker| alive.contains(&worker.worker) && worker.jobs > 0) {
            note(format_args!(
                "warning: {} is alive and goes on with {}, which other workers may now run as well",
                worker.worker,
                counted(worker.jobs, "job")
            ));
        }
        for (id, reason) in unlocked.iter().flat_map(|worker| &worker.refused) {
            note(format_args!("job {id} could not be unlocked: {reason}"));
        }
        let done: Vec<String> = unlocked.iter().filter(|worker| holds(worker)).map(sentence).collect();
        printed.map_err(CliError::after_change(done.join(", ")))?;
        Ok(if all { Ending::Success } else { Ending::Refusals })
    }

    fn print(&self, unlocked: &[UnlockedWorker]) -> Result<(), CliError> {
        if self.json {
            let list: Vec<_> = unlocked
                .iter()
                .map(|worker| json!({ "worker": worker.worker, "jobs": worker.jobs, "queues": worker.queues }))
                .collect();
            return print_json(&list);
        }
        for worker in unlocked {
            if holds(worker) {
                print(&format!("{}\n", sentence(worker)))?;
            } else if worker.refused.is_empty() {
                let worker = &worker.worker;
                note(format_args!("{worker} holds nothing: `taskbay jobs workers` lists those that do"));
            }
        }
        Ok(())
    }
}

fn holds(worker: &UnlockedWorker) -> bool {
    worker.jobs + worker.queues > 0
}

/// `unlocked 1 job and 0 queues of pool-1`
fn sentence(worker: &UnlockedWorker) -> String {
    let (jobs, queues) = (counted(worker.jobs, "job"), counted(worker.queues, "queue"));
    format!("unlocked {jobs} and {queues} of {}", worker.worker)
}

fn counted(count: i64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
