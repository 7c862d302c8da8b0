//! The wiring: starts the stages, stops them in reverse, takes the stop signal as an argument.

use std::{panic::resume_unwind, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub use crate::work::{Mode, Stop};
use crate::{
    blocking::off_the_runtime,
    config::{CronSettings, FolderSettings, PluginLookup, Settings, WorkerSettings},
    cron::{Cron, CronError, CronSources, PluginSchedule, ServedTasks, SystemClock},
    events::{Event, Events},
    listener,
    migrate::{self, MigrateError, Revision},
    parts::{PartFailure, Parts},
    plugin::{BuiltInTask, Generation, HostServices},
    queue::{Database, Notification, QueueError},
    revision_watch::RevisionWatch,
    start_up::prepare_when_there,
    tasks::{DeclaredSchedule, FolderError, FolderHandle, LiveTaskMap, Rejection, TasksFolder},
    work::{JobAdder, PluginJobs, Pool, PreparedPool},
};

/// How long plugins may take to end when the host does.
const RETIRE_WITHIN: Duration = Duration::from_secs(5);
/// How long the host waits for the loop of its tasks folder to end when it has to end itself. Its plugins are killed then.
const LISTED_WITHIN: Duration = Duration::from_secs(10);
/// How long a host without one of its parts may take to stop …
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// … and then to give back what that left behind. Other hosts release the rest.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

/// Why the host did not start, or why it ended although nobody told it to.
#[derive(Debug, Error)]
pub enum HostError {
    #[error(transparent)]
    Database(#[from] QueueError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Cron(#[from] CronError),
    #[error("not starting, because of the tasks folder: {}; to start without, use --watch",
        .0.iter().map(|one| format!("{}: {}", one.file, one.reason)).collect::<Vec<_>>().join("; "))]
    BrokenFiles(Vec<Rejection>),
    /// In [`Mode::Once`]; the others have done what there was to do.
    #[error("{} did not start, see above, so {} jobs were not run", .0.join(", "),
        if .0.len() == 1 { "its" } else { "their" })]
    NotStarted(Vec<String>),
    /// The tasks that are compiled into this program.
    #[error("not starting: the list of tasks {0}")]
    Tasks(String),
    #[error("there is nothing to do: the tasks folder {} has no task; put a compiled plugin there, or name another folder", .0.display())]
    NoTasks(PathBuf),
    /// A bug of this program, and no reason not to start it again.
    #[error("the host stopped because of an internal error: {0}. Please report this; it can be started again")]
    Part(PartFailure),
}

/// Signals from outside.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Ends the host.
    pub stop: Stop,
    /// Given when the database is prepared and the plugins are loaded.
    pub ready: CancellationToken,
    /// Lists the tasks folder now.
    pub rescan: Arc<Notify>,
    /// The parts of the host that is controlled, of which there is one.
    pub(crate) parts: Parts,
    /// Asks the tasks folder what it has come to, and has it go by other settings.
    pub folder: FolderHandle,
}

/// What a host is made of.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) database: Database,
    /// The tasks that are compiled into this program.
    pub(crate) tasks: Vec<BuiltInTask>,
    /// The folder with plugins, if there is to be one.
    pub(crate) folder: Option<FolderSettings>,
    pub(crate) plugins: PluginLookup,
    pub(crate) program: PathBuf,
    pub(crate) worker: WorkerSettings,
    /// Which schedules there are, if there are to be any. Never in [`Mode::Once`].
    pub(crate) cron: Option<CronSettings>,
    pub(crate) mode: Mode,
    /// Whether to wait for a database that is not there yet.
    pub(crate) wait: bool,
    pub(crate) events: Events,
    pub(crate) control: Control,
}

/// A host that is ready to work. Dropping it ends its plugins.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) pool: Arc<Pool>,
    prepared: PreparedPool,
    database: Database,
    revision: Revision,
    listen: bool,
    once: bool,
    built_in: Option<Arc<Generation>>,
    folder: Option<TasksFolder>,
    tasks: Arc<LiveTaskMap>,
    cron: Option<(Cron, watch::Sender<Vec<PluginSchedule>>)>,
    events: Events,
    control: Control,
}

/// Runs the host until it is told to stop, or in [`Mode::Once`] until no job is left that can run now. With `wait`, it waits for a
/// database that is not there yet, as after a restart of the whole machine; without, that is an error.
pub async fn run(
    settings: Settings,
    mode: Mode,
    wait: bool,
    events: Events,
    control: Control,
) -> Result<(), HostError> {
    let plan = Plan {
        database: Database::new(settings.database)?,
        tasks: Vec::new(),
        folder: Some(settings.folder),
        plugins: settings.plugins,
        program: settings.program,
        worker: settings.worker,
        cron: Some(settings.cron),
        mode,
        wait,
        events,
        control,
    };
    match Host::start(plan).await? {
        Some(host) => host.work().await,
        None => Ok(()),
    }
}

