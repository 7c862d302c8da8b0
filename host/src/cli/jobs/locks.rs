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
    table::table,
};
use crate::config::Layer;

/// List the workers that hold jobs or queues
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs workers")]
pub(super) struct Workers {
    /// Print JSON: a list with one object per worker
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

/// Take the locks of workers away that are gone
///
/// The jobs that these workers were running can be run by others from then on. Nothing in the database tells whether a
/// worker still lives: if it does, its jobs run twice. Locks that nobody lifts are taken away by any worker after four hours.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs workers                               who holds locks, and since when
  taskbay jobs unlock taskbay-0123456789abcdef01")]
pub(super) struct Unlock {
    /// The workers, as locked_by names them: taskbay-…, pool-… or, before graphile-worker 0.17, worker-…
    #[arg(required = true, value_name = "WORKER")]
    workers: Vec<String>,
    /// Print JSON: a list with one object per worker
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

impl Workers {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let connected = Connected::find(&settings).await?;
        let (database, session) = connected.open().await?;
        let holders = session.lock_holders().await.map_err(explain(&database))?;
        if self.json {
            let list: Vec<_> = holders
                .iter()
                .map(|holder| {
                    json!({
                        "worker": holder.worker, "jobs": holder.jobs, "queues": holder.queues,
                        "since": written(holder.since),
                    })
                })
                .collect();
            print_json(&list)?;
        } else if holders.is_empty() {
            print("no worker holds a job or a queue\n")?;
        } else {
            let row = |holder: &crate::queue::LockHolder| {
                vec![
                    holder.worker.clone(),
                    holder.jobs.to_string(),
                    holder.queues.to_string(),
                    format!("{} ago", age(holder.since)),
                ]
            };
            print(table(&["WORKER", "JOBS", "QUEUES", "OLDEST LOCK"], holders.iter().map(row).collect()))?;
        }
        Ok(Ending::Success)
    }
}

impl Unlock {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let connected = Connected::find(&settings).await?;
        let (database, session) = connected.open().await?;
        let names: Vec<&str> = self.workers.iter().map(String::as_str).collect();
        let unlocked = session.force_unlock_workers(&names).await.map_err(explain(&database))?;
        let any = unlocked.iter().any(|worker| worker.jobs + worker.queues > 0);
        if self.json {
            let list: Vec<_> = unlocked
                .iter()
                .map(|worker| json!({ "worker": worker.worker, "jobs": worker.jobs, "queues": worker.queues }))
                .collect();
            print_json(&list)?;
        } else {
            for worker in &unlocked {
                if worker.jobs + worker.queues > 0 {
                    let (jobs, queues) = (counted(worker.jobs, "job"), counted(worker.queues, "queue"));
                    print(&format!("unlocked {jobs} and {queues} of {}\n", worker.worker))?;
                } else {
                    let worker = &worker.worker;
                    note(format_args!("{worker} holds nothing: `taskbay jobs workers` lists those that do"));
                }
            }
        }
        Ok(if any { Ending::Success } else { Ending::Refusals })
    }
}

fn counted(count: i64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
