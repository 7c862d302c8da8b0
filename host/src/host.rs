//! The wiring: starts the stages, stops them in reverse, takes the stop signal as an argument.

use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

pub use crate::work::{Mode, Stop};
use crate::{
    config::Settings,
    events::{Event, Events},
    migrate::{self, MigrateError},
    plugin::HostServices,
    queue::{self, Database, QueueError},
    revision_watch::RevisionWatch,
    start_up::prepare_when_there,
    tasks::{FolderError, LiveTaskMap, Rejection, TasksFolder},
    work::{PluginJobs, Pool},
};

/// How many notifications may wait for the pool; each only says "look again".
const NOTIFICATIONS: usize = 64;
/// How long plugins may take to end when the host does.
const RETIRE_WITHIN: Duration = Duration::from_secs(5);

/// Why the host did not start. Once it runs, nothing but a stop signal ends it.
#[derive(Debug, Error)]
pub enum HostError {
    #[error(transparent)]
    Database(#[from] QueueError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("not starting: {} of the tasks folder cannot be loaded, see above; mend or remove {}, or use --watch to start without",
        if .0.len() == 1 { "a file" } else { "some files" }, if .0.len() == 1 { "it" } else { "them" })]
    BrokenFiles(Vec<Rejection>),
}

/// Signals from outside.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Ends the host.
    pub stop: Stop,
    /// Lists the tasks folder now.
    pub rescan: Arc<Notify>,
}

/// Runs the host until it is told to stop, or in [`Mode::Once`] until no job is left that can run now.
pub async fn run(settings: Settings, mode: Mode, events: Events, control: Control) -> Result<(), HostError> {
    let database = Database::new(settings.database)?;
    let revision = match mode {
        // Dropping it half-way leaves nothing behind: an installation is one transaction.
        Mode::Continuous => tokio::select! {
            () = control.stop.graceful.cancelled() => return Ok(()),
            prepared = prepare_when_there(&database, &events) => prepared?,
        },
        // Who asks for one round wants to hear that it cannot be.
        Mode::Once => migrate::prepare(&database).await?,
    };
    events.emit(Event::SchemaReady {
        number: revision.number,
        installed: revision.installed,
        warning: revision.warning(),
    });

    let tasks = Arc::new(LiveTaskMap::default());
    let services = HostServices {
        add_job: Arc::new(PluginJobs::new(database.clone())),
        events: events.clone(),
        program: settings.program,
    };
    let tolerate_broken = settings.folder.tolerate_broken_start;
    let mut folder = TasksFolder::new(settings.folder, settings.plugins, services, Arc::clone(&tasks));
    let rejections = folder.load_all().await?;
    if !rejections.is_empty() && !tolerate_broken {
        folder.stop(RETIRE_WITHIN).await;
        return Err(HostError::BrokenFiles(rejections));
    }

    let background = CancellationToken::new();
    let (notify, notifications) = mpsc::channel(NOTIFICATIONS);
    let listener = (mode == Mode::Continuous && settings.worker.listen)
        .then(|| tokio::spawn(queue::listen(database.clone(), notify, events.clone(), background.clone())));
    let (to_pool, heard_by_pool) = mpsc::channel(NOTIFICATIONS);
    let watch = RevisionWatch {
        database: database.clone(),
        heard: notifications,
        pool: to_pool,
        events: events.clone(),
        stop: control.stop.clone(),
        known: revision,
    };
    let revision_watch = tokio::spawn({
        let background = background.clone();
        async move { background.run_until_cancelled(watch.run()).await }
    });
    let watching = tokio::spawn(folder.run(background.clone(), control.rescan));

    let pool = Pool::new(settings.worker, mode, database, tasks, events.clone(), control.stop);
    pool.run(heard_by_pool).await;

    background.cancel();
    if let Some(listener) = listener {
        let _ = listener.await;
    }
    if let Ok(folder) = watching.await {
        folder.stop(RETIRE_WITHIN).await;
    }
    events.emit(Event::Stopped);
    match revision_watch.await {
        Ok(Some(outdated)) => Err(outdated.into()),
        _ => Ok(()),
    }
}
