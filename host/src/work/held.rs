//! Jobs that are claimed and wait for a slot, the most urgent first.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use super::{completion::Completion, held_job::HeldJob, transaction::Transaction};

/// A job that a slot has taken.
#[derive(Debug)]
pub(super) struct TakenJob {
    pub(super) held: HeldJob,
    /// The transaction that it belongs to; `None`: it is marked.
    transaction: Option<Arc<Transaction>>,
}

impl TakenJob {
    /// Hands in how it ended. Gives that back if nothing but the database has to hear of it.
    pub(super) fn complete(&self, completion: Completion) -> Option<Completion> {
        match &self.transaction {
            Some(transaction) => transaction.report(completion),
            None => Some(completion),
        }
    }
}

/// What one claim brought, in its order.
#[derive(Debug)]
struct Claimed {
    jobs: VecDeque<HeldJob>,
    transaction: Option<Arc<Transaction>>,
    since: Instant,
}

/// The jobs that wait.
#[derive(Debug)]
pub(super) struct HeldJobs {
    claims: Mutex<Vec<Claimed>>,
    count: AtomicUsize,
    running: AtomicUsize,
    /// One permit for each of them. There may be more, because jobs can be withdrawn.
    waiting: Semaphore,
}

impl HeldJobs {
    pub(super) fn new() -> Self {
        Self {
            claims: Mutex::default(),
            count: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            waiting: Semaphore::new(0),
        }
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// How many slots run a job.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// Adds what a claim brought.
    pub(super) fn add(&self, jobs: impl Into<VecDeque<HeldJob>>, transaction: Option<Arc<Transaction>>) {
        let jobs = jobs.into();
        let count = jobs.len();
        if count == 0 {
            return;
        }
        self.claims().push(Claimed { jobs, transaction, since: Instant::now() });
        self.count.fetch_add(count, Ordering::AcqRel);
        self.waiting.add_permits(count);
    }

    /// Waits for a job. `None` after [`HeldJobs::close`].
    pub(super) async fn take(&self) -> Option<TakenJob> {
        loop {
            self.waiting.acquire().await.ok()?.forget();
            if let Some(taken) = self.take_first() {
                return Some(taken);
            }
        }
    }

    /// Notes that a job which was taken has ended.
    pub(super) fn ended(&self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
    }

    fn take_first(&self) -> Option<TakenJob> {
        let mut claims = self.claims();
        let (first, _) = claims
            .iter()
            .enumerate()
            .filter_map(|(place, claimed)| claimed.jobs.front().map(|held| (place, held.order())))
            .min_by_key(|(_, order)| *order)?;
        let held = claims[first].jobs.pop_front()?;
        let transaction = claims[first].transaction.clone();
        if claims[first].jobs.is_empty() {
            claims.remove(first);
        }
        self.running.fetch_add(1, Ordering::AcqRel);
        self.count.fetch_sub(1, Ordering::AcqRel);
        Some(TakenJob { held, transaction })
    }

    /// Takes those of a transaction away that no slot has taken yet.
    pub(super) fn withdraw(&self, transaction: &Arc<Transaction>) -> VecDeque<HeldJob> {
        let mut claims = self.claims();
        let of_it = |claimed: &Claimed| claimed.transaction.as_ref().is_some_and(|of| Arc::ptr_eq(of, transaction));
        let Some(place) = claims.iter().position(of_it) else { return VecDeque::new() };
        let withdrawn = claims.remove(place).jobs;
        self.count.fetch_sub(withdrawn.len(), Ordering::AcqRel);
        withdrawn
    }

    /// Takes the marked ones away for which `matches` holds, with the time that each has waited.
    pub(super) fn withdraw_marked(&self, matches: impl Fn(&HeldJob, Duration) -> bool) -> Vec<(HeldJob, Duration)> {
        let mut withdrawn = Vec::new();
        let mut claims = self.claims();
        for claimed in claims.iter_mut().filter(|claimed| claimed.transaction.is_none()) {
            let waited = claimed.since.elapsed();
            let (out, stay) = claimed.jobs.drain(..).partition(|held| matches(held, waited));
            claimed.jobs = stay;
            let out: VecDeque<HeldJob> = out;
            withdrawn.extend(out.into_iter().map(|held| (held, waited)));
        }
        claims.retain(|claimed| !claimed.jobs.is_empty());
        self.count.fetch_sub(withdrawn.len(), Ordering::AcqRel);
        withdrawn
    }

    /// Since when the oldest marked one has waited.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.claims().iter().filter(|claimed| claimed.transaction.is_none()).map(|claimed| claimed.since).min()
    }

    /// Lets nobody take any more.
    pub(super) fn close(&self) {
        self.waiting.close();
    }

    fn claims(&self) -> MutexGuard<'_, Vec<Claimed>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{queue::Job, work::transaction::LockedJob};

    fn held(id: i64, priority: i16) -> HeldJob {
        let job = Job { priority, ..Job::sample(id) };
        HeldJob { job, task: Arc::from("t"), map: 1 }
    }

    async fn next(jobs: &HeldJobs) -> i64 {
        jobs.take().await.expect("there is one").held.job.id
    }

    #[tokio::test]
    async fn the_most_urgent_is_taken_first_whichever_claim_brought_it() {
        let jobs = HeldJobs::new();
        jobs.add(vec![held(1, 0), held(2, 5)], None);
        jobs.add(vec![held(3, -1), held(4, 3)], None);
        assert_eq!([next(&jobs).await, next(&jobs).await, next(&jobs).await, next(&jobs).await], [3, 1, 4, 2]);
        assert_eq!((jobs.count(), jobs.running()), (0, 4));
    }

    #[tokio::test]
    async fn what_is_withdrawn_is_not_taken() {
        let jobs = HeldJobs::new();
        let locked = [1, 2].map(|id| LockedJob::of(&Job::sample(id)));
        let transaction = Arc::new(Transaction::new(locked.into(), 2));
        jobs.add(vec![held(1, 0), held(2, 0)], Some(Arc::clone(&transaction)));
        jobs.add(vec![held(3, 1), held(4, 1)], None);
        assert_eq!(next(&jobs).await, 1);
        assert_eq!(jobs.withdraw(&transaction).iter().map(|held| held.job.id).collect::<Vec<_>>(), [2]);
        let marked = jobs.withdraw_marked(|held, _| held.job.id == 3);
        assert_eq!(marked.iter().map(|(held, _)| held.job.id).collect::<Vec<_>>(), [3]);
        assert_eq!(next(&jobs).await, 4);
        jobs.close();
        assert!(jobs.take().await.is_none());
    }
}
