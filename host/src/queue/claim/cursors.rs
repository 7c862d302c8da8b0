//! One cursor for each priority: a scan for jobs begins where the last one ended.
//!
//! Many index entries can precede the first job that can be claimed: dead rows before a vacuum, jobs of busy queues and of tasks
//! that this host does not serve. A scan from the beginning would pay for all of them each time. But a job can also appear behind
//! its cursor: released, unlocked, added with a past date, or by a slow transaction. A full scan, which starts from the beginning,
//! finds those. The cost of the last full scan decides when the next one is due.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

/// The pause after a full scan, as a multiple of its cost: full scans take a tenth of the time.
const REST: u32 = 9;

/// The longest pause, unless full scans would then take more than a fifth of the time.
const LONGEST_REST: Duration = Duration::from_secs(1);
const SHORTEST_REST: u32 = 4;

/// Each full scan in a row that brings nothing doubles the pause, up to this many times.
const DOUBLED: u32 = 5;

/// Time of a scan that does not count as cost. It is shorter for a scan that leaves jobs: many more follow at once, and their costs
/// add up.
const CHEAP: Duration = Duration::from_micros(100);
const CHEAP_AT_THE_END: Duration = Duration::from_micros(500);

/// The most priorities with a cursor. Scans for jobs of other priorities start from the beginning.
const MOST_PRIORITIES: usize = 64;

/// A position among the jobs of one priority. No job at or before it can be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::queue) struct Position {
    /// `None`: the beginning.
    pub(in crate::queue) run_at: Option<SystemTime>,
    /// Within a run of many equal times, the id of the last job scanned. Ties are claimed in the order of their ids.
    pub(in crate::queue) id: Option<i64>,
}

/// The cursors of one kind of scan.
#[derive(Debug, Default)]
pub(in crate::queue) struct Cursors {
    positions: BTreeMap<i16, Position>,
    /// Changes when cursors go back. Ignores the result of a scan that began before.
    version: u64,
    /// Cost of the current full scan, and the number of its jobs.
    cost: Duration,
    jobs: usize,
    /// Full scans in a row that brought nothing.
    empty_scans: u32,
    /// When the next full scan may begin; `None` while one is under way.
    rest_until: Option<Instant>,
    wants_full_scan: bool,
    /// Whether the last scan started from the cursors, and not from the beginning.
    ahead: bool,
}

/// Identifies the cursors with which a scan started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::queue) struct Started(u64);

/// The end of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) enum End {
    /// Every job that was due at this time was scanned.
    Everything(SystemTime),
    /// The scan stopped at this job. `id` as in [`Position`].
    Job { priority: i16, run_at: SystemTime, id: Option<i64>, due: SystemTime },
}

/// The result of a scan.
#[derive(Debug, Clone, Copy)]
pub(in crate::queue) struct Scan<'a> {
    pub(in crate::queue) end: End,
    /// The next scan continues this full scan, whatever it costs.
    pub(in crate::queue) cut_short: bool,
    pub(in crate::queue) took: Duration,
    /// The number of jobs found.
    pub(in crate::queue) jobs: usize,
    /// Known priorities.
    pub(in crate::queue) priorities: &'a [i16],
}

impl Cursors {
    /// Whether a scan that starts now would be a full scan.
    pub(in crate::queue) fn is_full_scan_due(&self, now: Instant) -> bool {
        self.wants_full_scan || self.rest_until.is_some_and(|until| until <= now)
    }

    /// Starts a scan from the cursors; if a full scan is due, they are reset first.
    pub(in crate::queue) fn begin(&mut self, now: Instant) -> Started {
        if self.is_full_scan_due(now) {
            self.wants_full_scan = false;
            self.rest_until = None;
            (self.cost, self.jobs) = (Duration::ZERO, 0);
            if self.positions.len() >= MOST_PRIORITIES {
                self.positions.clear();
            }
            self.positions.values_mut().for_each(|position| *position = Position::default());
            self.version += 1;
        }
        self.ahead = self.rest_until.is_some();
        Started(self.version)
    }

