//! `taskbay jobs`: looks at jobs, and changes them.

mod change;
mod filter;
mod json;
mod list;
mod locks;
mod show;
mod table;

use clap::{Args, Subcommand};

use super::{CliError, Ending, options::DatabaseOptions};
use crate::config::Layer;

/// List, show, complete, fail, reschedule, remove and unlock jobs
///
/// Jobs that a worker holds are left alone by all of these, unless their lock is older than four hours; each command says
/// what it did, and what it did not. The exit status is 1 if there was nothing to do it to.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs list --failed --task send_email
  taskbay jobs show 42
  taskbay jobs stats
  taskbay jobs reschedule --failed --attempts 0 --run-at now      try again what failed for good
  taskbay jobs complete 42 43
  taskbay jobs unlock taskbay-0123456789abcdef01                  a worker that is gone for certain")]
pub(super) struct Jobs {
    #[command(subcommand)]
    command: JobsCommand,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    List(list::List),
    Stats(list::Stats),
    Show(show::Show),
    Complete(change::Complete),
    Fail(change::Fail),
    Reschedule(change::RescheduleJobs),
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
            JobsCommand::Reschedule(command) => command.execute(settings).await,
            JobsCommand::Remove(command) => command.execute(settings).await,
            JobsCommand::Workers(command) => command.execute(settings).await,
            JobsCommand::Unlock(command) => command.execute(settings).await,
        }
    }
}

/// With a capital letter.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}
