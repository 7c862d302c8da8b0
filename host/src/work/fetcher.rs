//! Claims jobs for the tasks of the current map, as many as there are free slots, and hands them to executions.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::task::TaskTracker;
use tracing::Level;

use super::{
    backoff::Backoff,
    completion::Completions,
    execution::Execution,
    pool::{Mode, Pool},
};
use crate::{
    config::Clock,
    events::Event,
    queue::{Conditions, Job, QueueError, Session},
    tasks::TaskMap,
};

/// The most jobs that one statement claims.
const LARGEST_BATCH: usize = 500;

/// A host that finds nothing asks again this soon whether its tasks still have the numbers that it knows, and one that is
/// busy after [`RECHECK_BUSY`].
const RECHECK_IDLE: Duration = Duration::from_secs(1);
const RECHECK_BUSY: Duration = Duration::from_secs(60);
/// And in any case not before this many times as long as the asking took.
const RECHECK_SHARE: u32 = 50;

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
    /// Whether the last claim brought nothing.
    idle: bool,
    backoff: Backoff,
}

/// The database's numbers for the tasks of one map. They change under a living host when somebody removes the tasks that
/// have no jobs (`GC_TASK_IDENTIFIERS`): the next job of such a task brings a new number.
#[derive(Debug)]
struct Registered {
    epoch: u64,
    ids: Vec<i32>,
    names: HashMap<i32, Arc<str>>,
    asked: Instant,
    took: Duration,
}

/// A claimed job and the name of its task.
type Claimed = (Arc<str>, Job);

impl Fetcher {
    pub(super) fn new(pool: Arc<Pool>, completions: Completions, executions: TaskTracker) -> Self {
        Self {
            map_changed: pool.tasks.subscribe(),
            backoff: Backoff::new("claim jobs", pool.events.clone()),
            session: None,
            registered: Registered::nothing(),
            idle: false,
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
            let pool = Arc::clone(&self.pool);
            let forbidden = tokio::select! {
                () = pool.stop.graceful.cancelled() => return,
                flags = pool.settings.forbidden_flags.at_this_moment() => flags,
            };
            pool.events.emit_if_heard(Level::TRACE, || Event::ClaimStarted { worker: pool.id(), wanted });
            let jobs = match self.claim(wanted, &forbidden).await {
                Ok(jobs) => {
                    self.backoff.succeeded();
                    jobs
                }
                Err(error) => {
                    let failed = || Event::ClaimFailed { worker: pool.id(), error: error.reason() };
                    pool.events.emit_if_heard(Level::TRACE, failed);
                    drop(slots);
                    self.session = None;
                    tokio::select! {
                        () = self.pool.stop.graceful.cancelled() => return,
                        () = self.backoff.wait(&error) => continue,
                    }
                }
            };
            let claimed = jobs.len();
            self.idle = claimed == 0;
            if self.idle {
                pool.events.emit_if_heard(Level::TRACE, || Event::ClaimEmpty { worker: pool.id() });
            }
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

    async fn claim(&mut self, wanted: usize, forbidden_flags: &[String]) -> Result<Vec<Claimed>, QueueError> {
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
        let now = (self.pool.settings.clock == Clock::Process).then(|| self.pool.settings.time.now());
        let conditions = Conditions { forbidden_flags, now };
        let (owner, ids) = (&self.pool.owner, &self.registered.ids);
        let jobs = if self.registered.may_be_outdated(self.idle) {
            // Both are on their way at once, so the question does not make the claim any later.
            let (jobs, current) =
                tokio::join!(session.get_jobs(owner, ids, wanted, conditions), Registered::register(&session, &map));
            let jobs = self.registered.name(jobs?);
            match current {
                Ok(current) => {
                    let changed = current.names != self.registered.names;
                    self.registered = current;
                    if changed && jobs.is_empty() {
                        let ids = &self.registered.ids;
                        self.registered.name(session.get_jobs(owner, ids, wanted, conditions).await?)
                    } else {
                        jobs
                    }
                }
                // What is claimed has to be worked, whatever became of the question: the next claim asks it again.
                Err(_) => jobs,
            }
        } else {
            self.registered.name(session.get_jobs(owner, ids, wanted, conditions).await?)
        };
        self.session = Some(session);
        Ok(jobs)
    }

    fn dispatch(&self, jobs: Vec<Claimed>, mut slots: OwnedSemaphorePermit) {
        self.pool.unsettled.fetch_add(jobs.len(), Ordering::AcqRel);
        for (task, job) in jobs {
            let slot = slots.split(1).expect("no more jobs are claimed than slots were taken");
            let execution = Execution::new(Arc::clone(&self.pool), task, job, self.registered.epoch);
            self.executions.spawn(execution.run(self.completions.clone(), slot));
        }
    }
}

impl Registered {
    /// As of the empty map, which has the epoch 0.
    fn nothing() -> Self {
        Self { epoch: 0, ids: Vec::new(), names: HashMap::new(), asked: Instant::now(), took: Duration::ZERO }
    }

    async fn register(session: &Session, map: &TaskMap) -> Result<Self, QueueError> {
        let asked = Instant::now();
        let names: Vec<&str> = map.identifiers().collect();
        let by_name = session.task_ids(&names).await?;
        Ok(Self {
            epoch: map.epoch(),
            ids: by_name.values().copied().collect(),
            names: by_name.into_iter().map(|(name, id)| (id, Arc::from(name))).collect(),
            asked,
            took: asked.elapsed(),
        })
    }

    fn may_be_outdated(&self, idle: bool) -> bool {
        let rest = if idle { RECHECK_IDLE } else { RECHECK_BUSY };
        self.asked.elapsed() >= rest.max(self.took * RECHECK_SHARE)
    }

    fn name(&self, jobs: Vec<Job>) -> Vec<Claimed> {
        jobs.into_iter().map(|job| (Arc::clone(&self.names[&job.task_id]), job)).collect()
    }
}
