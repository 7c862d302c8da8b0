//! What a process remembers from one claim to the next, so that a claim costs the same however much stands before the jobs
//! that it finds.
//!
//! Nothing of it decides what may be claimed: that is for the statement alone. It only says where to begin.

mod answer;
mod frontier;
mod statement;
mod steps;
mod waiting;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use self::waiting::{Offer, Waiting};
pub(super) use self::{
    answer::Answer,
    frontier::{Begun, End, Frontier, Walk},
    statement::{FREE, STEPS, claim_statement, form, forms},
    steps::Steps,
};
use super::{Conditions, Job};

/// So many kinds of claims are remembered: more than the pools of one process that work on one database.
const MOST: usize = 16;

/// A claim that brought so many jobs of one moment, the last among them, has met a crowd.
const CROWD: usize = 64;

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
    /// Of the walks over jobs without a queue, in both lanes.
    pub(super) free: Frontier,
    queued: Frontier,
    waiting: Waiting,
}

/// Nothing is half done while one of these is held.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// For claims of these tasks under these conditions.
    pub(super) fn of(&self, task_ids: &[i32], conditions: Conditions<'_>) -> Arc<Mutex<Frontiers>> {
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
            let mut frontiers = lock(&kind.frontiers);
            frontiers.free.look_everywhere();
            frontiers.queued.look_everywhere();
        }
    }

    /// Jobs without a queue can be claimed again that were passed.
    pub(super) fn came_back(&self, spots: &[(i16, SystemTime)]) {
        for kind in &*lock(&self.kinds) {
            let mut frontiers = lock(&kind.frontiers);
            spots.iter().for_each(|(priority, run_at)| frontiers.free.came_back(*priority, *run_at));
        }
    }
}

/// What a claim begins with.
#[derive(Debug)]
pub(super) struct Begin {
    free: Begun,
    queued: Begun,
    pub(super) steps: Steps,
    pub(super) offer: Offer,
}

impl Frontiers {
    pub(super) fn begin(&mut self, now: Instant) -> Begin {
        let (free, queued) = (self.free.begin(now), self.queued.begin(now));
        Begin { free, queued, steps: Steps::new(&self.free, Some(&self.queued)), offer: self.waiting.offer() }
    }

    /// A claim of up to `limit` jobs has ended, whose walk over jobs in queues saw `width` at most. Returns whether there
    /// are more of these to be seen by the next claim although this one brought less than wanted.
    pub(super) fn ended(&mut self, begin: &Begin, answer: &Answer, limit: usize, width: usize, now: Instant) -> bool {
        let Answer { jobs, due, .. } = answer;
        let full = jobs.len() >= limit;
        let last = if full { jobs.last() } else { None };
        let mut priorities: Vec<i16> =
            jobs.iter().map(|job| job.priority).chain(answer.found.iter().copied()).collect();
        priorities.sort_unstable();
        priorities.dedup();

        let free = || jobs.iter().filter(|job| job.job_queue_id.is_none());
        let end = match free().last() {
            Some(last) if full => End::job(last, crowd(free(), last), *due),
            // There may be some, but jobs in queues were more urgent.
            None if full => return self.queued_ended(begin, answer, last, width, &priorities, now),
            _ => End::Everything(*due),
        };
        let walk =
            Walk { end, cut_short: false, took: answer.free_took, jobs: free().count(), priorities: &priorities };
        self.free.ended(begin.free, walk, now);
        self.queued_ended(begin, answer, last, width, &priorities, now) && !full
    }

    /// For a walk over jobs without a queue alone.
    pub(super) fn begin_free(&mut self, now: Instant) -> (Begun, Steps) {
        (self.free.begin(now), Steps::new(&self.free, None))
    }

    /// Such a walk has ended with these jobs, in their order. `due`: up to when jobs were due.
    pub(super) fn ended_free(
        &mut self,
        begun: Begun,
        jobs: &[Job],
        full: bool,
        due: SystemTime,
        took: Duration,
        now: Instant,
    ) {
        let end = match jobs.last() {
            Some(last) if full => End::job(last, crowd(jobs.iter(), last), due),
            _ => End::Everything(due),
        };
        let mut priorities: Vec<i16> = jobs.iter().map(|job| job.priority).collect();
        priorities.dedup();
        let walk = Walk { end, cut_short: false, took, jobs: jobs.len(), priorities: &priorities };
        self.free.ended(begun, walk, now);
    }

    fn queued_ended(
        &mut self,
        begin: &Begin,
        answer: &Answer,
        last: Option<&Job>,
        width: usize,
        priorities: &[i16],
        now: Instant,
    ) -> bool {
        let spot = |job: &Job| (job.priority, job.run_at);
        // The last job that was wanted, or that was seen, whichever comes first.
        let seen = answer.last_queued.filter(|_| answer.queued >= width);
        let end = seen.into_iter().chain(last.map(spot)).min();
        let cut_short = seen.is_some() && end == seen;
        for job in answer.jobs.iter().filter_map(|job| Some((job.job_queue_id?, spot(job)))) {
            self.waiting.claimed(job.0, job.1);
        }
        answer.gone.iter().for_each(|queue| self.waiting.gone(*queue));
        for (queue, spot) in answer.passed.iter().filter(|(_, spot)| end.is_none_or(|end| *spot <= end)) {
            self.waiting.passed(*queue, *spot);
        }
        let end = match end {
            Some((priority, run_at)) => End::Job { priority, run_at, id: None, due: answer.due },
            None => End::Everything(answer.due),
        };
        let jobs = answer.jobs.iter().filter(|job| job.job_queue_id.is_some()).count();
        self.queued.ended(begin.queued, Walk { end, cut_short, took: answer.queued_took, jobs, priorities }, now);
        cut_short
    }

    /// See [`super::Database::look_again`].
    pub(super) fn next_lap(&self, now: Instant) -> Option<Duration> {
        self.free.next_lap(now).into_iter().chain(self.queued.next_lap(now)).min()
    }
}

impl End {
    /// At a job without a queue, which is one of a crowd if there is an id.
    fn job(job: &Job, id: Option<i64>, due: SystemTime) -> Self {
        Self::Job { priority: job.priority, run_at: job.run_at, id, due }
    }
}

/// The highest id of those that are due at the same moment as the last one, if they are a crowd.
fn crowd<'a>(jobs: impl Iterator<Item = &'a Job>, last: &Job) -> Option<i64> {
    let alike = jobs.filter(|job| job.priority == last.priority && job.run_at == last.run_at);
    let (number, highest) = alike.fold((0, last.id), |(number, highest), job| (number + 1, highest.max(job.id)));
    (number >= CROWD).then_some(highest)
}
