//! What a process remembers from one claim to the next, so that a claim costs the same however much stands before the jobs
//! that it finds.
//!
//! Nothing of it decides what may be claimed: that is for the statement alone. It only says where to begin.

mod answer;
mod calm;
mod free_walk;
mod frontier;
mod page;
mod page_statements;
mod pages;
mod statement;
mod steps;
mod waiting;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

pub(super) use self::{
    answer::{Answer, FACTS, FOUND_PRIORITIES, with_facts},
    free_walk::{FORMS, FREE, IN_ONE_GO, STEPS, form, forms},
    frontier::{Begun, End, Frontier, Walk},
    page::{Candidate, Page, Seen},
    page_statements::{claim_picked_statement, page_statement, priorities_statement},
    pages::Next,
    statement::{careful_claim_statement, claim_statement},
    steps::Steps,
};
use self::{
    calm::Calm,
    pages::Pages,
    waiting::{Offer, Spot, Waiting},
};
use super::{CameBack, Conditions, Job, TaskIds};

/// So many kinds of claims are remembered: more than the pools of one process that work on one database.
const MOST: usize = 16;

/// A walk that ended among so many jobs of one moment has met a crowd.
const CROWD: i32 = 64;

/// How many more jobs in queues a claim looks at than are wanted: some are of queues that are busy. Where that was not enough
/// to see all, the next one looks at so many times as many.
const SPARE: usize = 200;
const WIDER: usize = 4;

/// Claims are of one kind if they may claim the same jobs.
#[derive(Debug)]
struct Kind {
    task_ids: Vec<i32>,
    forbidden_flags: Vec<String>,
    frontiers: Arc<Mutex<Frontiers>>,
}

/// All that is remembered of one database.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The latest last.
    kinds: Mutex<Vec<Kind>>,
}

/// What is remembered for one kind of claims.
#[derive(Debug, Default)]
pub(super) struct Frontiers {
    /// The file of the table of jobs that it holds for; `None` before the first claim has ended.
    file: Option<String>,
    /// Of the walks over jobs without a queue, in both lanes.
    pub(super) free: Frontier,
    pub(super) calm: Calm,
    queued: Frontier,
    waiting: Waiting,
    /// See [`WIDER`].
    wider: usize,
    /// Whether claims were cut off lately, one after the other.
    cut_off: usize,
    /// They are cut off.
    pages: Option<Pages>,
}

/// Nothing is half done while one of these is held.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// For claims of these tasks under these conditions.
    pub(super) fn of(&self, tasks: &TaskIds, conditions: Conditions<'_>) -> Arc<Mutex<Frontiers>> {
        let task_ids = tasks.ids();
        let mut kinds = lock(&self.kinds);
        let known = kinds
            .iter()
            .rposition(|kind| kind.task_ids == task_ids && kind.forbidden_flags == conditions.forbidden_flags);
        if let Some(place) = known {
            return Arc::clone(&kinds[place].frontiers);
        }
        if kinds.len() == MOST {
            kinds.remove(0);
        }
        let frontiers = Arc::default();
        kinds.push(Kind {
            task_ids: task_ids.to_vec(),
            forbidden_flags: conditions.forbidden_flags.to_vec(),
            frontiers: Arc::clone(&frontiers),
        });
        frontiers
    }

    /// See [`super::Database::look_everywhere`].
    pub(super) fn look_everywhere(&self) {
        for kind in &*lock(&self.kinds) {
            lock(&kind.frontiers).look_everywhere();
        }
    }

    /// See [`super::Database::came_back`].
    pub(super) fn came_back(&self, jobs: &[CameBack]) {
        for kind in &*lock(&self.kinds) {
            let mut frontiers = lock(&kind.frontiers);
            for job in jobs {
                match job.queue {
                    Some(queue) => frontiers.waiting.passed(queue, (job.priority, job.run_at)),
                    None => frontiers.free.came_back(job.priority, job.run_at, job.id),
                }
            }
        }
    }
}

/// What a claim begins with; by default, with nothing to look at.
#[derive(Debug, Default)]
pub(super) struct Begin {
    free: Begun,
    queued: Begun,
    pub(super) steps: Steps,
    pub(super) offer: Offer,
    /// How many jobs in queues to look at.
    pub(super) width: i64,
}

impl Frontiers {
    fn look_everywhere(&mut self) {
        self.free.look_everywhere();
        self.queued.look_everywhere();
    }

