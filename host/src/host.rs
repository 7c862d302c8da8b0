//! A host: starts the stages in order, works jobs, stops the stages in reverse.
//!
//! ```text
//! built-in tasks ─▶ tasks folder ─▶ (database prepared) ─▶ listener ─▶ revision watch ─▶ schedules ─▶ pool
//! ```

mod control;
mod error;
mod facts;
mod handle;
mod stage;
mod stages;

use std::{panic::resume_unwind, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_util::{sync::DropGuard, task::AbortOnDropHandle};

pub use self::{
    control::Control,
    error::HostError,
    handle::{DatabaseSnapshot, HostHandle, HostState},
};
use self::{
    stage::Stages,
    stages::{BuiltInTasks, Folder, Listener, Schedules},
};
pub use crate::work::{Mode, Stop};
use crate::{
    blocking::off_the_runtime,
    config::{CronSettings, FolderSettings, PluginLookup, Settings, WorkerSettings},
    cron::{Cron, CronSources, PluginSchedule, ServedTasks, SystemClock},
    events::{Event, Events},
    migrate::{self, MigrateError, Revision},
    plugin::{BuiltInTask, Generation, HostServices},
    queue::Database,
    revision_watch::RevisionWatch,
    start_up::prepare_when_there,
    tasks::{LiveTaskMap, Rejection, TasksFolder},
    work::{JobAdder, PluginJobs, Pool, PreparedPool},
};

/// How long a host without one of its parts may take to stop …
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// … and then to give back what that left behind. Other hosts release the rest.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

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
    stages: Stages,
    events: Events,
    stop: Stop,
    /// The host shows that it has ended.
    _ended: DropGuard,
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
    /// Prepares the database and starts all stages. `None` if it was told to stop before it came that far.
    pub(crate) async fn start(plan: Plan) -> Result<Option<Self>, HostError> {
        let control = plan.control.clone();
        let events = plan.events.clone().of_host(control.parts.clone());
        let ended = control.facts.ended.clone().drop_guard();
        let mut stages = Stages::new(control.parts.clone(), &control.stop.graceful);
        let parts = &control.parts;
        let started = {
            let mut starting = pin!(parts.catch("start", start(plan, &events, &mut stages)));
            tokio::select! {
                biased;
                failure = parts.failed() => Err(HostError::Part(failure)),
                started = &mut starting => match started {
                    Ok(started) => started,
                    Err(_) => Err(HostError::Part(parts.failed().await)),
                },
            }
        };
        if let Ok(Some((pool, prepared))) = started {
            control.ready.cancel();
            return Ok(Some(Self { pool, prepared, stages, events, stop: control.stop, _ended: ended }));
        }
        // The reason for the end is that of the start, whatever the stages come to.
        let _ = stages.stop().await;
        if started.is_ok() {
            events.emit(Event::Stopped);
        }
        started.map(|_| None)
    }

    /// Works jobs until told to stop, or in [`Mode::Once`] until no job is left that can run now. Without one of its parts, it
    /// stops at once.
    pub(crate) async fn work(self) -> Result<(), HostError> {
        let (pool, events, stop) = (Arc::clone(&self.pool), self.events.clone(), self.stop.clone());
        let parts = events.parts();
        let mut working = pin!(parts.catch("wiring", self.work_until_stopped()));
        let ended = tokio::select! {
            biased;
            _ = parts.failed() => None,
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
        let Self { prepared, stages, events, _ended, .. } = self;
        prepared.run().await;
        let ended = stages.stop().await;
        events.emit(Event::Stopped);
        ended
    }
}

/// Starts the stages in order. `None` if the host was told to stop meanwhile; then, as after an error, those that were started are to
/// be stopped.
async fn start(
    plan: Plan,
    events: &Events,
    stages: &mut Stages,
) -> Result<Option<(Arc<Pool>, PreparedPool)>, HostError> {
    let Plan { database, control, mode, wait, worker, .. } = plan;
    let (facts, once) = (&control.facts, mode == Mode::Once);
    let listen = !once && worker.listen;
    let built_in = match plan.tasks {
        tasks if tasks.is_empty() => None,
        tasks => Some(Generation::built_in(tasks, &plan.plugins.defaults, events.clone()).map_err(HostError::Tasks)?),
    };
    let tasks = Arc::new(built_in.clone().map_or_else(LiveTaskMap::default, LiveTaskMap::with_built_in));
    let adder = JobAdder::new(database.clone(), &worker);
    let pool = Pool::new(worker, mode, database.clone(), Arc::clone(&tasks), events.clone(), control.stop.clone());
    facts.know_pool(&pool, &database);
    let prepared = prepare(&pool, &database, wait, events);
    let tolerate_broken = plan.folder.as_ref().is_some_and(|folder| folder.tolerate_broken_start);
    let cron = match plan.cron.filter(|_| !once) {
        Some(settings) => Some(open_cron(settings, tolerate_broken, &database, &tasks, events).await?),
        None => None,
    };

    if let Some(built_in) = built_in {
        stages.start(BuiltInTasks(built_in));
    }
    // A folder that is being built into needs nobody to be told that it is empty.
    let path = plan.folder.as_ref().filter(|settings| !settings.filled_by_builds).map(|settings| settings.path.clone());
    if let Some(settings) = plan.folder {
        let services =
            HostServices { add_job: Arc::new(PluginJobs::new(adder)), events: events.clone(), program: plan.program };
        let mut folder = TasksFolder::new(settings, plan.plugins, services, Arc::clone(&tasks));
        folder.answer(&control.folder);
        let (folder, rejections) = folder.load_all().await?;
        stages.start(Folder { folder, rescan: Arc::clone(&control.rescan), once });
        facts.know_folder();
        let broken: Vec<Rejection> = rejections.into_iter().filter(|one| !one.passing).collect();
        if !tolerate_broken && !broken.is_empty() {
            return Err(HostError::BrokenFiles(broken));
        }
    }

    let prepared = tokio::select! {
        () = control.stop.graceful.cancelled() => return Ok(None),
        prepared = prepared => prepared,
    };
    let (revision, prepared) = prepared.unwrap_or_else(|error| resume_unwind(error.into_panic()))?;
    facts.know_revision(&revision);
    events.emit(Event::SchemaReady {
        number: revision.number,
        installed: revision.installed,
        warning: revision.warning(),
    });
    if let Some(path) = path.filter(|_| tasks.load().identifiers().len() == 0) {
        if once {
            return Err(HostError::NoTasks(path));
        }
        events.emit(Event::NoTasks { folder: path });
    }

    let (revision_watch, heard) = mpsc::unbounded_channel();
    if listen {
        let (database, events, pool) = (database.clone(), events.clone(), Arc::clone(&pool));
        stages.start(Listener { database, events, pool, revision_watch });
    }
    stages.start(RevisionWatch {
        database,
        heard,
        events: events.clone(),
        stop: control.stop.clone(),
        known: revision,
    });
    if let Some((cron, passed_on)) = cron {
        facts.know_schedules(cron.handle());
        let (declared, graceful) = (tasks.schedules(), control.stop.graceful.clone());
        stages.start(Schedules { cron, declared, passed_on, graceful });
    }
    Ok(Some((pool, prepared)))
}

/// Prepares the database and the pool beside the loading of plugins. Dropping it half-way leaves nothing behind: an installation is
/// one transaction.
fn prepare(
    pool: &Arc<Pool>,
    database: &Database,
    wait: bool,
    events: &Events,
) -> AbortOnDropHandle<Result<(Revision, PreparedPool), MigrateError>> {
    let (pool, database, own_events) = (Arc::clone(pool), database.clone(), events.clone());
    AbortOnDropHandle::new(events.parts().spawn("preparation of the database", async move {
        let revision =
            if wait { prepare_when_there(&database, &own_events).await? } else { migrate::prepare(&database).await? };
        Ok((revision, PreparedPool::new(&pool)))
    }))
}

/// Reads the crontab. The schedules of plugins come by the sender.
async fn open_cron(
    settings: CronSettings,
    tolerate_broken: bool,
    database: &Database,
    tasks: &Arc<LiveTaskMap>,
    events: &Events,
) -> Result<(Cron, watch::Sender<Vec<PluginSchedule>>), HostError> {
    let (declared, plugins) = watch::channel(Vec::new());
    let CronSettings { crontab, items } = settings;
    let sources = CronSources { crontab, items, plugins, served: Arc::clone(tasks) as _ };
    let (database, clock, events) = (database.clone(), Arc::new(SystemClock), events.clone());
    let cron = off_the_runtime(move || Cron::open(sources, tolerate_broken, database, clock, events)).await?;
    Ok((cron, declared))
}

impl ServedTasks for LiveTaskMap {
    fn names(&self) -> Vec<String> {
        self.load().identifiers().map(str::to_owned).collect()
    }
}
