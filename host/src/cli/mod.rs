//! The command line: one file per subcommand.

mod add;
mod check;
mod cleanup;
mod completions;
mod config;
mod database;
mod dev;
mod first_process;
mod flag_tips;
mod jobs;
mod log_output;
mod logging;
mod migrate;
mod moment;
mod options;
mod output;
mod plugins;
mod reload;
mod reload_report;
mod run;
mod run_at;
mod running_hosts;
mod service_manager;
mod setting_flags;
mod signals;
mod usage_error;
mod whole_number;

use std::{io, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use thiserror::Error;

pub use self::first_process::{is_first, run_below_first};
use self::output::{Text, errors_have_room, note, print, print_json};
pub use self::usage_error::report as report_usage_error;
use crate::{
    config::{ConnectionError, Contradiction, FileError, Layer, WrongVariable},
    embedded_postgres::EmbeddedPostgresError,
    host::HostError,
    migrate::MigrateError,
    parts,
    queue::QueueError,
    tasks::FolderError,
};

/// Runs Postgres jobs with task code that you drop into a folder
#[derive(Debug, Parser)]
#[command(name = "taskbay", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
#[command(args_override_self = true, infer_long_args = false, disable_help_subcommand = false)]
#[command(long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    global: options::GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "\
Runs Postgres jobs with task code that you drop into a folder.

Write a task in Rust, compile it as a cdylib, and copy it into the tasks folder: jobs of that task run it. Copy a new \
build over it, and the next job runs the new build, while running jobs finish on the old one. The database is that of \
graphile-worker, so anything that adds jobs with graphile_worker.add_job() works with it, beside Node workers too.";

const EXAMPLES: &str = "\
Examples:
  taskbay dev                                        try it: brings its own Postgres, builds and reloads your plugins
  taskbay add send_email '{\"to\": \"ada@example.com\"}'  add a job
  taskbay run tasks -c postgres://localhost/app      work the jobs of a database with the plugins in tasks/
  taskbay check target/release/libsend_email.so      see whether a plugin would be loaded

Settings come from flags, then the environment, then taskbay.toml in the current folder, then defaults.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Dev(dev::Dev),
    Migrate(migrate::Migrate),
    Add(add::Add),
    Jobs(jobs::Jobs),
    Cleanup(cleanup::Cleanup),
    Config(config::Config),
    Plugins(plugins::Plugins),
    Check(check::Check),
    Completions(completions::Completions),
}

/// How a command ended that did what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Success,
    /// A file that was checked would be refused, or is by a running host, or nothing was found of what was asked for.
    Refusals,
    /// The host stopped because of this signal.
    Signal(i32),
}

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CliError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Variable(#[from] WrongVariable),
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    #[error(transparent)]
    Filter(#[from] logging::WrongFilter),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    EmbeddedPostgres(#[from] EmbeddedPostgresError),
    #[error(transparent)]
    Payload(#[from] add::WrongPayload),
    #[error(transparent)]
    Lines(#[from] add::FileError),
    #[error(transparent)]
    Dev(#[from] dev::DevError),
    #[error(
        "schema {schema} is not installed in {database}, or is too old: {error}. `taskbay migrate` installs it, \
         and --schema names another one"
    )]
    NotInstalled { schema: String, database: String, error: Box<QueueError> },
    #[error(
        "no database is configured, and the private Postgres of {} is stopped; its data are kept. `taskbay dev` in that folder \
         starts it, and so does `taskbay run --embedded-postgres`; or name another database with --connection or DATABASE_URL",
        .0.display()
    )]
    Stopped(PathBuf),
    /// What was typed does not go together in a way that only shows later.
    #[error("{0}")]
    Usage(String),
    /// The command did its work, and could not say so.
    #[error("{done}. That is stored in the database, but printing it failed: {error}")]
    Unprinted { done: String, error: Box<CliError> },
    #[error("could not {what}: {error}")]
    System { what: &'static str, error: io::Error },
}

/// How long the error at the end waits for a reader.
const PATIENCE: Duration = Duration::from_secs(5);

/// As `EX_SOFTWARE` of sysexits.h: an internal error.
const PART_FAILED: u8 = 70;

impl CliError {
    /// The exit status for it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Migrate(error) | Self::Host(HostError::Migrate(error)) => error.exit_code(),
            Self::Usage(_) => 2,
            Self::Host(HostError::Part(_)) => PART_FAILED,
            _ => 1,
        }
    }

    /// Says it on standard error.
    pub fn report(&self) {
        let mut text = Text::default();
        let sentence = format!("taskbay: {self}");
        match self {
            // With the lines of a crontab, or with what initdb, the server or cargo wrote.
            Self::Host(HostError::Cron(_)) | Self::EmbeddedPostgres(_) | Self::Dev(dev::DevError::Manifest { .. }) => {
                text.paragraph(&sentence);
            }
            _ if self.has_statements() => text.paragraph(&sentence),
            _ => text.line(sentence),
        }
        // A log that nobody reads is no reason to stay.
        if errors_have_room(Some(PATIENCE)) {
            note(text);
        }
    }

    /// With SQL for the owner of the tables.
    fn has_statements(&self) -> bool {
        match self {
            Self::Queue(error)
            | Self::Migrate(MigrateError::Queue(error))
            | Self::Host(HostError::Migrate(MigrateError::Queue(error))) => matches!(error, QueueError::RowSecurity(_)),
            Self::Lines(add::FileError::Database { error, .. }) => error.has_statements(),
            _ => false,
        }
    }

    /// For an answer that could not be printed after something was changed; `done` says what.
    fn after_change(done: String) -> impl FnOnce(Self) -> Self {
        move |error| match done.is_empty() {
            true => error,
            false => Self::Unprinted { done, error: Box::new(error) },
        }
    }

    fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::System { what, error }
    }
}

