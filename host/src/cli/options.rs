//! Options that several commands share, and the layer of settings that they make.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};

use super::CliError;
use crate::{
    config::{self, Clock, Layer, LogFormat},
    plugin::Isolation,
};

/// The settings file that is read if it is there.
const SETTINGS_FILE: &str = "taskbay.toml";

/// Options of every command.
#[derive(Debug, Args)]
pub(super) struct GlobalOptions {
    /// The settings file [default: taskbay.toml in the current folder, if there is one]
    #[arg(short = 'C', long, global = true, value_name = "FILE", help_heading = "General options")]
    config: Option<PathBuf>,
    /// How log lines are written, to standard error [default: text]
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "General options")]
    log_format: Option<Format>,
    /// How much is logged: error, warn, info, debug, trace, or directives as in RUST_LOG
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "General options")]
    log_level: Option<String>,
    /// Log warnings and errors only
    #[arg(short, long, global = true, conflicts_with = "log_level", help_heading = "General options")]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Options of the commands that use the database.
#[derive(Debug, Args)]
pub(super) struct DatabaseOptions {
    /// The database, as postgres://user:password@host:port/database
    ///
    /// Without it, DATABASE_URL or PGDATABASE and the other PG* variables name the database, then the settings file. What
    /// the connection string leaves open is taken from the PG* variables. Arguments can be seen by other users of this
    /// machine: give a password by DATABASE_URL or PGPASSWORD rather than here.
    #[arg(short, long, value_name = "URL", help_heading = "Database options")]
    connection: Option<String>,
    /// The schema that jobs are in [default: graphile_worker]
    #[arg(short, long, value_name = "NAME", help_heading = "Database options")]
    schema: Option<String>,
    /// The most connections of the pool [default: 10]
    #[arg(short, long, value_name = "N", value_parser = at_least_one, help_heading = "Database options")]
    max_pool_size: Option<usize>,
    /// Do not prepare statements, as poolers in transaction mode need it
    #[arg(long, help_heading = "Database options")]
    no_prepared_statements: bool,
}

/// How `run` and `dev` work jobs.
#[derive(Debug, Args)]
pub(super) struct WorkerOptions {
    /// How many jobs run at once, over all plugins [default: 10]
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    jobs: Option<usize>,
    /// How often to look for jobs that no notification told of: milliseconds, or with a unit such as 2s [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    poll_interval: Option<Duration>,
    /// Run all plugins in this process rather than in processes of their own
    ///
    /// Faster by some microseconds a job, and for trusted code only: a plugin that crashes takes the host with it.
    #[arg(long)]
    in_process: bool,
    /// Leave jobs with this flag to others; may be given several times
    #[arg(long = "forbidden-flag", value_name = "FLAG")]
    forbidden_flags: Vec<String>,
    /// Do not listen for notifications; find new jobs by polling alone
    #[arg(long)]
    no_listen: bool,
    /// Let this machine's clock, not the database's, say which jobs are due
    #[arg(long)]
    use_node_time: bool,
    /// The file with schedules [default: crontab in the current folder, if there is one]
    #[arg(long, value_name = "FILE")]
    crontab: Option<PathBuf>,
}

impl GlobalOptions {
    /// Adds the environment and the settings file below what the command line says.
    pub(super) fn complete(&self, flags: Layer) -> Result<Layer, CliError> {
        let flags = Layer {
            log_format: self.log_format.map(|format| match format {
                Format::Text => LogFormat::Text,
                Format::Json => LogFormat::Json,
            }),
            log_filter: if self.quiet { Some("warn".to_owned()) } else { self.log_level.clone() },
            ..flags
        };
        Ok(flags.or(Layer::from_environment(variable)).or(self.file()?))
    }

    fn file(&self) -> Result<Layer, CliError> {
        match &self.config {
            Some(path) => Ok(config::read_file(path)?),
            None => match config::read_file(Path::new(SETTINGS_FILE)) {
                Err(config::FileError::Unreadable { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                    Ok(Layer::default())
                }
                read => Ok(read?),
            },
        }
    }
}

impl DatabaseOptions {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        layer.connection = self.connection.clone();
        layer.schema = self.schema.clone();
        layer.max_pool_size = self.max_pool_size;
        layer.prepared_statements = self.no_prepared_statements.then_some(false);
    }
}

impl WorkerOptions {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        layer.concurrency = self.jobs;
        layer.poll_interval = self.poll_interval;
        layer.isolation = self.in_process.then_some(Isolation::InProcess);
        layer.forbidden_flags = (!self.forbidden_flags.is_empty()).then(|| self.forbidden_flags.clone());
        layer.listen = self.no_listen.then_some(false);
        layer.clock = self.use_node_time.then_some(Clock::Process);
        layer.crontab = self.crontab.clone();
    }
}

/// A variable of the environment, if it is text.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "it must be a whole number from 1".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    config::parse_milliseconds(text)
        .and_then(|time| if time.is_zero() { Err("it must be more than nothing".to_owned()) } else { Ok(time) })
}
