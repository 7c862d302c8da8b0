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

/// What a walk may take without counting as a cost, because there is little to be saved. One that leaves jobs for the next walk is
/// followed by it at once, and then by many: what each of them passes adds up.
const CHEAP: Duration = Duration::from_micros(100);
const CHEAP_AT_THE_END: Duration = Duration::from_micros(500);

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
    /// Whether the last walk left out what other laps have passed.
    ahead: bool,
}

/// A walk that is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
    /// Whether a walk that begins now would be a new lap.
    pub(in crate::queue) fn is_lap_due(&self, now: Instant) -> bool {
        self.wants_lap || self.rest_until.is_some_and(|until| until <= now)
    }

    /// A walk begins now: at the places, which may have gone back to the beginning just now.
    pub(in crate::queue) fn begin(&mut self, now: Instant) -> Begun {
        if self.is_lap_due(now) {
            self.wants_lap = false;
            self.rest_until = None;
            (self.cost, self.jobs) = (Duration::ZERO, 0);
            if self.places.len() >= MOST_PRIORITIES {
                self.places.clear();
            }
            self.places.values_mut().for_each(|place| *place = Place::default());
            self.version += 1;
        }
        self.ahead = self.rest_until.is_some();
        Begun(self.version)
    }

    /// A walk begins now at the places, although a lap may be due.
    pub(in crate::queue) fn begin_at_places(&mut self) -> Begun {
        self.ahead = true;
        Begun(self.version)
    }

    /// A lap begins that is no matter of walks: they leave out what is due up to this time, in the priorities that there are.
    pub(in crate::queue) fn leave_out(&mut self, due: SystemTime, priorities: &[i16], now: Instant) {
        let place = Place { run_at: Some(due), id: None };
        self.places = priorities.iter().take(MOST_PRIORITIES).map(|priority| (*priority, place)).collect();
        self.version += 1;
        (self.wants_lap, self.rest_until) = (false, Some(now));
    }

    /// Such a lap has ended.
    pub(in crate::queue) fn lap_ended(&mut self, cost: Duration, jobs: usize, now: Instant) {
        (self.cost, self.jobs) = (cost, jobs);
        self.rest_until = Some(now + self.rest());
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
            let cheap = if matches!(walk.end, End::Everything(_)) { CHEAP_AT_THE_END } else { CHEAP };
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

    /// What was passed is not there any more.
    pub(in crate::queue) fn forget(&mut self) {
        // Walks under way say nothing of what is there now.
        *self = Self { version: self.version + 1, ..Self::default() };
    }

    /// A job that was passed can be claimed again. In the middle of a crowd, the walk goes back to it and not to where the crowd
    /// begins, which could be far.
    pub(in crate::queue) fn came_back(&mut self, priority: i16, run_at: SystemTime, id: i64) {
        self.version += 1;
        if let Some(place) = self.places.get_mut(&priority) {
            let in_crowd = place.id.is_some() && place.run_at == Some(run_at);
            *place = (*place).min(Place { run_at: Some(run_at), id: in_crowd.then(|| id.saturating_sub(1)) });
        }
    }

    /// When it is worth to walk once more although the last walk brought all that it saw; `None` if it saw all that there is.
    pub(in crate::queue) fn next_lap(&self, now: Instant) -> Option<Duration> {
        match self.rest_until {
            Some(until) => self.ahead.then(|| until.saturating_duration_since(now)),
            None => (!self.places.is_empty()).then_some(Duration::ZERO),
        }
    }

    /// Whether the walk under way leaves out what was passed before.
    pub(in crate::queue) fn is_ahead(&self) -> bool {
        self.ahead
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that is held, and the times by which jobs go.
    struct Bench {
        frontier: Frontier,
        now: Instant,
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn job(priority: i16, seconds: u64) -> End {
        End::Job { priority, run_at: at(seconds), id: None, due: at(1000) }
    }

    fn milliseconds(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    impl Bench {
        fn new() -> Self {
            Self { frontier: Frontier::default(), now: Instant::now() }
        }

        /// Jobs of the priorities 0 and 5 are there.
        fn walk(&mut self, end: End, took: u64) {
            let begun = self.frontier.begin(self.now);
            self.end(begun, end, took, false, 1);
        }

        fn end(&mut self, begun: Begun, end: End, took: u64, cut_short: bool, jobs: usize) {
            let walk = Walk { end, cut_short, took: milliseconds(took), jobs, priorities: &[0, 5] };
            self.frontier.ended(begun, walk, self.now);
        }

        /// Where the next walk begins, in seconds; 0: at the beginning.
        fn begins(&mut self) -> [u64; 2] {
            self.frontier.begin(self.now);
            [0, 5].map(|priority| {
                let run_at = self.frontier.place(priority).run_at.unwrap_or(SystemTime::UNIX_EPOCH);
                run_at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
            })
        }
    }

    #[test]
    fn a_walk_begins_where_the_last_one_ended() {
        let mut bench = Bench::new();
        assert_eq!(bench.begins(), [0, 0]);
        bench.walk(job(0, 30), 20);
        assert_eq!(bench.begins(), [30, 0]);
        bench.walk(job(5, 7), 20);
        assert_eq!(bench.begins(), [1000, 7], "what is more urgent was walked up to that time");
        bench.walk(End::Everything(at(1100)), 20);
        assert_eq!(bench.begins(), [1100, 1100]);
    }

    #[test]
    fn the_next_lap_waits_nine_times_as_long_as_the_last_one_took_and_a_second_at_most() {
        for (took, rest) in [(20, 180), (100, 900), (200, 1000), (900, 3600)] {
            let mut bench = Bench::new();
            bench.walk(job(0, 30), took);
            // Up to there it costs nothing that could be saved.
            let rest = milliseconds(rest).saturating_sub(CHEAP * 10);
            bench.now += rest;
            assert_eq!(bench.begins(), [30, 0], "{took} ms, not yet");
            bench.now += CHEAP * 10;
            assert_eq!(bench.begins(), [0, 0], "{took} ms");
        }
    }

    #[test]
    fn only_what_is_cheap_and_brings_no_more_for_many_walks_begins_at_the_beginning_each_time() {
        for (took, begins) in [(0, [0, 0]), (1, [30, 0])] {
            let mut bench = Bench::new();
            let begun = bench.frontier.begin(bench.now);
            bench.end(begun, job(0, 30), took, false, 1000);
            assert_eq!(bench.begins(), begins, "{took} ms");
        }
    }

    #[test]
    fn laps_in_vain_become_rarer() {
        let mut bench = Bench::new();
        let mut rests = Vec::new();
        for _ in 0..6 {
            let begun = bench.frontier.begin(bench.now);
            bench.end(begun, job(0, 30), 11, false, 0);
            let rest = bench.frontier.rest_until.unwrap() - bench.now;
            rests.push(rest.as_millis());
            bench.now += rest;
        }
        assert_eq!(rests, [98, 196, 392, 784, 1000, 1000]);
        bench.walk(job(0, 30), 11);
        assert!(bench.frontier.rest_until.unwrap() - bench.now < milliseconds(100), "one that brings something");
    }

    #[test]
    fn a_lap_of_several_walks_counts_as_one() {
        let mut bench = Bench::new();
        for seconds in [10, 20, 30] {
            let begun = bench.frontier.begin(bench.now);
            bench.end(begun, job(0, seconds), 10, true, 1);
            assert_eq!(bench.frontier.next_lap(bench.now), Some(Duration::ZERO), "it goes on");
            assert_eq!(bench.begins(), [seconds, 0]);
        }
        bench.walk(End::Everything(at(40)), 10);
        assert_eq!(bench.frontier.next_lap(bench.now), None, "it has seen everything");
        assert!(bench.frontier.rest_until.unwrap() - bench.now > milliseconds(330));
    }

    #[test]
    fn it_tells_when_there_may_be_more() {
        let mut bench = Bench::new();
        bench.walk(End::Everything(at(40)), 20);
        assert_eq!(bench.frontier.next_lap(bench.now), None);
        bench.now += milliseconds(100);
        bench.walk(End::Everything(at(41)), 20);
        let rest = bench.frontier.next_lap(bench.now).unwrap();
        assert!(rest > Duration::ZERO && rest < milliseconds(80), "{rest:?}");
        bench.now += rest;
        assert_eq!(bench.begins(), [0, 0]);
        bench.walk(End::Everything(at(42)), 20);
        assert_eq!(bench.frontier.next_lap(bench.now), None);
    }

    #[test]
    fn looking_everywhere_puts_nothing_off() {
        let mut bench = Bench::new();
        bench.walk(End::Everything(at(40)), 20);
        bench.frontier.look_everywhere();
        assert_eq!(bench.begins(), [0, 0]);
    }

    #[test]
    fn a_job_that_comes_back_is_not_passed() {
        let mut bench = Bench::new();
        bench.walk(End::Everything(at(1000)), 20);
        let under_way = bench.frontier.begin(bench.now);
        bench.frontier.came_back(5, at(70), 1);
        bench.frontier.came_back(5, at(80), 2);
        // A walk that began before that may have passed it.
        bench.end(under_way, End::Everything(at(1001)), 20, false, 1);
        assert_eq!(bench.begins(), [1000, 70]);
    }

    /// Going back to the beginning of a crowd for each job that was left behind once made the walks pass all that was done, over
    /// and over.
    #[test]
    fn a_walk_goes_back_into_a_crowd_as_far_as_it_has_to() {
        let mut bench = Bench::new();
        bench.walk(End::Job { priority: 0, run_at: at(30), id: Some(500), due: at(1000) }, 20);
        bench.frontier.came_back(0, at(30), 420);
        bench.frontier.came_back(0, at(30), 470);
        assert_eq!(bench.frontier.place(0), Place { run_at: Some(at(30)), id: Some(419) });
        bench.frontier.came_back(0, at(29), 600);
        assert_eq!(bench.frontier.place(0), Place { run_at: Some(at(29)), id: None });
    }

    #[test]
    fn of_two_walks_at_once_the_farther_one_counts() {
        let mut bench = Bench::new();
        let (first, second) = (bench.frontier.begin(bench.now), bench.frontier.begin(bench.now));
        bench.end(second, job(0, 60), 20, false, 1);
        bench.end(first, job(0, 50), 20, false, 1);
        assert_eq!(bench.begins(), [60, 0]);
        // One from before a lap says nothing of what the lap has passed.
        let before = bench.frontier.begin(bench.now);
        bench.frontier.look_everywhere();
        bench.walk(job(0, 10), 20);
        bench.end(before, job(0, 70), 20, false, 1);
        assert_eq!(bench.begins(), [10, 0]);
    }

    #[test]
    fn more_priorities_than_it_knows_do_no_harm() {
        let mut frontier = Frontier::default();
        let all: Vec<i16> = (0..100).collect();
        let now = Instant::now();
        let begun = frontier.begin(now);
        let walk = Walk { end: job(99, 1), cut_short: false, took: milliseconds(20), jobs: 1, priorities: &all };
        frontier.ended(begun, walk, now);
        assert_eq!(frontier.priorities().count(), MOST_PRIORITIES);
        assert_eq!(frontier.place(80), Place::default());
    }
}