impl Host {
    /// Prepares the database and loads all tasks. `None` if it was told to stop before it came that far.
    pub(crate) async fn start(plan: Plan) -> Result<Option<Self>, HostError> {
        let parts = plan.control.parts.clone();
        let started = parts.catch("start", Self::prepare(plan)).await;
        started.unwrap_or_else(|panic| match parts.failure() {
            Some(failure) => Err(HostError::Part(failure)),
            None => resume_unwind(panic),
        })
    }

    async fn prepare(plan: Plan) -> Result<Option<Self>, HostError> {
        let Plan { database, events, control, mode, wait, worker, .. } = plan;
        let events = events.of_host(control.parts.clone());
        let built_in = match plan.tasks {
            tasks if tasks.is_empty() => None,
            tasks => {
                let settings = &plan.plugins.defaults;
                Some(Generation::built_in(tasks, settings, events.clone()).map_err(HostError::Tasks)?)
            }
        };
        let tasks = Arc::new(built_in.clone().map_or_else(LiveTaskMap::default, LiveTaskMap::with_built_in));
        let listen = mode == Mode::Continuous && worker.listen;
        let adder = JobAdder::new(database.clone(), &worker);
        let stop = control.stop.clone();
        let pool = Pool::new(worker, mode, database.clone(), Arc::clone(&tasks), events.clone(), stop);
        // Beside the loading of plugins. Dropping it half-way leaves nothing behind: an installation is one transaction.
        let prepared = AbortOnDropHandle::new(events.parts().spawn("preparation of the database", {
            let (pool, database, events) = (Arc::clone(&pool), database.clone(), events.clone());
            async move {
                let revision = if wait {
                    prepare_when_there(&database, &events).await?
                } else {
                    migrate::prepare(&database).await?
                };
                Ok((revision, PreparedPool::new(&pool)))
            }
        }));
        let services =
            HostServices { add_job: Arc::new(PluginJobs::new(adder)), events: events.clone(), program: plan.program };
        let tolerate_broken = plan.folder.as_ref().is_some_and(|folder| folder.tolerate_broken_start);
        let cron = match plan.cron.filter(|_| mode == Mode::Continuous) {
            Some(CronSettings { crontab, items }) => {
                let (declared, plugins) = watch::channel(Vec::new());
                let sources = CronSources { crontab, items, plugins, served: Arc::clone(&tasks) as _ };
                let (database, clock, events) = (database.clone(), Arc::new(SystemClock), events.clone());
                // It reads the crontab.
                let open = move || Cron::open(sources, tolerate_broken, database, clock, events);
                Some((off_the_runtime(open).await?, declared))
            }
            None => None,
        };
        let mut folder = None;
        // A folder that is being built into needs nobody to be told that it is empty.
        let path =
            plan.folder.as_ref().filter(|settings| !settings.filled_by_builds).map(|settings| settings.path.clone());
        if let Some(settings) = plan.folder {
            let mut loaded = TasksFolder::new(settings, plan.plugins, services, Arc::clone(&tasks));
            loaded.answer(&control.folder);
            let (loaded, rejections) = loaded.load_all().await?;
            folder = Some(loaded);
            let broken: Vec<Rejection> = rejections.into_iter().filter(|one| !one.passing).collect();
            if let Some(folder) = folder.take_if(|_| !tolerate_broken && !broken.is_empty()) {
                folder.stop(RETIRE_WITHIN).await;
                return Err(HostError::BrokenFiles(broken));
            }
        }
        let prepared = tokio::select! {
            () = control.stop.graceful.cancelled() => None,
            prepared = prepared => Some(prepared.unwrap_or_else(|error| resume_unwind(error.into_panic()))),
        };
        let (revision, prepared) = match prepared {
            Some(Ok(prepared)) => prepared,
            ended => {
                if let Some(folder) = folder {
                    folder.stop(RETIRE_WITHIN).await;
                }
                ended.transpose().map_err(HostError::Migrate)?;
                events.emit(Event::Stopped);
                return Ok(None);
            }
        };
        events.emit(Event::SchemaReady {
            number: revision.number,
            installed: revision.installed,
            warning: revision.warning(),
        });
        if let Some(path) = path.filter(|_| tasks.load().identifiers().len() == 0) {
            if let Some(folder) = folder.take_if(|_| mode == Mode::Once) {
                folder.stop(RETIRE_WITHIN).await;
                return Err(HostError::NoTasks(path));
            }
            events.emit(Event::NoTasks { folder: path });
        }
        let once = mode == Mode::Once;
        Ok(Some(Self {
            pool,
            prepared,
            database,
            revision,
            listen,
            once,
            built_in,
            folder,
            tasks,
            cron,
            events,
            control,
        }))
    }

