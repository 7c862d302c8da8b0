//! Options become a plan for a host, or the sentence that says why they cannot.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use thiserror::Error;

use super::{Options, TaskList, child_program::this_program, job_context::Surroundings};
use crate::{
    config::{self, ConnectionError, FolderSettings, Layer, WorkerSettings, WrongVariable},
    host::{HostError, Mode, Plan},
    queue::{Database, DatabaseSettings, QueueError},
    work::JobAdder,
};

/// Why options cannot be used.
#[derive(Debug, Error)]
pub enum OptionsError {
    #[error(
        "no database is named: name one by Options::connection, config or database, or by DATABASE_URL or PGDATABASE in \
         the environment"
    )]
    NoDatabase,
    #[error("the options name more than one database: call only one of Options::connection, config and database")]
    TwoDatabases,
    #[error(
        "there is nothing to run: give Options::tasks a list with a task in it, or name a folder by Options::folder"
    )]
    NoTasks,
    #[error("a list of tasks is run without a folder: leave Options::folder out, or call taskbay::run for both")]
    FolderBesideTaskList,
    #[error(
        "plugins of a folder run in processes of their own, which are this program again: call taskbay::plugin_child first \
         of all in main, or name another program that does, such as taskbay itself, by Options::program"
    )]
    NotPrepared,
    #[error("{option} is {value}: {expected}")]
    Invalid { option: &'static str, value: String, expected: &'static str },
    #[error(transparent)]
    Connection(ConnectionError),
    #[error(transparent)]
    Variable(#[from] WrongVariable),
}

/// Why a host did not start, or ended otherwise than it was told to.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// A bug of this library's.
    #[error("the host ended by a panic: {0}")]
    Panicked(String),
}

/// Options that hold.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) plan: Plan,
    pub(super) surroundings: Surroundings,
    pub(super) handle_signals: bool,
}

