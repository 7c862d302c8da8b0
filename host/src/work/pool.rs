//! The pool: what fetching, running and completing share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use rand::Rng;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    demand::{Demand, Snapshot},
    execution::run_slot,
    express_batch::ExpressBatch,
    held::{HeldJob, HeldJobs},
    refused::Refused,
    registered::Registered,
    speed::Speed,
    unheard::Known,
    verdict::Verdicts,
};
use crate::{
    config::WorkerSettings,
    events::Events,
    plugin::Cancel,
    queue::{Database, Notification, SHOWS_LIFE},
    tasks::LiveTaskMap,
};

/// How owner ids begin of pools that nobody can see whether they live.
const WITHOUT_LIFE: &str = "taskbay-";

/// When a pool ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Never.
    Continuous,
    /// When no job is left that can run now.
    Once,
}

/// The two stop signals.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Claim no more, let running jobs finish.
    pub graceful: CancellationToken,
    /// Cancel what still runs.
    pub now: CancellationToken,
}

/// Works jobs under one owner id.
#[derive(Debug)]
pub struct Pool {
    /// What `locked_by` says; known when the first job is claimed.
    pub(super) owner: OnceLock<String>,
    /// The pool in events, and its owner id unless the connection does not let it show life.
    pub(super) id: Arc<str>,
    /// Whether jobs may be claimed: those who look for the dead know that this pool is not among them.
    pub(super) alive: AtomicBool,
    pub(super) mode: Mode,
    pub(super) settings: WorkerSettings,
    pub(super) database: Database,
    pub(super) tasks: Arc<LiveTaskMap>,
    pub(super) events: Events,

    /// How much to claim, by which lane and when.
    pub(super) demand: Demand,
    /// Wakes the front line.
    pub(super) work: Notify,
    /// Wakes the second line.
    pub(super) help: Notify,
    /// What the lines know of the database's ids for tasks.
    registered: ArcSwap<Registered>,
    /// The transactions of the express lane that are open.
    open: Mutex<Vec<Arc<ExpressBatch>>>,
    /// The front line waits for the end of a transaction.
    pub(super) front_is_bound: AtomicBool,
    /// The second line has ended, and with it its last claim.
    pub(super) second_is_over: AtomicBool,
    pub(super) known: Known,
    /// Notifications have arrived before.
    has_listened: AtomicBool,
    pub(super) refused: Refused,

    pub(super) held: HeldJobs,
    pub(super) speed: Speed,
    pub(super) verdicts: Verdicts,
    /// Jobs that were claimed and whose verdict is not stored yet.
    pub(super) unsettled: AtomicUsize,

    pub(super) slots: TaskTracker,
    /// How many of the slots have been opened; each stays open.
    opened: AtomicUsize,
    /// Tells running jobs to end.
    pub(super) cancel: Cancel,
    pub(super) stop: Stop,
    /// Nothing is claimed any more.
    pub(super) closing: CancellationToken,
}

impl Pool {
    /// A pool with an owner id of its own: `taskbay-live-` and 18 hex digits, never seen before. Without `live-`, nobody looks
    /// whether it lives.
    pub fn new(
        settings: WorkerSettings,
        mode: Mode,
        database: Database,
        tasks: Arc<LiveTaskMap>,
        events: Events,
        stop: Stop,
    ) -> Arc<Self> {
        let random: [u8; 9] = rand::rng().random();
        let prefix = if settings.liveness { SHOWS_LIFE } else { WITHOUT_LIFE };
        let id: Arc<str> = random.iter().fold(prefix.to_owned(), |id, byte| format!("{id}{byte:02x}")).into();
        Arc::new(Self {
            owner: if settings.liveness { OnceLock::new() } else { OnceLock::from(id.to_string()) },
            alive: AtomicBool::new(!settings.liveness),
            id,
            mode,
            database,
            tasks,
            events,
            demand: Demand::new(&settings, mode == Mode::Once),
            work: Notify::new(),
            help: Notify::new(),
            registered: ArcSwap::from_pointee(Registered::unknown()),
            open: Mutex::default(),
            front_is_bound: AtomicBool::new(false),
            second_is_over: AtomicBool::new(false),
            known: Known::default(),
            has_listened: AtomicBool::new(false),
            refused: Refused::default(),
            held: HeldJobs::new(),
            speed: Speed::default(),
            verdicts: Verdicts::new(settings.complete_job_batch_delay, settings.fail_job_batch_delay),
            unsettled: AtomicUsize::new(0),
            slots: TaskTracker::new(),
            opened: AtomicUsize::new(0),
            cancel: Cancel::default(),
            closing: stop.graceful.child_token(),
            stop,
            settings,
        })
    }

