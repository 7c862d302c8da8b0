//! Runs a list of tasks and nothing else: no folder, no schedules.

use std::sync::Arc;

use tokio::{sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Options, RunError, TaskList, resolved::Resolved, signals::Signals};
use crate::{
    events::Events,
    host::{Control, Host, HostError, HostHandle, Mode},
    queue::{AddedJob, NewJob, QueueError},
    work::{JobAdder, Pool},
};

/// Works the jobs of these tasks until the pool is told to stop. Returns when it has begun to.
///
/// A database that cannot be reached is waited for. To give up, drop the future.
///
/// ```no_run
/// use taskbay::{JobContext, Options, TaskList};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let tasks = TaskList::new().task("hello", |name: String, _: JobContext| async move {
///     println!("hello, {name}");
///     Ok(())
/// });
/// let pool = taskbay::run_task_list(Options::new(), tasks).await?;
/// tokio::signal::ctrl_c().await?;
/// pool.graceful_shutdown();
/// pool.wait().await?;
/// # Ok(())
/// # }
/// ```
pub async fn run_task_list(options: Options, tasks: TaskList) -> Result<PoolHandle, RunError> {
    PoolHandle::start(options.resolve_task_list(tasks, Mode::Continuous)?).await
}

/// Works the jobs of these tasks that can run now, and those that come of them, then ends. Jobs that are due later, and those
/// that failed and are to be tried again, are not waited for. Before it begins, it takes away locks that are older than four
/// hours.
pub async fn run_task_list_once(options: Options, tasks: TaskList) -> Result<(), RunError> {
    work_once(options.resolve_task_list(tasks, Mode::Once)?, OldLocks::TakeAway).await
}

/// What becomes of locks whose holders are taken for dead, before anything is worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OldLocks {
    TakeAway,
    Leave,
}

pub(super) async fn work_once(resolved: Resolved, old_locks: OldLocks) -> Result<(), RunError> {
    let Resolved { plan, surroundings, handle_signals } = resolved;
    let signals =
        handle_signals.then(|| Signals::listen(&plan.control.stop, &plan.events, &plan.control.parts)).transpose();
    let _until_the_end = signals.map_err(RunError::Signals)?;
    let database = plan.database.clone();
    if let Some(host) = Host::start(plan).await? {
        let _ = surroundings.worker.set(host.pool.id());
        if old_locks == OldLocks::TakeAway {
            let taken_away = async { database.session().await?.reset_locked().await };
            taken_away.await.map_err(HostError::from)?;
        }
        host.work().await?;
    }
    Ok(())
}

/// A pool that works jobs. Dropping it stops it as [`PoolHandle::graceful_shutdown`] does, without waiting for the end.
#[derive(Debug)]
pub struct PoolHandle {
    /// `None` if it was told to stop before it began.
    pool: Option<Arc<Pool>>,
    jobs: JobAdder,
    events: Events,
    control: Control,
    ended: CancellationToken,
    end: Mutex<End>,
}

#[derive(Debug)]
enum End {
    Awaited {
        work: JoinHandle<Result<(), HostError>>,
        _signals: Option<Signals>,
    },
    /// Who waits first hears why.
    Known,
}

impl PoolHandle {
    pub(super) async fn start(resolved: Resolved) -> Result<Self, RunError> {
        let Resolved { plan, surroundings, handle_signals } = resolved;
        let (events, control) = (plan.events.clone(), plan.control.clone());
        let signals = handle_signals.then(|| Signals::listen(&control.stop, &events, &control.parts)).transpose();
        let signals = signals.map_err(RunError::Signals)?;
        let host = Host::start(plan).await?;
        let pool = host.as_ref().map(|host| Arc::clone(&host.pool));
        if let Some(pool) = &pool {
            let _ = surroundings.worker.set(pool.id());
        }
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let work = tokio::spawn(async move {
            let _ended = guard;
            match host {
                Some(host) => host.work().await,
                None => Ok(()),
            }
        });
        let end = Mutex::new(End::Awaited { work, _signals: signals });
        Ok(Self { pool, jobs: surroundings.jobs, events, control, ended, end })
    }

    /// What `locked_by` says of the jobs that it runs; empty if it was told to stop before it began.
    pub fn id(&self) -> &str {
        self.pool.as_ref().map_or("", |pool| pool.owner())
    }

    /// Looks for jobs now, as a notification would make it.
    pub fn nudge(&self) {
        if let Some(pool) = &self.pool {
            pool.nudge();
        }
    }

    /// Claims no more jobs and lets those that run finish. After `abort_timeout` they are asked to end. Calling it again
    /// changes nothing. [`PoolHandle::wait`] returns when it is done.
    pub fn graceful_shutdown(&self) {
        self.control.stop.graceful.cancel();
    }

    /// Ends what runs: each job is asked, then dropped at its next await point, and given back as it was before this attempt.
    /// Calling it again changes nothing.
    pub fn forceful_shutdown(&self) {
        self.control.stop.graceful.cancel();
        self.control.stop.now.cancel();
    }

    /// Waits for the end, and says why it came if nobody asked for it. Several may wait; the first one hears the reason.
    pub async fn wait(&self) -> Result<(), RunError> {
        let mut end = self.end.lock().await;
        let End::Awaited { work, .. } = &mut *end else { return Ok(()) };
        // Nothing is lost if this future is dropped here: the next one to wait finds the same handle.
        let ended = work.await;
        *end = End::Known;
        match ended {
            Ok(result) => Ok(result?),
            Err(error) => Err(RunError::Panicked(error.to_string())),
        }
    }

    /// Adds a job, by the clock that the pool goes by.
    pub async fn add_job(&self, new: &NewJob) -> Result<AddedJob, QueueError> {
        self.jobs.add_job(new).await
    }

    /// Adds many jobs with one statement, and returns them in the order of `new`.
    pub async fn add_jobs(&self, new: &[NewJob]) -> Result<Vec<AddedJob>, QueueError> {
        self.jobs.add_jobs(new).await
    }

    /// Where its events are announced.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Reads the state of the host: its pool, tasks, schedules, folder, database and settings.
    pub fn host(&self) -> HostHandle {
        self.control.host()
    }

    /// Waits for the end, without taking the reason from who waits for it.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for PoolHandle {
    fn drop(&mut self) {
        self.graceful_shutdown();
    }
}
