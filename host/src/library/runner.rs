//! Runs a host inside this program: tasks of its own, a folder of plugins, or both.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use thiserror::Error;

use super::{
    Options, PoolHandle, RunError,
    pool_handle::{OldLocks, work_once},
};
use crate::{
    events::Events,
    host::{HostHandle, Mode},
    queue::{AddedJob, NewJob, QueueError},
};

/// How long [`Runner::kill`] lets jobs finish.
const KILL_AFTER: Duration = Duration::from_millis(500);

/// Starts a host, and returns when it has begun to work. A database that cannot be reached is waited for, and announced; to
/// give up, drop the future.
pub async fn run(options: Options) -> Result<Runner, RunError> {
    let pool = PoolHandle::start(options.resolve(Mode::Continuous)?).await?;
    Ok(Runner { pool, stopped: AtomicBool::new(false) })
}

/// Works the jobs that can run now, and those that come of them, then ends. Jobs that are due later, and those that failed
/// and are to be tried again, are not waited for. To end it earlier, keep a part of [`Options::control`].
pub async fn run_once(options: Options) -> Result<(), RunError> {
    work_once(options.resolve(Mode::Once)?, OldLocks::Leave).await
}

/// A host that runs. Dropping it stops it as [`Runner::stop`] does, without waiting for the end.
#[derive(Debug)]
pub struct Runner {
    pool: PoolHandle,
    stopped: AtomicBool,
}

/// A runner was told to stop for the second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the runner was already stopped; to end what still runs, call Runner::kill")]
pub struct AlreadyStopped;

impl Runner {
    /// Claims no more jobs and waits until those that run have finished; after `abort_timeout` they are asked to end. The
    /// second call is an error. Why the host ended, if something else was the cause, is for [`Runner::wait`] to tell.
    pub async fn stop(&self) -> Result<(), AlreadyStopped> {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return Err(AlreadyStopped);
        }
        self.pool.graceful_shutdown();
        self.pool.ended().await;
        Ok(())
    }

    /// As [`Runner::stop`], but after half a second running jobs are ended, and fail. It may follow a stop.
    pub async fn kill(&self) {
        self.stopped.store(true, Ordering::Release);
        self.pool.graceful_shutdown();
        if tokio::time::timeout(KILL_AFTER, self.pool.ended()).await.is_err() {
            self.pool.forceful_shutdown();
            self.pool.ended().await;
        }
    }

    /// Waits for the end, and says why it came if nobody asked for it. Several may wait; the first one hears the reason.
    pub async fn wait(&self) -> Result<(), RunError> {
        self.pool.wait().await
    }

    /// Adds a job, by the clock that the host goes by.
    pub async fn add_job(&self, new: &NewJob) -> Result<AddedJob, QueueError> {
        self.pool.add_job(new).await
    }

    /// Adds many jobs with one statement, and returns them in the order of `new`.
    pub async fn add_jobs(&self, new: &[NewJob]) -> Result<Vec<AddedJob>, QueueError> {
        self.pool.add_jobs(new).await
    }

    /// Where its events are announced.
    pub fn events(&self) -> &Events {
        self.pool.events()
    }

    /// Reads the state of the host: its pool, tasks, schedules, folder, database and settings.
    pub fn host(&self) -> HostHandle {
        self.pool.host()
    }

    /// The pool that works its jobs.
    pub fn pool(&self) -> &PoolHandle {
        &self.pool
    }
}