    /// Starts a scan from the cursors even if a full scan is due.
    pub(in crate::queue) fn begin_at_positions(&mut self) -> Started {
        self.ahead = true;
        Started(self.version)
    }

    /// A full scan by pages begins. Other scans skip jobs that are due up to this time, in the given priorities.
    pub(in crate::queue) fn leave_out(&mut self, due: SystemTime, priorities: &[i16], now: Instant) {
        let position = Position { run_at: Some(due), id: None };
        self.positions = priorities.iter().take(MOST_PRIORITIES).map(|priority| (*priority, position)).collect();
        self.version += 1;
        (self.wants_full_scan, self.rest_until) = (false, Some(now));
    }

    /// A full scan by pages has ended.
    pub(in crate::queue) fn full_scan_ended(&mut self, cost: Duration, jobs: usize, now: Instant) {
        (self.cost, self.jobs) = (cost, jobs);
        self.rest_until = Some(now + self.rest());
    }

    /// A scan has ended.
    pub(in crate::queue) fn ended(&mut self, started: Started, scan: Scan<'_>, now: Instant) {
        for priority in scan.priorities {
            if self.positions.len() < MOST_PRIORITIES {
                self.positions.entry(*priority).or_default();
            }
        }
        if started.0 != self.version {
            return;
        }
        for (priority, position) in &mut self.positions {
            *position = (*position).max(scan.end.position(*priority));
        }
        if self.rest_until.is_none() {
            let cheap = if matches!(scan.end, End::Everything(_)) { CHEAP_AT_THE_END } else { CHEAP };
            self.cost += scan.took.saturating_sub(cheap);
            self.jobs += scan.jobs;
            if !scan.cut_short {
                self.rest_until = Some(now + self.rest());
            }
        }
    }

    /// The pause between the end of this full scan and the next one.
    fn rest(&mut self) -> Duration {
        self.empty_scans = if self.jobs == 0 { self.empty_scans.saturating_add(1) } else { 0 };
        let doubled = self.empty_scans.saturating_sub(1).min(DOUBLED);
        (self.cost * REST * 2_u32.pow(doubled)).min(LONGEST_REST.max(self.cost * SHORTEST_REST))
    }

    /// Makes the next scan a full scan.
    pub(in crate::queue) fn reset_cursors(&mut self) {
        self.wants_full_scan = true;
    }

    /// Drops all cursors, because the jobs they passed are gone.
    pub(in crate::queue) fn forget(&mut self) {
        // The new version makes the results of running scans stale.
        *self = Self { version: self.version + 1, ..Self::default() };
    }

    /// Moves the cursor back to a released job. Within a run of ties it goes back to this job only, because the start of the run
    /// may be far away.
    pub(in crate::queue) fn released(&mut self, priority: i16, run_at: SystemTime, id: i64) {
        self.version += 1;
        if let Some(position) = self.positions.get_mut(&priority) {
            let in_ties = position.id.is_some() && position.run_at == Some(run_at);
            *position = (*position).min(Position { run_at: Some(run_at), id: in_ties.then(|| id.saturating_sub(1)) });
        }
    }

    /// The time until another scan can bring jobs although the last one left none; `None` if that one was complete.
    pub(in crate::queue) fn next_full_scan(&self, now: Instant) -> Option<Duration> {
        match self.rest_until {
            Some(until) => self.ahead.then(|| until.saturating_duration_since(now)),
            None => (!self.positions.is_empty()).then_some(Duration::ZERO),
        }
    }

    /// Whether the current scan started from the cursors.
    pub(in crate::queue) fn is_ahead(&self) -> bool {
        self.ahead
    }

    pub(in crate::queue) fn priorities(&self) -> impl Iterator<Item = i16> + '_ {
        self.positions.keys().copied()
    }

    pub(in crate::queue) fn position(&self, priority: i16) -> Position {
        self.positions.get(&priority).copied().unwrap_or_default()
    }
}

