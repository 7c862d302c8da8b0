//! How far the walks along the waiting jobs have come, so that the next one need not pass again what stands before.
//!
//! What stands before the jobs that can be claimed may be long and costs each walk that passes it: entries of rows that are
//! gone and could not be vacuumed yet, jobs of queues that are busy, of tasks that nobody here knows, of another day. So a
//! walk begins where the last one ended, for each priority on its own. Jobs can turn up behind it all the same: given back,
//! unlocked, due in the past, added by a transaction that took long. They are found by a new lap, which begins at the very
//! beginning. How often there is one follows from what the last one cost.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

/// The next lap begins this many times as long after the last one as that took, so that laps have a tenth of the time.
const REST: u32 = 9;

/// And it is not put off for longer than this, as long as it does not take a fifth of the time then.
const LONGEST_REST: Duration = Duration::from_secs(1);
const SHORTEST_REST: u32 = 4;

/// Laps that bring nothing follow each other ever more slowly: each of them doubles the rest, so many times at most.
const DOUBLED: u32 = 5;

/// What a walk may take, in all and for each job that it brought, without counting as a cost: there is nothing to be saved.
const CHEAP: Duration = Duration::from_micros(100);
const CHEAP_PER_JOB: Duration = Duration::from_nanos(1500);

/// Places are kept for so many priorities. Jobs of others are found without, each time from the beginning.
const MOST_PRIORITIES: usize = 64;

/// A place among the jobs of one priority: before it, or at it, there is nothing to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::queue) struct Place {
    /// `None`: the beginning.
    pub(in crate::queue) run_at: Option<SystemTime>,
    /// Of many jobs that are due at the same moment, the last that was had. They are claimed in the order of their ids.
    pub(in crate::queue) id: Option<i64>,
}

/// How far the walks of one kind have come.
#[derive(Debug, Default)]
pub(in crate::queue) struct Frontier {
    places: BTreeMap<i16, Place>,
    /// Changes when places go back. A walk that began before says nothing of those after.
    version: u64,
    /// What the lap under way has cost, and how many jobs it brought.
    cost: Duration,
    jobs: usize,
    /// How many laps brought nothing, one after the other.
    in_vain: u32,
    /// When the next lap may begin; `None` while one is under way.
    rest_until: Option<Instant>,
    wants_lap: bool,
    /// Whether the last walk began anywhere but at the beginning.
    ahead: bool,
}

/// A walk that is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) struct Begun(u64);

/// Where a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) enum End {
    /// It has seen all that was due at that time, by the clock that decides what is due.
    Everything(SystemTime),
    /// As far as this job. `id` as in [`Place`].
    Job { priority: i16, run_at: SystemTime, id: Option<i64>, due: SystemTime },
}

/// What a walk was like.
#[derive(Debug, Clone, Copy)]
pub(in crate::queue) struct Walk<'a> {
    pub(in crate::queue) end: End,
    /// The lap goes on with the next walk, whatever it costs.
    pub(in crate::queue) cut_short: bool,
    pub(in crate::queue) took: Duration,
    /// How many jobs it brought.
    pub(in crate::queue) jobs: usize,
    /// Priorities that there are.
    pub(in crate::queue) priorities: &'a [i16],
}

impl Frontier {
    /// A walk begins now: at the places, which may have gone back to the beginning just now.
    pub(in crate::queue) fn begin(&mut self, now: Instant) -> Begun {
        self.ahead = true;
        if self.wants_lap || self.rest_until.is_some_and(|until| until <= now) {
            self.wants_lap = false;
            self.rest_until = None;
            self.cost = Duration::ZERO;
            self.jobs = 0;
            if self.places.len() >= MOST_PRIORITIES {
                self.places.clear();
            }
            self.places.values_mut().for_each(|place| *place = Place::default());
            self.version += 1;
        }
        if self.places.values().all(|place| place.run_at.is_none()) {
            self.ahead = false;
        }
        Begun(self.version)
    }

    /// A walk has ended.
    pub(in crate::queue) fn ended(&mut self, begun: Begun, walk: Walk<'_>, now: Instant) {
        for priority in walk.priorities {
            if self.places.len() < MOST_PRIORITIES {
                self.places.entry(*priority).or_default();
            }
        }
        if begun.0 != self.version {
            return;
        }
        for (priority, place) in &mut self.places {
            *place = (*place).max(walk.end.place(*priority));
        }
        if self.rest_until.is_none() {
            let cheap = CHEAP + CHEAP_PER_JOB * u32::try_from(walk.jobs).unwrap_or(u32::MAX);
            self.cost += walk.took.saturating_sub(cheap);
            self.jobs += walk.jobs;
            if !walk.cut_short {
                self.rest_until = Some(now + self.rest());
            }
        }
    }

    /// How long it is to the next lap from the end of this one.
    fn rest(&mut self) -> Duration {
        self.in_vain = if self.jobs == 0 { self.in_vain.saturating_add(1) } else { 0 };
        let doubled = self.in_vain.saturating_sub(1).min(DOUBLED);
        (self.cost * REST * 2_u32.pow(doubled)).min(LONGEST_REST.max(self.cost * SHORTEST_REST))
    }

    /// The next walk begins at the beginning.
    pub(in crate::queue) fn look_everywhere(&mut self) {
        self.wants_lap = true;
    }

    /// A job that was passed can be claimed again.
    pub(in crate::queue) fn came_back(&mut self, priority: i16, run_at: SystemTime) {
        self.version += 1;
        if let Some(place) = self.places.get_mut(&priority) {
            *place = (*place).min(Place { run_at: Some(run_at), id: None });
        }
    }

    /// When it is worth to walk once more although the last walk brought all that it saw; `None` if it saw all that there is.
    pub(in crate::queue) fn next_lap(&self, now: Instant) -> Option<Duration> {
        match self.rest_until {
            Some(until) => self.ahead.then(|| until.saturating_duration_since(now)),
            None => (!self.places.is_empty()).then_some(Duration::ZERO),
        }
    }

    pub(in crate::queue) fn priorities(&self) -> impl Iterator<Item = i16> + '_ {
        self.places.keys().copied()
    }

    pub(in crate::queue) fn place(&self, priority: i16) -> Place {
        self.places.get(&priority).copied().unwrap_or_default()
    }
}

impl End {
    /// How far a walk with this end has come among the jobs of a priority.
    fn place(self, priority: i16) -> Place {
        match self {
            Self::Everything(due) => Place { run_at: Some(due), id: None },
            Self::Job { priority: last, due, .. } if priority < last => Place { run_at: Some(due), id: None },
            Self::Job { priority: last, run_at, id, .. } if priority == last => Place { run_at: Some(run_at), id },
            Self::Job { .. } => Place::default(),
        }
    }
}