    /// What events call it.
    pub fn id(&self) -> Arc<str> {
        Arc::clone(&self.id)
    }

    /// What `locked_by` says of the jobs that it holds.
    pub fn owner(&self) -> &str {
        self.owner.get().map_or(&*self.id, String::as_str)
    }

    /// The owner id while the pool shows that it lives.
    pub(super) fn guarded_owner(&self) -> &str {
        &self.id
    }

    /// The owner id where it cannot.
    pub(super) fn unguarded_owner(&self) -> String {
        self.id.replacen(SHOWS_LIFE, WITHOUT_LIFE, 1)
    }

    /// Looks for jobs now.
    pub fn nudge(&self) {
        self.demand.jobs_available();
        self.work.notify_one();
    }

    /// Opens as many more slots as there are jobs for, up to all.
    pub(super) fn open_slots(self: &Arc<Self>) {
        let wanted = (self.held.count() + self.held.running()).min(self.settings.concurrency);
        while self.opened.load(Ordering::Acquire) < wanted {
            if self.opened.fetch_add(1, Ordering::AcqRel) < wanted {
                let slot = self.events.parts().guard("job slot", run_slot(Arc::clone(self)));
                self.slots.spawn(slot);
            } else {
                self.opened.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// What the demand for jobs depends on.
    pub(super) fn snapshot(&self) -> Snapshot {
        let registered = self.registered();
        Snapshot {
            now: Instant::now(),
            may_claim: self.alive.load(Ordering::Acquire) && !self.closing.is_cancelled(),
            running: self.held.running(),
            waiting: self.held.count(),
            pace: self.speed.pace(),
            knows_task_ids: registered.map == self.tasks.load().epoch(),
            runs_tasks_itself: registered.in_this_process,
        }
    }

    /// Looks for jobs now, some of which only a marked claim finds.
    pub(super) fn nudge_for_marked(&self) {
        self.demand.marked_jobs_available();
        self.work.notify_one();
    }

    pub(super) fn opened(&self, batch: &Arc<ExpressBatch>) {
        self.open_batches().push(Arc::clone(batch));
    }

    pub(super) fn ended(&self, batch: &Arc<ExpressBatch>) {
        self.open_batches().retain(|open| !Arc::ptr_eq(open, batch));
    }

    /// Leaves out of what a claim brought what the pool has already: jobs of a transaction whose connection was lost a moment
    /// ago.
    pub(super) fn without_open(&self, jobs: &mut Vec<HeldJob>) {
        for open in &*self.open_batches() {
            if open.is_near(jobs.iter().map(|held| held.job.id)) {
                jobs.retain(|held| !open.refuses(held.job.id, held.job.attempts, held.job.locked_at));
            }
        }
    }

    /// Whether a transaction that is open has this job.
    pub(super) fn is_in_open(&self, id: i64) -> bool {
        self.open_batches().iter().any(|open| open.has(id))
    }

    fn open_batches(&self) -> MutexGuard<'_, Vec<Arc<ExpressBatch>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot has taken a job.
    pub(super) fn taken(&self) {
        if self.demand.has_room(self.held.count()) {
            self.wake();
        }
    }

    /// There is something to store, or room for more jobs.
    pub(super) fn wake(&self) {
        self.work.notify_one();
        if self.front_is_bound.load(Ordering::Acquire) {
            self.help.notify_one();
        }
    }

    pub(super) fn registered(&self) -> Arc<Registered> {
        self.registered.load_full()
    }

    pub(super) fn register(&self, registered: Registered) -> Arc<Registered> {
        let registered = Arc::new(registered);
        self.registered.store(Arc::clone(&registered));
        registered
    }

    pub(super) fn knows_task_ids(&self) -> bool {
        self.registered().are_known()
    }

    /// The database has other ids for the tasks by now: the next claim asks for them.
    pub(super) fn forget_task_ids(&self) {
        self.register(Registered::unknown());
        self.speed.forget_tasks();
        self.nudge();
    }

    /// Takes note of what the database told of.
    pub fn hear(&self, notification: Notification) {
        match notification {
            Notification::JobsAdded(0) => {}
            Notification::JobsAdded(count) => {
                self.demand.jobs_announced(count);
                self.work.notify_one();
            }
            // Jobs may have been added while nobody listened, and the server may be another one.
            Notification::Connected => {
                if self.has_listened.swap(true, Ordering::AcqRel) {
                    self.known.look();
                }
                self.nudge();
            }
            // Whether that concerns this program is judged before it comes here.
            Notification::Migrated { .. } => {}
        }
    }
}
