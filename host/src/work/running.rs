//! The jobs that a pool has, from their claim until their end is stored, and the slots that run them.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio_util::task::TaskTracker;

use super::{
    held::{HeldJobs, TakenJob},
    held_job::HeldJob,
    transaction::Transaction,
};
use crate::plugin::Cancel;

#[derive(Debug)]
pub(super) struct Running {
    held: HeldJobs,
    /// Jobs that were claimed and whose end is not stored yet.
    unsettled: AtomicUsize,
    concurrency: usize,
    slots: TaskTracker,
    /// How many of the slots have been opened; each stays open.
    opened: AtomicUsize,
    /// Tells running jobs to end.
    cancel: Cancel,
    /// The transactions of the express lane that are open.
    transactions: Mutex<Vec<Arc<Transaction>>>,
}

impl Running {
    pub(super) fn new(concurrency: usize) -> Self {
        Self {
            held: HeldJobs::new(),
            unsettled: AtomicUsize::new(0),
            concurrency,
            slots: TaskTracker::new(),
            opened: AtomicUsize::new(0),
            cancel: Cancel::default(),
            transactions: Mutex::default(),
        }
    }

    /// The jobs that wait for a slot.
    pub(super) fn held(&self) -> &HeldJobs {
        &self.held
    }

    /// How many jobs wait for a slot.
    pub(super) fn waiting(&self) -> usize {
        self.held.count()
    }

    /// How many slots run a job.
    pub(super) fn running(&self) -> usize {
        self.held.running()
    }

    /// Waits for a job to run. `None` when no more are to be taken.
    pub(super) async fn take(&self) -> Option<TakenJob> {
        self.held.take().await
    }

    /// Notes that a job which was taken has ended.
    pub(super) fn job_ended(&self) {
        self.held.ended();
    }

    /// How many jobs were claimed and are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Acquire)
    }

    /// So many jobs were claimed.
    pub(super) fn claimed(&self, jobs: usize) {
        self.unsettled.fetch_add(jobs, Ordering::AcqRel);
    }

    /// The end of so many jobs is stored, or they are not the pool's any more.
    pub(super) fn settled(&self, jobs: usize) {
        self.unsettled.fetch_sub(jobs, Ordering::AcqRel);
    }

    /// Opens as many more slots as there are jobs for, up to all. `slot` makes one.
    pub(super) fn open_slots<F>(&self, slot: impl Fn() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let wanted = (self.waiting() + self.running()).min(self.concurrency);
        while self.opened.load(Ordering::Acquire) < wanted {
            if self.opened.fetch_add(1, Ordering::AcqRel) < wanted {
                self.slots.spawn(slot());
            } else {
                self.opened.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// No slot takes a job from here on.
    pub(super) fn close(&self) {
        self.held.close();
        self.slots.close();
    }

    /// Waits for the last job that runs, after [`Running::close`].
    pub(super) async fn ended(&self) {
        self.slots.wait().await;
    }

    pub(super) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    pub(super) fn begin_transaction(&self, transaction: &Arc<Transaction>) {
        self.transactions().push(Arc::clone(transaction));
    }

    pub(super) fn end_transaction(&self, transaction: &Arc<Transaction>) {
        self.transactions().retain(|open| !Arc::ptr_eq(open, transaction));
    }

    /// Leaves out of what a claim brought what the pool has already: jobs of a transaction whose connection was lost a moment
    /// ago.
    pub(super) fn without_those_in_transactions(&self, jobs: &mut Vec<HeldJob>) {
        for open in &*self.transactions() {
            if open.is_near(jobs.iter().map(|held| held.job.id)) {
                jobs.retain(|held| !open.refuses(held.job.id, held.job.attempts, held.job.locked_at));
            }
        }
    }

    /// Whether an open transaction has this job.
    pub(super) fn is_in_transaction(&self, id: i64) -> bool {
        self.transactions().iter().any(|open| open.has(id))
    }

    fn transactions(&self) -> MutexGuard<'_, Vec<Arc<Transaction>>> {
        self.transactions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
