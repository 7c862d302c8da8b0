//! Claims jobs for the tasks of the current map, as many as there are free slots, and hands them to executions.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::task::TaskTracker;

use super::{
    backoff::Backoff,
    completion::Completions,
    execution::Execution,
    pool::{Mode, Pool},
};
use crate::{
    queue::{Job, QueueError, Session},
    tasks::TaskMap,
};

/// The most jobs that one statement claims.
const LARGEST_BATCH: usize = 500;

/// The claiming loop and what it keeps between two claims.
#[derive(Debug)]
pub(super) struct Fetcher {
    pool: Arc<Pool>,
    completions: Completions,
    executions: TaskTracker,
    /// Changes when tasks appear or vanish.
    map_changed: watch::Receiver<u64>,
    session: Option<Session>,
    registered: Registered,
    backoff: Backoff,
}

/// The database's numbers for the tasks of one map.
#[derive(Debug, Default)]
struct Registered {
    epoch: u64,
    ids: Vec<i32>,
    names: HashMap<i32, Arc<str>>,
}

impl Fetcher {
    pub(super) fn new(pool: Arc<Pool>, completions: Completions, executions: TaskTracker) -> Self {
        Self {
            map_changed: pool.tasks.subscribe(),
            backoff: Backoff::new("claim jobs", pool.events.clone()),
            session: None,
            registered: Registered::default(),
            pool,
            completions,
            executions,
        }
    }

    /// Claims until told to stop, or in [`Mode::Once`] until nothing is left.
    ///
    /// A claim that has begun is always awaited: abandoned half-way, it could lock jobs that nobody knows of. What it
    /// brings after a stop signal goes to executions like any other; they give it back.
    pub(super) async fn run(mut self) {
        loop {
            let slots = tokio::select! {
                biased;
                () = self.pool.stop.graceful.cancelled() => return,
                slots = self.free_slots() => slots,
            };
            let idle_before = self.pool.unsettled.load(Ordering::Acquire) == 0;
            self.map_changed.mark_unchanged();
            let wanted = slots.num_permits();
            let jobs = match self.claim(wanted).await {
                Ok(jobs) => {
                    self.backoff.succeeded();
                    jobs
                }
                Err(error) => {
                    drop(slots);
                    self.session = None;
                    tokio::select! {
                        () = self.pool.stop.graceful.cancelled() => return,
                        () = self.backoff.wait(&error) => continue,
                    }
                }
            };
            let claimed = jobs.len();
            self.dispatch(jobs, slots);
            if claimed == wanted {
                continue;
            }
            if claimed == 0 && idle_before && self.pool.mode == Mode::Once {
                return;
            }
            tokio::select! {
                () = self.pool.stop.graceful.cancelled() => return,
                () = self.pool.nudge.notified() => {}
                _ = self.map_changed.changed() => {}
                () = tokio::time::sleep(self.pool.settings.poll_interval) => {}
            }
        }
    }

    /// Waits for a free slot, then takes all that are free.
    async fn free_slots(&self) -> OwnedSemaphorePermit {
        let slots = &self.pool.slots;
        let mut taken = Arc::clone(slots).acquire_owned().await.expect("the slots are never closed");
        let more = slots.available_permits().min(LARGEST_BATCH - 1);
        if let Ok(more) = Arc::clone(slots).try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
            taken.merge(more);
        }
        taken
    }

    async fn claim(&mut self, wanted: usize) -> Result<Vec<Job>, QueueError> {
        let map = self.pool.tasks.load();
        if map.identifiers().len() == 0 {
            return Ok(Vec::new());
        }
        let session = match self.session.take() {
            Some(session) => session,
            None => self.pool.database.session().await?,
        };
        if self.registered.epoch != map.epoch() {
            self.registered = Registered::register(&session, &map).await?;
        }
        let jobs = session.get_jobs(&self.pool.owner, &self.registered.ids, wanted).await?;
        self.session = Some(session);
        Ok(jobs)
    }

    fn dispatch(&self, jobs: Vec<Job>, mut slots: OwnedSemaphorePermit) {
        self.pool.unsettled.fetch_add(jobs.len(), Ordering::AcqRel);
        for job in jobs {
            let slot = slots.split(1).expect("no more jobs are claimed than slots were taken");
            let task = Arc::clone(&self.registered.names[&job.task_id]);
            let execution = Execution::new(Arc::clone(&self.pool), task, job, self.registered.epoch);
            self.executions.spawn(execution.run(self.completions.clone(), slot));
        }
    }
}

impl Registered {
    async fn register(session: &Session, map: &TaskMap) -> Result<Self, QueueError> {
        let names: Vec<&str> = map.identifiers().collect();
        let by_name = session.task_ids(&names).await?;
        Ok(Self {
            epoch: map.epoch(),
            ids: by_name.values().copied().collect(),
            names: by_name.into_iter().map(|(name, id)| (id, Arc::from(name))).collect(),
        })
    }
}
