//! The memory between claims, so that the cost of a claim does not depend on the number of jobs before those it finds.
//!
//! Memory only decides where a scan begins. The statement alone decides which jobs may be claimed.

mod answer;
mod cursors;
mod fast_path;
mod free_scan;
mod page;
mod page_statements;
mod pages;
mod ranges;
mod statement;
mod waiting;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use self::{
    answer::MIN_TIES,
    fast_path::FastPath,
    pages::Pages,
    waiting::{Offer, Spot, Waiting},
};
pub(super) use self::{
    answer::{Answer, FACTS, FOUND_PRIORITIES, with_facts},
    cursors::{Cursors, End, Scan, Started},
    free_scan::{FORMS, FREE_SCAN, PROBE, RANGES, form, forms},
    page::{Candidate, Page, Seen},
    page_statements::{claim_picked_statement, page_statement, priorities_statement},
    pages::Next,
    ranges::Ranges,
    statement::{careful_claim_statement, claim_statement},
};
use super::{Conditions, Job};

/// The most kinds of claims in memory: more than one process has pools on one database.
const MOST: usize = 16;

/// Jobs in queues that a claim reads beyond its limit, because some queues are busy. If that was not enough, the next claim reads
/// [`WIDER`] times as many.
const SPARE: usize = 200;
const WIDER: usize = 4;

/// Claims of one kind may claim the same jobs.
#[derive(Debug)]
struct Kind {
    task_ids: Vec<i32>,
    forbidden_flags: Vec<String>,
    state: Arc<Mutex<ScanState>>,
}

/// A released job and its position.
#[derive(Debug)]
pub(crate) struct ReleasedJob {
    pub(crate) id: i64,
    pub(crate) queue: Option<i32>,
    pub(crate) priority: i16,
    pub(crate) run_at: SystemTime,
}

impl ReleasedJob {
    pub(crate) fn of(job: &Job) -> Self {
        Self { id: job.id, queue: job.job_queue_id, priority: job.priority, run_at: job.run_at }
    }
}

/// The memory of all claims of one database.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The latest last.
    kinds: Mutex<Vec<Kind>>,
}

/// The memory of one kind of claims.
#[derive(Debug, Default)]
pub(super) struct ScanState {
    /// The file of the table of jobs, as of the last claim.
    file: Option<String>,
    /// Of scans for jobs without a queue, in both lanes.
    pub(super) free: Cursors,
    pub(super) fast_path: FastPath,
    queued: Cursors,
    waiting: Waiting,
    /// See [`WIDER`].
    wider: usize,
    /// Weight of the claims in a row that were cut off.
    cut_off: usize,
    /// Set while claims are cut off: full scans go page by page.
    pages: Option<Pages>,
}

/// Locks even a poisoned mutex: no change is left half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// For claims of these tasks under these conditions.
    pub(super) fn of(&self, task_ids: &[i32], conditions: Conditions<'_>) -> Arc<Mutex<ScanState>> {
        let mut kinds = lock(&self.kinds);
        let known = kinds
            .iter()
            .rposition(|kind| kind.task_ids == task_ids && kind.forbidden_flags == conditions.forbidden_flags);
        if let Some(position) = known {
            return Arc::clone(&kinds[position].state);
        }
        if kinds.len() == MOST {
            kinds.remove(0);
        }
        let state = Arc::default();
        kinds.push(Kind {
            task_ids: task_ids.to_vec(),
            forbidden_flags: conditions.forbidden_flags.to_vec(),
            state: Arc::clone(&state),
        });
        state
    }

    /// See [`super::Database::reset_cursors`].
    pub(super) fn reset_cursors(&self) {
        for kind in &*lock(&self.kinds) {
            lock(&kind.state).reset_cursors();
        }
    }

    /// See [`super::Database::released`].
    pub(super) fn released(&self, jobs: &[ReleasedJob]) {
        for kind in &*lock(&self.kinds) {
            let mut state = lock(&kind.state);
            for job in jobs {
                match job.queue {
                    Some(queue) => state.waiting.passed(queue, (job.priority, job.run_at)),
                    None => state.free.released(job.priority, job.run_at, job.id),
                }
            }
        }
    }
}

/// The start of a claim. By default it reads nothing.
#[derive(Debug, Default)]
pub(super) struct Begin {
    free: Started,
    queued: Started,
    pub(super) ranges: Ranges,
    pub(super) offer: Offer,
    /// The most jobs in queues to read.
    pub(super) width: i64,
}

impl ScanState {
    fn reset_cursors(&mut self) {
        self.free.reset_cursors();
        self.queued.reset_cursors();
    }

    /// Starts a claim of up to `limit` jobs.
    pub(super) fn begin(&mut self, limit: usize, now: Instant) -> Begin {
        let (free, queued) = match self.pages {
            None => (self.free.begin(now), self.queued.begin(now)),
            Some(_) => (self.free.begin_at_positions(), self.queued.begin_at_positions()),
        };
        let width = if self.is_in_full_scan() { 0 } else { (limit + SPARE).saturating_mul(self.wider.max(1)) };
        Begin {
            free,
            queued,
            ranges: Ranges::new(&self.free, Some(&self.queued)),
            offer: self.waiting.offer(),
            width: i64::try_from(width).unwrap_or(i64::MAX),
        }
    }

