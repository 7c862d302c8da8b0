//! `taskbay run`: watches the folder and works jobs.

use std::{path::PathBuf, pin::pin};

use clap::Args;

use super::{
    CliError, Ending,
    cleanup::{clean_up, parse_cleanup},
    config::set_folder,
    database,
    migrate::prepare,
    options::{DatabaseOptions, Given, WorkerOptions},
    reload::Reload,
    service_manager,
    signals::{self, Hangup, Received},
};
use crate::{
    config::{Layer, Purpose},
    embedded_postgres::EmbeddedPostgres,
    events::Events,
    host::{self, Control, Mode},
    migrate,
    queue::{CleanupTask, Database},
    status_socket,
};

/// Watch the tasks folder and work jobs
///
/// Loads each compiled plugin (.so) in the tasks folder and works the jobs of their tasks. A file that appears, changes or
/// goes away while this runs is taken over within a moment; running jobs finish on the build that they started on. A file
/// that cannot be loaded is refused with one line that says why, and the build before it goes on. A build whose start-up fails is
/// tried again until it starts.
///
/// Signals: the first SIGTERM or SIGINT stops claiming jobs and waits for the running ones, which are told of it after
/// [worker] abort_timeout; the second, or the end of [worker] stop_timeout, cancels them and gives them back. SIGHUP reloads
/// taskbay.toml and lists the tasks folder at once.
///
/// Under systemd, `Type=notify` and `WatchdogSec=` work. A container needs no init.
///
/// Exit status: 0 done, 1 failed, 2 called wrongly, 57 the database needs a newer program, 70 internal error (start it again); after a
/// stop by signal, that signal, or 128 plus its number as process 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay run                                     the plugins in tasks/, the database from DATABASE_URL or PG*
  taskbay run /srv/tasks -c postgres://db/app -j 20
  taskbay run --once                              work what can be worked now, then end
  taskbay run --embedded-postgres --watch         try it without a database of your own")]
pub(super) struct Run {
    /// The folder with the compiled plugins [default: tasks]
    #[arg(value_name = "TASKS_DIR")]
    folder: Option<PathBuf>,
    /// Work the jobs that can run now, then end
    #[arg(long)]
    once: bool,
    /// For development: reload sooner, and start even if a file is broken or others may write to the folder
    #[arg(short, long)]
    watch: bool,
    /// Fail at once if the database is not there, instead of waiting for it
    #[arg(long)]
    no_wait: bool,
    /// Install the schema if there is none, then end; `taskbay migrate` upgrades one that is there
    #[arg(long, conflicts_with = "once")]
    schema_only: bool,
    /// Clean up instead of working jobs, as `taskbay cleanup` does: GC_TASK_IDENTIFIERS, GC_JOB_QUEUES,
    /// DELETE_PERMAFAILED_JOBS, or several of them with commas
    #[arg(
        long, value_name = "CLEANUP", value_delimiter = ',', value_parser = parse_cleanup,
        conflicts_with_all = ["once", "schema_only"]
    )]
    cleanup: Vec<CleanupTask>,
    /// Use a private Postgres in .taskbay/, started with this and made at its first start
    #[arg(long, conflicts_with = "connection")]
    embedded_postgres: bool,
    #[command(flatten)]
    worker: WorkerOptions,
    #[command(flatten)]
    database: DatabaseOptions,
}

impl Run {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        set_folder(layer, self.folder.as_ref());
        self.worker.add_to(layer);
        self.database.add_to(layer);
    }

    pub(super) async fn execute(self, given: Given) -> Result<Ending, CliError> {
        let control = Control::default();
        let received = signals::listen(&control, Hangup::Reload).map_err(CliError::system("listen for signals"))?;
        let server = if self.embedded_postgres { Some(start_embedded().await?) } else { None };
        let ended = self.work(given, server.as_ref(), control, &received).await;
        if let Some(server) = server {
            database::stop(server).await;
        }
        Ok(match ended? {
            Ending::Success => received.get().map_or(Ending::Success, Ending::Signal),
            ending => ending,
        })
    }

    async fn work(
        self,
        given: Given,
        server: Option<&EmbeddedPostgres>,
        control: Control,
        received: &Received,
    ) -> Result<Ending, CliError> {
        let settings = given.settings.clone();
        let database = database::settings(&settings, server)?;
        if self.schema_only {
            return prepare(&Database::new(database)?).await;
        }
        if !self.cleanup.is_empty() {
            let database = Database::new(database)?;
            migrate::prepare(&database).await?;
            return clean_up(&database, &self.cleanup, Vec::new(), settings, false).await;
        }
        let purpose = if self.watch { Purpose::Development } else { Purpose::Production };
        let mode = if self.once { Mode::Once } else { Mode::Continuous };
        let reload = Reload::new(given, purpose, server, control.clone());
        reload.show();
        let settings = database::known_to_plugins(settings, server).into_working_settings(database, purpose)?;
        // Who asks for one round wants to hear that it cannot be.
        let wait = !self.no_wait && !self.once;
        let _informed = service_manager::keep_informed(&control);
        control.parts.spawn("status socket", status_socket::serve(control.folder.clone()));
        let mut following = pin!(control.parts.catch("settings", reload.follow(received)));
        let mut working = pin!(host::run(settings, mode, wait, Events::default(), control));
        tokio::select! {
            ended = &mut working => ended?,
            // It only ends by a panic, at which the host stops.
            _ = &mut following => working.await?,
        }
        Ok(Ending::Success)
    }
}

/// Starts the embedded Postgres of the current folder, or joins the one that runs there.
async fn start_embedded() -> Result<EmbeddedPostgres, CliError> {
    let here = std::env::current_dir().map_err(CliError::system("find the current folder"))?;
    Ok(EmbeddedPostgres::start(&here).await?)
}
