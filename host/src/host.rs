//! The wiring: starts the stages, stops them in reverse, takes the stop signal as an argument.

use std::{path::PathBuf, sync::Arc, time::Duration};

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
    #[error("there is nothing to do: the tasks folder {} has no task; put a compiled plugin there, or name another folder", .0.display())]
    NoTasks(PathBuf),
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
    let revision = migrate::prepare(&database).await?;
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
    let folder_path = settings.folder.path.clone();
    let mut folder = TasksFolder::new(settings.folder, settings.plugins, services, Arc::clone(&tasks));
    let rejections = folder.load_all().await?;
    if !rejections.is_empty() && !tolerate_broken {
        folder.stop(RETIRE_WITHIN).await;
        return Err(HostError::BrokenFiles(rejections));
    }
    if tasks.load().identifiers().len() == 0 {
        if mode == Mode::Once {
            folder.stop(RETIRE_WITHIN).await;
            return Err(HostError::NoTasks(folder_path));
        }
        events.emit(Event::NoTasks { folder: folder_path });
    }

    let background = CancellationToken::new();
    let (notify, notifications) = mpsc::channel(NOTIFICATIONS);
    let listener = (mode == Mode::Continuous)
        .then(|| tokio::spawn(queue::listen(database.clone(), notify, events.clone(), background.clone())));
    let watching = tokio::spawn(folder.run(background.clone(), control.rescan));

    let pool = Pool::new(settings.worker, mode, database, tasks, events.clone(), control.stop);
    pool.run(notifications).await;

    background.cancel();
    if let Some(listener) = listener {
        let _ = listener.await;
    }
    if let Ok(folder) = watching.await {
        folder.stop(RETIRE_WITHIN).await;
    }
    events.emit(Event::Stopped);
    Ok(())
}