    /// Records the end of a claim. Returns whether another claim should continue an incomplete scan at once.
    pub(super) fn ended(&mut self, begin: &Begin, answer: &Answer, limit: usize, now: Instant) -> bool {
        if self.forgets(answer) {
            return true;
        }
        self.was_not_cut_off();
        let priorities = answer.priorities();
        let last = answer.jobs.last().filter(|_| answer.jobs.len() >= limit);
        if let Some(end) = answer.free_end(last) {
            let took = answer.free_took;
            let scan = Scan { end, cut_short: false, took, jobs: answer.free().count(), priorities: &priorities };
            self.free.ended(begin.free, scan, now);
        }
        let (end, cut_short) = answer.queued_end(last);
        self.wider = if cut_short { self.wider.max(1).saturating_mul(WIDER) } else { 1 };
        if begin.width > 0 {
            let (took, jobs) = (answer.queued.took, answer.queued().count());
            self.queued.ended(begin.queued, Scan { end, cut_short, took, jobs, priorities: &priorities }, now);
        }

        answer.queued.gone.iter().for_each(|queue| self.waiting.gone(*queue));
        answer.queued().filter_map(|job| Some((job.job_queue_id?, spot(job)))).for_each(|(queue, spot)| {
            self.waiting.claimed(queue, spot);
        });
        for (queue, spot, _) in answer.queued.passed.iter().filter(|(_, spot, id)| !end.is_before(*spot, *id)) {
            self.waiting.passed(*queue, *spot);
        }
        cut_short && last.is_none()
    }

    /// Forgets everything if the table of jobs was replaced: neither cursors nor the ids of queues hold for a new table. Returns
    /// whether it was.
    fn forgets(&mut self, answer: &Answer) -> bool {
        let known = self.file.is_some();
        if self.file == answer.file {
            return false;
        }
        self.file.clone_from(&answer.file);
        if known {
            self.free.forget();
            self.queued.forget();
            (self.fast_path, self.waiting, self.wider) = Default::default();
            (self.pages, self.cut_off) = Default::default();
        }
        known
    }

    /// Starts a scan for jobs without a queue only.
    pub(super) fn begin_free(&mut self, now: Instant) -> (Started, Ranges) {
        let started = if self.pages.is_none() { self.free.begin(now) } else { self.free.begin_at_positions() };
        (started, Ranges::new(&self.free, None))
    }

    /// Records the end of a scan for up to `limit` jobs without a queue. Its answer took `waited` and came at `now`.
    pub(super) fn ended_free(
        &mut self,
        started: Started,
        answer: &Answer,
        limit: usize,
        now: Instant,
        waited: Duration,
    ) {
        if self.forgets(answer) {
            return;
        }
        self.was_not_cut_off();
        let saw_everything = !self.free.is_ahead() && answer.jobs.len() < limit;
        self.fast_path.scanned(saw_everything, answer.free_took, waited);
        let last = answer.jobs.last().filter(|_| answer.jobs.len() >= limit);
        if let Some(end) = answer.free_end(last) {
            let (took, jobs, priorities) = (answer.free_took, answer.jobs.len(), &answer.priorities());
            self.free.ended(started, Scan { end, cut_short: false, took, jobs, priorities }, now);
        }
    }

    /// See [`super::Database::next_full_scan`].
    pub(super) fn next_full_scan(&self, now: Instant) -> Option<Duration> {
        self.free.next_full_scan(now).into_iter().chain(self.queued.next_full_scan(now)).min()
    }
}

impl Answer {
    /// The priorities of claimed and other jobs found.
    fn priorities(&self) -> Vec<i16> {
        let mut priorities: Vec<i16> =
            self.jobs.iter().map(|job| job.priority).chain(self.found.iter().copied()).collect();
        priorities.sort_unstable();
        priorities.dedup();
        priorities
    }

    fn free(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(|job| job.job_queue_id.is_none())
    }

    fn queued(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(|job| job.job_queue_id.is_some())
    }

    /// The end of the scan for jobs without a queue; `last` is the last job of a claim that reached its limit. `None` if jobs in
    /// queues filled the whole claim.
    fn free_end(&self, last: Option<&Job>) -> Option<End> {
        if last.is_none() {
            return Some(End::Everything(self.due));
        }
        let last = self.free().last()?;
        Some(End::job(spot(last), ties(self.free(), last), self.due))
    }

    /// The end of the scan for jobs in queues: the last claimed or the last scanned job, whichever comes first; and whether it was
    /// the last scanned one.
    fn queued_end(&self, last: Option<&Job>) -> (End, bool) {
        match (self.queued.last, last) {
            (None, None) => (End::Everything(self.due), false),
            (Some((seen, id)), last) if last.is_none_or(|last| seen < spot(last)) => {
                (End::job(seen, id, self.due), true)
            }
            (_, Some(last)) => (End::job(spot(last), ties(self.jobs.iter(), last), self.due), false),
            (Some((seen, id)), None) => (End::job(seen, id, self.due), true),
        }
    }
}

impl End {
    fn job((priority, run_at): Spot, id: Option<i64>, due: SystemTime) -> Self {
        Self::Job { priority, run_at, id, due }
    }

    fn is_before(self, spot: Spot, job: i64) -> bool {
        match self {
            Self::Everything(_) => false,
            Self::Job { priority, run_at, id: Some(id), .. } => (priority, run_at, id) < (spot.0, spot.1, job),
            Self::Job { priority, run_at, .. } => (priority, run_at) < spot,
        }
    }
}

fn spot(job: &Job) -> Spot {
    (job.priority, job.run_at)
}

/// The highest id among the ties of the last job, if they are many.
fn ties<'a>(jobs: impl Iterator<Item = &'a Job>, last: &Job) -> Option<i64> {
    let alike = jobs.filter(|job| spot(job) == spot(last));
    let (number, highest) = alike.fold((0, last.id), |(number, highest), job| (number + 1, highest.max(job.id)));
    (number >= MIN_TIES).then_some(highest)
}
