//! `taskbay jobs`: looks at jobs, and changes them.

mod apply;
mod change;
mod filter;
mod json;
mod json_output;
mod list;
mod locks;
mod report;
mod show;
mod stats;
mod table;

use clap::{Args, Subcommand};

use super::{CliError, Ending, options::DatabaseOptions};
use crate::config::Layer;

/// List, show, complete, fail, retry, reschedule, remove and unlock jobs
///
/// Jobs that a worker holds are left alone by all of these, unless their lock is older than four hours; each command says
/// what it did, and what it did not. The exit status is 1 unless all jobs or workers that are named were changed; where options
/// such as --task say which are meant, it is 1 if none was.
///
/// A TIME is one with its zone, such as 2030-01-31T12:00:00Z; one without, 2030-01-31 12:00 or 2030-01-31, in the zone of this
/// machine (TZ); now, today, yesterday or tomorrow, of which the last three begin at midnight; or a distance from now, such as 2h.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs list --failed --task send_email
  taskbay jobs show 42
  taskbay jobs stats
  taskbay jobs retry --failed --failed-since yesterday            run again what failed for good
  taskbay jobs complete 42 43
  taskbay jobs unlock taskbay-0123456789abcdef01                  a worker that is gone for certain")]
pub(super) struct Jobs {
    #[command(subcommand)]
    command: JobsCommand,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    #[command(alias = "ls")]
    List(list::List),
    Stats(stats::Stats),
    Show(show::Show),
    Complete(change::Complete),
    Fail(change::Fail),
    Retry(change::Retry),
    Reschedule(change::RescheduleJobs),
    #[command(alias = "delete")]
    Remove(change::Remove),
    Workers(locks::Workers),
    Unlock(locks::Unlock),
}

impl Jobs {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        let database: &DatabaseOptions = match &self.command {
            JobsCommand::List(command) => &command.database,
            JobsCommand::Stats(command) => &command.database,
            JobsCommand::Show(command) => &command.database,
            JobsCommand::Complete(command) => &command.database,
            JobsCommand::Fail(command) => &command.database,
            JobsCommand::Retry(command) => &command.database,
            JobsCommand::Reschedule(command) => &command.database,
            JobsCommand::Remove(command) => &command.database,
            JobsCommand::Workers(command) => &command.database,
            JobsCommand::Unlock(command) => &command.database,
        };
        database.add_to(layer);
    }

    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        match self.command {
            JobsCommand::List(command) => command.execute(settings).await,
            JobsCommand::Stats(command) => command.execute(settings).await,
            JobsCommand::Show(command) => command.execute(settings).await,
            JobsCommand::Complete(command) => command.execute(settings).await,
            JobsCommand::Fail(command) => command.execute(settings).await,
            JobsCommand::Retry(command) => command.execute(settings).await,
            JobsCommand::Reschedule(command) => command.execute(settings).await,
            JobsCommand::Remove(command) => command.execute(settings).await,
            JobsCommand::Workers(command) => command.execute(settings).await,
            JobsCommand::Unlock(command) => command.execute(settings).await,
        }
    }
}