    /// Works jobs until told to stop, or in [`Mode::Once`] until no job is left that can run now. Without one of its parts, it
    /// stops at once.
    pub(crate) async fn work(self) -> Result<(), HostError> {
        let (pool, events, stop) = (Arc::clone(&self.pool), self.events.clone(), self.control.stop.clone());
        let parts = events.parts();
        let mut working = pin!(parts.catch("wiring", self.work_until_stopped()));
        let ended = tokio::select! {
            biased;
            () = parts.failed() => None,
            ended = &mut working => Some(ended),
        };
        let Some(failure) = parts.failure() else {
            return ended.transpose().unwrap_or_else(|panic| resume_unwind(panic)).unwrap_or(Ok(()));
        };
        events.emit(Event::PartFailed(failure.clone()));
        stop.graceful.cancel();
        stop.now.cancel();
        let has_stopped = ended.is_some() || tokio::time::timeout(STOP_WITHIN, &mut working).await.is_ok();
        // What may still run is released by other hosts, when this process and its plugins are gone.
        if has_stopped {
            let _ = tokio::time::timeout(GIVE_BACK_WITHIN, pool.release_all()).await;
        }
        Err(HostError::Part(failure))
    }

    async fn work_until_stopped(self) -> Result<(), HostError> {
        let Self { pool, prepared, database, events, control, .. } = self;
        control.ready.cancel();
        let (background, listening) = (CancellationToken::new(), CancellationToken::new());
        // Before this is cancelled, none of the parts may end.
        let over = control.stop.graceful.child_token();
        let part = |name| events.parts().part(name);
        // If this future is dropped, nothing stays behind.
        let _ended = (background.clone().drop_guard(), listening.clone().drop_guard());
        let (to_watch, heard) = mpsc::unbounded_channel();
        let hear = {
            let pool = Arc::clone(&pool);
            move |notification| {
                pool.hear(notification);
                if !matches!(notification, Notification::JobsAdded(_)) {
                    // Without anybody who watches the revision, nobody has to know.
                    let _ = to_watch.send(notification);
                }
            }
        };
        let listener = self.listen.then(|| {
            let listen = listener::listen(database.clone(), hear, events.clone(), listening.clone());
            part("listener").spawn(over.clone(), listen)
        });
        let watch =
            RevisionWatch { database, heard, events: events.clone(), stop: control.stop.clone(), known: self.revision };
        let revision_watch = part("revision watch").spawn(over.clone(), {
            let background = background.clone();
            async move { background.run_until_cancelled(watch.run()).await }
        });
        let cron = self.cron.map(|(cron, declared)| {
            let (schedules, stop) = (self.tasks.schedules(), background.clone());
            let graceful = control.stop.graceful.clone();
            part("schedules").spawn(over.clone(), async move {
                tokio::select! {
                    // First, so that the plugins' schedules are there when cron starts.
                    biased;
                    () = pass_on(schedules, &declared) => {}
                    () = cron.run(graceful) => {}
                    () = stop.cancelled() => {}
                }
            })
        });
        let watching = self.folder.map(|folder| {
            let part = folder.part();
            part.spawn(over.clone(), folder.run(background.clone(), control.rescan))
        });

        prepared.run().await;

        over.cancel();
        background.cancel();
        // The plugins first: they take the longest.
        let mut not_started = Vec::new();
        if let Some(watching) = watching
            && let Ok(Ok(folder)) = tokio::time::timeout(LISTED_WITHIN, watching).await
        {
            not_started = folder.not_started();
            folder.stop(RETIRE_WITHIN).await;
        }
        if let Some(built_in) = self.built_in
            && tokio::time::timeout(RETIRE_WITHIN, built_in.retire()).await.is_err()
        {
            built_in.kill().await;
        }
        if let Some(cron) = cron {
            let _ = cron.await;
        }
        listening.cancel();
        if let Some(listener) = listener {
            let _ = listener.await;
        }
        events.emit(Event::Stopped);
        match revision_watch.await {
            Ok(Some(outdated)) => Err(outdated.into()),
            // Who asks for one round wants to hear what was left out.
            _ if self.once && !not_started.is_empty() => Err(HostError::NotStarted(not_started)),
            _ => Ok(()),
        }
    }
}

impl ServedTasks for LiveTaskMap {
    fn names(&self) -> Vec<String> {
        self.load().identifiers().map(str::to_owned).collect()
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
