//! The stages of a host.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{error::HostError, stage::Stage};
use crate::{
    cron::{Cron, PluginSchedule},
    events::Events,
    listener,
    migrate::MigrateError,
    parts::{Part, Parts},
    plugin::Generation,
    queue::{Database, Notification},
    revision_watch::RevisionWatch,
    tasks::{DeclaredSchedule, TasksFolder},
    work::Pool,
};

/// How long plugins may take to end when the host does.
const RETIRE_WITHIN: Duration = Duration::from_secs(5);

/// The tasks that are compiled into this program.
pub(super) struct BuiltInTasks(pub(super) Arc<Generation>);

impl Stage for BuiltInTasks {
    const NAME: &'static str = "built-in tasks";
    type Rest = Arc<Generation>;

    async fn run(self, stop: CancellationToken) -> Arc<Generation> {
        stop.cancelled().await;
        self.0
    }

    async fn stop(generation: Arc<Generation>) -> Result<(), HostError> {
        if timeout(RETIRE_WITHIN, generation.retire()).await.is_err() {
            generation.kill().await;
        }
        Ok(())
    }
}

/// The plugins and executables of the tasks folder, all loaded.
pub(super) struct Folder {
    pub(super) folder: TasksFolder,
    pub(super) rescan: Arc<Notify>,
    /// A file that did not start until the end is an error.
    pub(super) once: bool,
}

impl Stage for Folder {
    const NAME: &'static str = "tasks folder";
    type Rest = (TasksFolder, bool);

    fn part(&self, _: &Parts) -> Part {
        self.folder.part()
    }

    async fn run(self, stop: CancellationToken) -> (TasksFolder, bool) {
        (self.folder.run(stop, self.rescan).await, self.once)
    }

    async fn stop((folder, once): (TasksFolder, bool)) -> Result<(), HostError> {
        let not_started = folder.not_started();
        folder.stop(RETIRE_WITHIN).await;
        if once && !not_started.is_empty() { Err(HostError::NotStarted(not_started)) } else { Ok(()) }
    }
}

/// Passes notifications of the database to the pool and to the revision watch.
pub(super) struct Listener {
    pub(super) database: Database,
    pub(super) events: Events,
    pub(super) pool: Arc<Pool>,
    pub(super) revision_watch: mpsc::UnboundedSender<Notification>,
}

impl Stage for Listener {
    const NAME: &'static str = "listener";
    type Rest = ();

    async fn run(self, stop: CancellationToken) {
        let Self { database, events, pool, revision_watch } = self;
        let hear = move |notification| {
            pool.hear(notification);
            if !matches!(notification, Notification::JobsAdded(_)) {
                // During a stop, the revision watch has ended already.
                let _ = revision_watch.send(notification);
            }
        };
        listener::listen(database, hear, events, stop).await;
    }
}

impl Stage for RevisionWatch {
    const NAME: &'static str = "revision watch";
    type Rest = Option<MigrateError>;

    async fn run(self, stop: CancellationToken) -> Option<MigrateError> {
        stop.run_until_cancelled(Self::run(self)).await
    }

    async fn stop(outdated: Option<MigrateError>) -> Result<(), HostError> {
        outdated.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Adds jobs by the clock.
pub(super) struct Schedules {
    pub(super) cron: Cron,
    /// The schedules that plugins declare, as the task map and as cron have them.
    pub(super) declared: watch::Receiver<Vec<DeclaredSchedule>>,
    pub(super) passed_on: watch::Sender<Vec<PluginSchedule>>,
    /// No job is added while running jobs are waited for.
    pub(super) graceful: CancellationToken,
}

impl Stage for Schedules {
    const NAME: &'static str = "schedules";
    type Rest = ();

    async fn run(self, stop: CancellationToken) {
        tokio::select! {
            // First, so that the plugins' schedules are there when cron starts.
            biased;
            () = pass_on(self.declared, &self.passed_on) => {}
            () = self.cron.run(self.graceful) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Tells cron, which does not know of plugins, of what they declare. Goes on for ever.
async fn pass_on(mut declared: watch::Receiver<Vec<DeclaredSchedule>>, schedules: &watch::Sender<Vec<PluginSchedule>>) {
    loop {
        let renamed = |one: &DeclaredSchedule| {
            let DeclaredSchedule { plugin, task, schedule } = one.clone();
            PluginSchedule { plugin, task, schedule }
        };
        schedules.send_replace(declared.borrow_and_update().iter().map(renamed).collect());
        if declared.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
