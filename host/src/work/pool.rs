//! The pool: joins what claims jobs, what runs them, and what stores their end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{
    Mode, Stop,
    claimed_set::ClaimedSet,
    completion::PendingCompletions,
    demand::{Claim, Claiming, Demand, Snapshot},
    identity::Identity,
    refused::Refused,
    registered::Registered,
    running::Running,
    speed::Speed,
    wakes::Wakes,
};
use crate::{
    config::WorkerSettings,
    events::Events,
    queue::{Database, Notification, Released},
    tasks::LiveTaskMap,
};

/// Works jobs under one owner id.
#[derive(Debug)]
pub struct Pool {
    settings: WorkerSettings,
    database: Database,
    tasks: Arc<LiveTaskMap>,
    events: Events,

    /// Who claims, and whether it may.
    identity: Identity,
    /// How much to claim, by which lane and when.
    demand: Demand,
    /// What the claimers know of the database's ids for tasks.
    registered: ArcSwap<Registered>,
    /// The jobs that are claimed, and the slots that run them.
    running: Running,
    speed: Speed,
    /// What is to be stored of jobs that have ended.
    completions: PendingCompletions,
    /// The claims that are marked in the database, beside which there may be orphaned ones.
    claimed_set: ClaimedSet,
    refused: Refused,
    wakes: Wakes,
    /// Notifications have arrived before.
    has_listened: AtomicBool,
    last_takeover: ArcSwapOption<Takeover>,
}

/// The release of dead hosts' jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    pub at: SystemTime,
    pub released: Released,
}

impl Pool {
    /// A pool with an owner id of its own.
    pub fn new(
        settings: WorkerSettings,
        mode: Mode,
        database: Database,
        tasks: Arc<LiveTaskMap>,
        events: Events,
        stop: Stop,
    ) -> Arc<Self> {
        Arc::new(Self {
            identity: Identity::new(settings.liveness, mode, stop),
            demand: Demand::new(&settings, mode == Mode::Once),
            registered: ArcSwap::from_pointee(Registered::unknown()),
            running: Running::new(settings.concurrency),
            speed: Speed::default(),
            completions: PendingCompletions::new(settings.complete_job_batch_delay, settings.fail_job_batch_delay),
            claimed_set: ClaimedSet::default(),
            refused: Refused::default(),
            wakes: Wakes::default(),
            has_listened: AtomicBool::new(false),
            last_takeover: ArcSwapOption::empty(),
            settings,
            database,
            tasks,
            events,
        })
    }

    /// What events call it.
    pub fn id(&self) -> Arc<str> {
        Arc::clone(self.identity.id())
    }

    /// What `locked_by` says of the jobs that it holds.
    pub fn owner(&self) -> &str {
        self.identity.owner()
    }

    /// Looks for jobs now.
    pub fn nudge(&self) {
        self.demand.jobs_available();
        self.wakes.wake_primary();
    }

    /// The same, where only a marked claim may find them.
    pub(super) fn nudge_for_marked(&self) {
        self.demand.marked_jobs_available();
        self.wakes.wake_primary();
    }

    /// Takes note of what the database told of.
    pub fn hear(&self, notification: Notification) {
        match notification {
            Notification::JobsAdded(0) => {}
            Notification::JobsAdded(count) => {
                self.demand.jobs_announced(count);
                self.wakes.wake_primary();
            }
            // Jobs may have been added while nobody listened, and the server may be another one.
            Notification::Connected => {
                if self.has_listened.swap(true, Ordering::AcqRel) {
                    self.claimed_set.suspect();
                }
                self.nudge();
            }
            // Whether that concerns this program is judged before it comes here.
            Notification::Migrated { .. } => {}
        }
    }

    /// What the demand for jobs depends on.
    pub(super) fn snapshot(&self) -> Snapshot {
        let registered = self.registered();
        Snapshot {
            now: Instant::now(),
            may_claim: self.identity.may_claim() && !self.holds_too_many_results(),
            running: self.running.running(),
            waiting: self.running.waiting(),
            pace: self.speed.pace(),
            knows_task_ids: registered.map == self.tasks.load().epoch(),
            runs_tasks_itself: registered.in_this_process,
        }
    }

    /// Begins a claim, if there is to be one.
    pub(super) fn begin_claim(&self, claim: Option<Claim>) -> Option<Claiming<'_>> {
        claim.map(|claim| self.demand.begin(claim, || self.running.unsettled()))
    }

    /// A slot has taken a job.
    pub(super) fn taken(&self) {
        if self.demand.has_room(self.running.waiting()) {
            self.wakes.wake();
        }
    }

    /// The pool has released jobs of dead hosts.
    pub(super) fn took_over(&self, released: Released) {
        self.last_takeover.store(Some(Arc::new(Takeover { at: SystemTime::now(), released })));
    }

    pub(super) fn last_takeover(&self) -> Option<Arc<Takeover>> {
        self.last_takeover.load_full()
    }

    pub(super) fn registered(&self) -> Arc<Registered> {
        self.registered.load_full()
    }

    pub(super) fn register(&self, registered: Registered) -> Arc<Registered> {
        let registered = Arc::new(registered);
        self.registered.store(Arc::clone(&registered));
        registered
    }

    /// The database has other ids for the tasks by now: the next claim asks for them.
    pub(super) fn forget_task_ids(&self) {
        self.register(Registered::unknown());
        self.speed.forget_tasks();
        self.nudge();
    }
}

/// What it joins. Nothing of it can be changed but by its own methods.
impl Pool {
    pub(super) fn settings(&self) -> &WorkerSettings {
        &self.settings
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn tasks(&self) -> &LiveTaskMap {
        &self.tasks
    }

    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn demand(&self) -> &Demand {
        &self.demand
    }

    pub(super) fn running(&self) -> &Running {
        &self.running
    }

    pub(super) fn speed(&self) -> &Speed {
        &self.speed
    }

    pub(super) fn completions(&self) -> &PendingCompletions {
        &self.completions
    }

    pub(super) fn claimed_set(&self) -> &ClaimedSet {
        &self.claimed_set
    }

    pub(super) fn refused(&self) -> &Refused {
        &self.refused
    }

    pub(super) fn wakes(&self) -> &Wakes {
        &self.wakes
    }
}