impl End {
    /// The position that a scan with this end reached in a priority.
    fn position(self, priority: i16) -> Position {
        match self {
            Self::Everything(due) => Position { run_at: Some(due), id: None },
            Self::Job { priority: last, due, .. } if priority < last => Position { run_at: Some(due), id: None },
            Self::Job { priority: last, run_at, id, .. } if priority == last => Position { run_at: Some(run_at), id },
            Self::Job { .. } => Position::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cursors with a fixed clock.
    struct Bench {
        cursors: Cursors,
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
            Self { cursors: Cursors::default(), now: Instant::now() }
        }

        /// A scan that finds the priorities 0 and 5.
        fn scan(&mut self, end: End, took: u64) {
            let started = self.cursors.begin(self.now);
            self.end(started, end, took, false, 1);
        }

        fn end(&mut self, started: Started, end: End, took: u64, cut_short: bool, jobs: usize) {
            let scan = Scan { end, cut_short, took: milliseconds(took), jobs, priorities: &[0, 5] };
            self.cursors.ended(started, scan, self.now);
        }

        /// The start of the next scan, in seconds; 0 is the beginning.
        fn begins(&mut self) -> [u64; 2] {
            self.cursors.begin(self.now);
            [0, 5].map(|priority| {
                let run_at = self.cursors.position(priority).run_at.unwrap_or(SystemTime::UNIX_EPOCH);
                run_at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
            })
        }
    }

    #[test]
    fn a_scan_begins_where_the_last_one_ended() {
        let mut bench = Bench::new();
        assert_eq!(bench.begins(), [0, 0]);
        bench.scan(job(0, 30), 20);
        assert_eq!(bench.begins(), [30, 0]);
        bench.scan(job(5, 7), 20);
        assert_eq!(bench.begins(), [1000, 7], "more urgent jobs were scanned up to that time");
        bench.scan(End::Everything(at(1100)), 20);
        assert_eq!(bench.begins(), [1100, 1100]);
    }

    #[test]
    fn the_pause_is_nine_times_the_cost_of_a_full_scan_and_a_second_at_most() {
        for (took, rest) in [(20, 180), (100, 900), (200, 1000), (900, 3600)] {
            let mut bench = Bench::new();
            bench.scan(job(0, 30), took);
            // Cheap time does not count.
            let rest = milliseconds(rest).saturating_sub(CHEAP * 10);
            bench.now += rest;
            assert_eq!(bench.begins(), [30, 0], "{took} ms, not yet");
            bench.now += CHEAP * 10;
            assert_eq!(bench.begins(), [0, 0], "{took} ms");
        }
    }

    #[test]
    fn only_cheap_scans_start_from_the_beginning_each_time() {
        for (took, begins) in [(0, [0, 0]), (1, [30, 0])] {
            let mut bench = Bench::new();
            let started = bench.cursors.begin(bench.now);
            bench.end(started, job(0, 30), took, false, 1000);
            assert_eq!(bench.begins(), begins, "{took} ms");
        }
    }

    #[test]
    fn full_scans_that_bring_nothing_become_rarer() {
        let mut bench = Bench::new();
        let mut rests = Vec::new();
        for _ in 0..6 {
            let started = bench.cursors.begin(bench.now);
            bench.end(started, job(0, 30), 11, false, 0);
            let rest = bench.cursors.rest_until.unwrap() - bench.now;
            rests.push(rest.as_millis());
            bench.now += rest;
        }
        assert_eq!(rests, [98, 196, 392, 784, 1000, 1000]);
        bench.scan(job(0, 30), 11);
        assert!(bench.cursors.rest_until.unwrap() - bench.now < milliseconds(100), "one that brings something");
    }

    #[test]
    fn a_full_scan_in_several_parts_counts_as_one() {
        let mut bench = Bench::new();
        for seconds in [10, 20, 30] {
            let started = bench.cursors.begin(bench.now);
            bench.end(started, job(0, seconds), 10, true, 1);
            assert_eq!(bench.cursors.next_full_scan(bench.now), Some(Duration::ZERO), "it goes on");
            assert_eq!(bench.begins(), [seconds, 0]);
        }
        bench.scan(End::Everything(at(40)), 10);
        assert_eq!(bench.cursors.next_full_scan(bench.now), None, "it has seen everything");
        assert!(bench.cursors.rest_until.unwrap() - bench.now > milliseconds(330));
    }

    #[test]
    fn it_knows_when_another_scan_can_bring_jobs() {
        let mut bench = Bench::new();
        bench.scan(End::Everything(at(40)), 20);
        assert_eq!(bench.cursors.next_full_scan(bench.now), None);
        bench.now += milliseconds(100);
        bench.scan(End::Everything(at(41)), 20);
        let rest = bench.cursors.next_full_scan(bench.now).unwrap();
        assert!(rest > Duration::ZERO && rest < milliseconds(80), "{rest:?}");
        bench.now += rest;
        assert_eq!(bench.begins(), [0, 0]);
        bench.scan(End::Everything(at(42)), 20);
        assert_eq!(bench.cursors.next_full_scan(bench.now), None);
    }

    #[test]
    fn a_reset_starts_the_next_scan_from_the_beginning() {
        let mut bench = Bench::new();
        bench.scan(End::Everything(at(40)), 20);
        bench.cursors.reset_cursors();
        assert_eq!(bench.begins(), [0, 0]);
    }

    #[test]
    fn a_released_job_is_not_passed() {
        let mut bench = Bench::new();
        bench.scan(End::Everything(at(1000)), 20);
        let under_way = bench.cursors.begin(bench.now);
        bench.cursors.released(5, at(70), 1);
        bench.cursors.released(5, at(80), 2);
        // The result of an earlier scan is stale.
        bench.end(under_way, End::Everything(at(1001)), 20, false, 1);
        assert_eq!(bench.begins(), [1000, 70]);
    }

    /// A cursor that went back to the start of the run for each released job made scans pass all finished jobs again and again.
    #[test]
    fn a_released_job_moves_the_cursor_back_within_its_ties() {
        let mut bench = Bench::new();
        bench.scan(End::Job { priority: 0, run_at: at(30), id: Some(500), due: at(1000) }, 20);
        bench.cursors.released(0, at(30), 420);
        bench.cursors.released(0, at(30), 470);
        assert_eq!(bench.cursors.position(0), Position { run_at: Some(at(30)), id: Some(419) });
        bench.cursors.released(0, at(29), 600);
        assert_eq!(bench.cursors.position(0), Position { run_at: Some(at(29)), id: None });
    }

    #[test]
    fn of_two_concurrent_scans_the_farther_one_counts() {
        let mut bench = Bench::new();
        let (first, second) = (bench.cursors.begin(bench.now), bench.cursors.begin(bench.now));
        bench.end(second, job(0, 60), 20, false, 1);
        bench.end(first, job(0, 50), 20, false, 1);
        assert_eq!(bench.begins(), [60, 0]);
        // A scan from before the reset is stale.
        let before = bench.cursors.begin(bench.now);
        bench.cursors.reset_cursors();
        bench.scan(job(0, 10), 20);
        bench.end(before, job(0, 70), 20, false, 1);
        assert_eq!(bench.begins(), [10, 0]);
    }

    #[test]
    fn priorities_beyond_the_limit_have_no_cursor() {
        let mut cursors = Cursors::default();
        let all: Vec<i16> = (0..100).collect();
        let now = Instant::now();
        let started = cursors.begin(now);
        let scan = Scan { end: job(99, 1), cut_short: false, took: milliseconds(20), jobs: 1, priorities: &all };
        cursors.ended(started, scan, now);
        assert_eq!(cursors.priorities().count(), MOST_PRIORITIES);
        assert_eq!(cursors.position(80), Position::default());
    }
}