/// Does what was typed.
pub fn execute(cli: Cli) -> Result<Ending, CliError> {
    let Cli { global, command } = cli;
    if let Command::Completions(completions) = command {
        return completions.execute();
    }
    let mut flags = Layer::default();
    match &command {
        Command::Run(run) => run.add_to(&mut flags),
        Command::Dev(dev) => dev.add_to(&mut flags),
        Command::Migrate(migrate) => migrate.add_to(&mut flags),
        Command::Add(add) => add.add_to(&mut flags),
        Command::Jobs(jobs) => jobs.add_to(&mut flags),
        Command::Cleanup(cleanup) => cleanup.add_to(&mut flags),
        Command::Config(config) => config.add_to(&mut flags),
        Command::Plugins(plugins) => plugins.add_to(&mut flags),
        Command::Check(check) => check.add_to(&mut flags),
        Command::Completions(_) => {}
    }
    let given = global.complete(flags)?;
    let settings = given.settings.clone();
    parts::note_where_panics_happen();
    let log = logging::start(&settings.log(), command.usual_log())?;
    options::warn_of_unknown_variables();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::system("start the threads of this program"))?;
    let ending = runtime.block_on(async {
        match command {
            Command::Run(run) => run.execute(given).await,
            Command::Dev(dev) => dev.execute(settings).await,
            Command::Migrate(migrate) => migrate.execute(settings).await,
            Command::Add(add) => add.execute(settings).await,
            Command::Jobs(jobs) => jobs.execute(settings).await,
            Command::Cleanup(cleanup) => cleanup.execute(settings).await,
            Command::Config(config) => config.execute(settings).await,
            Command::Plugins(plugins) => plugins.execute(settings).await,
            Command::Check(check) => check.execute(settings).await,
            Command::Completions(completions) => completions.execute(),
        }
    });
    // A reader of standard input or a lookup of a name may hang; nothing that matters is left.
    runtime.shutdown_background();
    log.finish();
    ending
}

impl Command {
    /// How much is logged unless the settings say otherwise.
    fn usual_log(&self) -> &'static str {
        match self {
            // Who develops a task wants to see its jobs.
            Self::Dev(_) => "warn,taskbay=info,taskbay::events::job=debug,taskbay::events::done=debug,plugin=debug",
            Self::Run(_) => "info",
            _ => "warn",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_each_command_has_examples() {
        Cli::command().debug_assert();
        for mut command in Cli::command().get_subcommands().cloned() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:"), "{} has no examples", command.get_name());
        }
    }

    #[test]
    fn the_last_of_two_flags_counts() {
        assert!(Cli::try_parse_from(["taskbay", "run", "--log-level=debug", "--log-level=info", "-j1", "-j2"]).is_ok());
    }

    #[test]
    fn a_mistyped_flag_or_command_is_answered_with_the_nearest() {
        let refused = |args: &[&str]| Cli::try_parse_from(args).unwrap_err().to_string();
        assert!(refused(&["taskbay", "run", "--pol-interval", "2s"]).contains("--poll-interval"));
        assert!(refused(&["taskbay", "rum"]).contains("run"));
    }
}