    /// For a claim of up to `limit` jobs.
    pub(super) fn begin(&mut self, limit: usize, now: Instant) -> Begin {
        let (free, queued) = match self.pages {
            None => (self.free.begin(now), self.queued.begin(now)),
            Some(_) => (self.free.begin_at_places(), self.queued.begin_at_places()),
        };
        let width = if self.has_lap_under_way() { 0 } else { (limit + SPARE).saturating_mul(self.wider.max(1)) };
        Begin {
            free,
            queued,
            steps: Steps::new(&self.free, Some(&self.queued)),
            offer: self.waiting.offer(),
            width: i64::try_from(width).unwrap_or(i64::MAX),
        }
    }

    /// Such a claim has ended. Returns whether the next one is to go on where this one has not seen all.
    pub(super) fn ended(&mut self, begin: &Begin, answer: &Answer, limit: usize, now: Instant) -> bool {
        if self.forgets(answer) {
            return true;
        }
        self.was_not_cut_off();
        let priorities = answer.priorities();
        let last = answer.jobs.last().filter(|_| answer.jobs.len() >= limit);
        if let Some(end) = answer.free_end(last) {
            let took = answer.free_took;
            let walk = Walk { end, cut_short: false, took, jobs: answer.free().count(), priorities: &priorities };
            self.free.ended(begin.free, walk, now);
        }
        let (end, cut_short) = answer.queued_end(last);
        self.wider = if cut_short { self.wider.max(1).saturating_mul(WIDER) } else { 1 };
        if begin.width > 0 {
            let (took, jobs) = (answer.queued.took, answer.queued().count());
            self.queued.ended(begin.queued, Walk { end, cut_short, took, jobs, priorities: &priorities }, now);
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

    /// Whether the table of jobs is not the one any more in which claims have come so far: then nothing of that holds, nor do the
    /// ids of queues, and the next claim begins at the beginning.
    fn forgets(&mut self, answer: &Answer) -> bool {
        let known = self.file.is_some();
        if self.file == answer.file {
            return false;
        }
        self.file.clone_from(&answer.file);
        if known {
            self.free.forget();
            self.queued.forget();
            (self.calm, self.waiting, self.wider) = Default::default();
            (self.pages, self.cut_off) = Default::default();
        }
        known
    }

    /// For a walk over jobs without a queue alone.
    pub(super) fn begin_free(&mut self, now: Instant) -> (Begun, Steps) {
        let begun = if self.pages.is_none() { self.free.begin(now) } else { self.free.begin_at_places() };
        (begun, Steps::new(&self.free, None))
    }

    /// Such a walk for up to `limit` jobs has ended, whose answer came at `now`, after so long.
    pub(super) fn ended_free(&mut self, begun: Begun, answer: &Answer, limit: usize, now: Instant, waited: Duration) {
        if self.forgets(answer) {
            return;
        }
        self.was_not_cut_off();
        let saw_everything = !self.free.is_ahead() && answer.jobs.len() < limit;
        self.calm.walked(saw_everything, answer.free_took, waited);
        let last = answer.jobs.last().filter(|_| answer.jobs.len() >= limit);
        if let Some(end) = answer.free_end(last) {
            let (took, jobs, priorities) = (answer.free_took, answer.jobs.len(), &answer.priorities());
            self.free.ended(begun, Walk { end, cut_short: false, took, jobs, priorities }, now);
        }
    }

    /// See [`super::Database::look_again`].
    pub(super) fn next_lap(&self, now: Instant) -> Option<Duration> {
        self.free.next_lap(now).into_iter().chain(self.queued.next_lap(now)).min()
    }
}

impl Answer {
    /// Those that it met.
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

    /// Where the walk over jobs without a queue ended; `last` is the last job of a claim that brought all that was wanted.
    /// `None`: that is not known, because there was no place for them beside those in queues.
    fn free_end(&self, last: Option<&Job>) -> Option<End> {
        if last.is_none() {
            return Some(End::Everything(self.due));
        }
        let last = self.free().last()?;
        Some(End::job(spot(last), crowd(self.free(), last), self.due))
    }

    /// Where the walk over jobs in queues ended: at the last job that was wanted, or that was seen, whichever comes first. And
    /// whether it was the latter.
    fn queued_end(&self, last: Option<&Job>) -> (End, bool) {
        match (self.queued.last, last) {
            (None, None) => (End::Everything(self.due), false),
            (Some((seen, id)), last) if last.is_none_or(|last| seen < spot(last)) => {
                (End::job(seen, id, self.due), true)
            }
            (_, Some(last)) => (End::job(spot(last), crowd(self.jobs.iter(), last), self.due), false),
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

/// The highest id of those that are due at the same moment as the last one, if they are a crowd.
fn crowd<'a>(jobs: impl Iterator<Item = &'a Job>, last: &Job) -> Option<i64> {
    let alike = jobs.filter(|job| spot(job) == spot(last));
    let (number, highest) = alike.fold((0, last.id), |(number, highest), job| (number + 1, highest.max(job.id)));
    (number >= CROWD).then_some(highest)
}