impl Options {
    /// The database that is named, completed by the environment.
    pub(super) fn find_database(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Database, RunError> {
        let named = [self.connection.is_some(), self.config.is_some(), self.database.is_some()];
        if named.into_iter().filter(|named| *named).count() > 1 {
            return Err(OptionsError::TwoDatabases.into());
        }
        if let Some(database) = &self.database {
            return Ok(database.clone());
        }
        let layer = Layer { connection: self.connection.clone(), ..self.layer.clone() };
        let layer = layer.or(Layer::from_environment(&variable).map_err(OptionsError::from)?);
        let settings = match &self.config {
            Some(config) => {
                let default =
                    DatabaseSettings::new(config.clone(), layer.schema.as_deref().unwrap_or("graphile_worker"));
                DatabaseSettings {
                    max_pool_size: layer.max_pool_size.unwrap_or(default.max_pool_size),
                    prepared_statements: layer.prepared_statements.unwrap_or(default.prepared_statements),
                    ..default
                }
            }
            None => config::database_settings(&layer, variable).map_err(|error| match error {
                ConnectionError::Missing => OptionsError::NoDatabase,
                other => OptionsError::Connection(other),
            })?,
        };
        Database::new(settings).map_err(|error: QueueError| RunError::Host(error.into()))
    }

    pub(super) fn resolve(self, mode: Mode) -> Result<Resolved, RunError> {
        self.check()?;
        if self.tasks.is_empty() && self.folder.is_none() {
            return Err(OptionsError::NoTasks.into());
        }
        let database = self.find_database(|name| std::env::var(name).ok())?;
        let folder = self.folder.as_ref().map(|_| self.folder_rules());
        let program = match (&folder, self.program.clone().or_else(this_program)) {
            (_, Some(program)) => program,
            (None, None) => PathBuf::new(),
            (Some(_), None) => return Err(OptionsError::NotPrepared.into()),
        };
        self.control.show_settings(config::settings_of_program(
            &self.worker,
            folder.as_ref(),
            Some(&self.cron).filter(|_| mode == Mode::Continuous),
            &self.plugins,
        ));
        let surroundings =
            Surroundings { jobs: JobAdder::new(database.clone(), &self.worker), worker: Arc::new(OnceLock::new()) };
        let plan = Plan {
            database,
            tasks: self.tasks.bind(&surroundings),
            folder,
            plugins: self.plugins,
            program,
            worker: self.worker,
            cron: Some(self.cron),
            mode,
            // Who asks for one round wants to hear that it cannot be.
            wait: mode == Mode::Continuous,
            events: self.events,
            control: self.control,
        };
        Ok(Resolved { plan, surroundings, handle_signals: self.handle_signals })
    }

    /// For a list of tasks and nothing else.
    pub(super) fn resolve_task_list(self, tasks: TaskList, mode: Mode) -> Result<Resolved, RunError> {
        if self.folder.is_some() {
            return Err(OptionsError::FolderBesideTaskList.into());
        }
        let mut resolved = self.tasks(tasks).resolve(mode)?;
        // As in graphile-worker, schedules are what `run` is for.
        resolved.plan.cron = None;
        Ok(resolved)
    }

    /// What `taskbay run` would go by.
    fn folder_rules(&self) -> FolderSettings {
        if let Some(settings) = &self.folder_settings {
            return settings.clone();
        }
        let layer = Layer { tasks_directory: self.folder.clone(), ..self.layer.clone() };
        layer.folder(self.purpose)
    }

    fn check(&self) -> Result<(), OptionsError> {
        let WorkerSettings { concurrency, reset_locked: (shortest, longest), .. } = self.worker;
        if concurrency == 0 {
            let (option, expected) = ("concurrency", "at least one job has to run at once");
            return Err(OptionsError::Invalid { option, value: "0".to_owned(), expected });
        }
        if shortest.is_zero() || longest < shortest {
            let value = format!("{shortest:?} to {longest:?}");
            let expected = "the shortest time has to be longer than none, and not longer than the longest";
            return Err(OptionsError::Invalid { option: "reset_locked", value, expected });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_postgres::Config;

    use super::*;

    fn database(options: Options, environment: &[(&str, &str)]) -> Result<String, String> {
        let variable = |name: &str| {
            environment.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        };
        options.find_database(variable).map(|found| found.name().to_owned()).map_err(|error| error.to_string())
    }

    fn config() -> Config {
        "postgres://config/own".parse().unwrap()
    }

    #[test]
    fn at_least_a_connection_string_a_config_or_variables_must_be_provided() {
        let error = database(Options::new(), &[]).unwrap_err();
        assert!(error.contains("no database is named") && error.contains("Options::connection"), "{error}");
    }

    #[test]
    fn a_connection_string_and_a_config_cannot_be_provided_at_the_same_time() {
        let error = database(Options::new().connection("postgres://a/b").config(config()), &[]).unwrap_err();
        assert!(error.contains("more than one database"), "{error}");
    }

    #[test]
    fn providing_just_a_database_url_is_possible() {
        let found = database(Options::new(), &[("DATABASE_URL", "postgres://url/jobs")]).unwrap();
        assert_eq!(found, "database jobs at url:5432");
    }

    #[test]
    fn providing_just_pghost_and_pgdatabase_is_possible() {
        let found = database(Options::new(), &[("PGHOST", "host"), ("PGDATABASE", "jobs")]).unwrap();
        assert_eq!(found, "database jobs at host:5432");
    }

    #[test]
    fn providing_just_a_connection_string_is_possible_and_goes_before_the_environment() {
        let environment = [("DATABASE_URL", "postgres://url/other")];
        let found = database(Options::new().connection("postgres://string/jobs"), &environment).unwrap();
        assert_eq!(found, "database jobs at string:5432");
    }

    #[tokio::test]
    async fn providing_just_a_config_or_a_pool_is_possible() {
        assert_eq!(database(Options::new().config(config()), &[]).unwrap(), "database own at config:5432");
        let pool = Database::new(DatabaseSettings::new(config(), "s")).unwrap();
        assert_eq!(database(Options::new().database(pool), &[]).unwrap(), "database own at config:5432");
    }

    #[test]
    fn what_cannot_be_is_refused_in_a_sentence() {
        let refused = |options: Options| options.resolve(Mode::Once).unwrap_err().to_string();
        let tasks = || TaskList::new().task("t", |_: serde_json::Value, _| async { Ok(()) });
        assert!(refused(Options::new().config(config())).contains("nothing to run"));
        assert!(refused(Options::new().config(config()).folder("tasks")).contains("plugin_child"));
        assert!(refused(Options::new().concurrency(0)).contains("concurrency is 0"));
        let locks = Options::new().reset_locked(Duration::from_secs(2), Duration::from_secs(1));
        assert!(refused(locks).contains("2s to 1s"));
        let both = Options::new().folder("tasks").resolve_task_list(tasks(), Mode::Once).unwrap_err();
        assert!(both.to_string().contains("without a folder"), "{both}");
    }
}
