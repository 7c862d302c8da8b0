//! A lap page by page, for claims that something cuts off: a time limit that cannot be lifted, a pooler's, a hand.
//!
//! A walk that is cut off has seen nothing, and the next one would be cut off at the same place. So the lap is left to reads of a
//! bounded number of entries, each of which begins where the last one ended. They say where jobs stand that may be claimed, which
//! are then claimed by their ids. Walks look for jobs that became due since the lap began.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Frontiers,
    page::{Candidate, Cursor, Page, Seen},
};
use crate::queue::{Job, QueueError};

/// How many entries a page has at first; each page that is cut off makes the next ones a quarter as long, down to the shortest.
const LONGEST: i64 = 8192;
const SHORTEST: i64 = 128;

/// A claim that was cut off by the server leads to pages at once. A lost connection can have other reasons, so that it takes
/// two in a row.
const CANCELLED: usize = 2;
const LOST: usize = 1;

/// So often it is found out whether claims are cut off still.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::queue) enum Next {
    /// Nothing: a claim from the places sees all.
    Walk,
    /// Find out which priorities there are, and what the time is.
    Begin,
    Read(Page),
    Claim(Vec<Candidate>),
}

/// How laps are made once claims are cut off.
#[derive(Debug)]
pub(super) struct Pages {
    since: Instant,
    size: i64,
    /// How many candidates are claimed at once.
    most: usize,
    laps: u64,
    lap: Option<Lap>,
    /// Walks are cut off although they leave out what the lap has: they wait for its end.
    without_walks: bool,
    /// The last page brought jobs: new ones are looked for before the next.
    walk_next: bool,
}

/// The lap under way.
#[derive(Debug)]
struct Lap {
    /// `None`: there are no more pages.
    at: Option<Cursor>,
    due: SystemTime,
    /// Of the pages that were read.
    candidates: VecDeque<Candidate>,
    entries: i64,
    cost: Duration,
    jobs: usize,
}

impl Pages {
    fn new(now: Instant) -> Self {
        Self { since: now, size: LONGEST, most: usize::MAX, laps: 0, lap: None, without_walks: false, walk_next: false }
    }
}

impl Frontiers {
    /// A claim has failed. If it was cut off, the next ones will not all be in vain.
    pub(in crate::queue) fn failed(&mut self, error: &QueueError, now: Instant) {
        let weight = if error.is_cancelled() { CANCELLED } else { LOST };
        if !error.cuts_off() {
            return;
        }
        self.calm = super::Calm::default();
        if let Some(pages) = &mut self.pages {
            match pages.lap {
                Some(_) => pages.without_walks = true,
                None => self.look_everywhere(),
            }
            return;
        }
        self.cut_off += weight;
        if self.cut_off >= CANCELLED {
            self.pages = Some(Pages::new(now));
            self.look_everywhere();
        }
    }

    /// A walk has ended.
    pub(super) fn was_not_cut_off(&mut self) {
        self.cut_off = 0;
    }

    /// Whether a lap by pages is under way, or due.
    pub(in crate::queue) fn has_pages(&self, now: Instant) -> bool {
        self.pages.as_ref().is_some_and(|pages| pages.lap.is_some() || self.is_lap_due(now))
    }

    /// Whether it is the turn of a page: where pages bring jobs, every other claim looks for new ones first.
    pub(in crate::queue) fn is_turn_of_pages(&mut self, now: Instant) -> bool {
        let has_pages = self.has_pages(now);
        has_pages && self.pages.as_mut().is_some_and(|pages| !mem::take(&mut pages.walk_next) || pages.without_walks)
    }

    /// Walks see no jobs in queues then: the lap may have earlier ones of the same queue to come.
    pub(super) fn has_lap_under_way(&self) -> bool {
        self.pages.as_ref().is_some_and(|pages| pages.lap.is_some())
    }

    /// Whether claims from the places are of no use for now.
    pub(in crate::queue) fn is_without_walks(&self) -> bool {
        self.pages.as_ref().is_some_and(|pages| pages.without_walks)
    }

    fn is_lap_due(&self, now: Instant) -> bool {
        self.free.is_lap_due(now) || self.queued.is_lap_due(now)
    }

    /// What a claim of up to `limit` jobs is to do next.
    pub(in crate::queue) fn next(&mut self, limit: usize, now: Instant) -> Next {
        let due = self.is_lap_due(now);
        let Some(pages) = &mut self.pages else { return Next::Walk };
        let Some(lap) = &pages.lap else {
            if due && now.saturating_duration_since(pages.since) > TRY_AGAIN {
                self.pages = None;
                return Next::Walk;
            }
            return if due { Next::Begin } else { Next::Walk };
        };
        let page = lap.at.map(|at| Page { lap: pages.laps, at, size: pages.size, due: lap.due });
        let limit = limit.min(pages.most);
        let picked = self.pick(limit);
        match page {
            _ if !picked.is_empty() => Next::Claim(picked),
            Some(page) => Next::Read(page),
            None => {
                self.lap_ended(now);
                Next::Walk
            }
        }
    }

    /// The next candidates, of each queue one at most: the others have their turn later. Those of queues that wait behind are passed,
    /// because the next job of such a queue stands there.
    fn pick(&mut self, limit: usize) -> Vec<Candidate> {
        let (mut picked, mut later) = (Vec::new(), Vec::new());
        let Some(lap) = self.pages.as_mut().and_then(|pages| pages.lap.as_mut()) else { return picked };
        let mut queues = HashSet::new();
        while picked.len() < limit {
            let Some(candidate) = lap.candidates.pop_front() else { break };
            match candidate.queue {
                Some(queue) if self.waiting.has(queue) => self.waiting.passed(queue, candidate.spot),
                Some(queue) if !queues.insert(queue) => later.push(candidate),
                _ => picked.push(candidate),
            }
        }
        self.put_back(later);
        picked
    }

    /// Candidates for a claim that is marked part by part.
    pub(in crate::queue) fn pick_carefully(&mut self, limit: usize) -> Option<Vec<Candidate>> {
        Some(self.pick(limit)).filter(|picked| !picked.is_empty())
    }

    /// Answers [`Next::Begin`]: these priorities are there, and jobs are due up to this time.
    pub(in crate::queue) fn lap_begins(&mut self, priorities: &[i16], due: SystemTime, now: Instant) {
        let Some(pages) = &mut self.pages else { return };
        if pages.lap.is_some() {
            return;
        }
        pages.laps += 1;
        pages.lap = Some(Lap {
            at: Some(Cursor::BEGINNING),
            due,
            candidates: VecDeque::new(),
            entries: 0,
            cost: Duration::ZERO,
            jobs: 0,
        });
        self.free.leave_out(due, priorities, now);
        self.queued.leave_out(due, priorities, now);
    }

    /// Answers [`Next::Read`]. Another claim may have read the same page.
    pub(in crate::queue) fn page_read(&mut self, page: Page, seen: Seen, took: Duration) {
        let Some(pages) = self.pages.as_mut().filter(|pages| pages.laps == page.lap) else { return };
        let Some(lap) = pages.lap.as_mut().filter(|lap| lap.at == Some(page.at)) else { return };
        lap.at = page.after(&seen);
        lap.entries += seen.entries;
        lap.cost += took;
        lap.candidates.extend(seen.candidates);
    }

    /// Reading so long a page was cut off. Returns whether it is worth to try a shorter one.
    pub(in crate::queue) fn page_was_cut(&mut self, size: i64) -> bool {
        if let Some(pages) = &mut self.pages {
            pages.size = pages.size.min((size / 4).max(SHORTEST));
        }
        size > SHORTEST
    }

    /// Claiming so many was cut off. Returns whether it is worth to try fewer.
    pub(in crate::queue) fn picked_were_cut(&mut self, number: usize) -> bool {
        if let Some(pages) = &mut self.pages {
            pages.most = pages.most.min((number / 4).max(1));
        }
        number > 1
    }

    /// Answers [`Next::Claim`].
    pub(in crate::queue) fn picked_are_claimed(&mut self, picked: &[Candidate], jobs: &[Job], took: Duration) {
        let claimed: HashSet<i64> = jobs.iter().map(|job| job.id).collect();
        for candidate in picked.iter().filter(|candidate| !claimed.contains(&candidate.id)) {
            if let Some(queue) = candidate.queue {
                self.waiting.passed(queue, candidate.spot);
            }
        }
        let Some(pages) = &mut self.pages else { return };
        pages.walk_next = !jobs.is_empty();
        if let Some(lap) = &mut pages.lap {
            lap.cost += took;
            lap.jobs += jobs.len();
        }
    }

    /// These could not be claimed for a reason that says nothing of each of them.
    pub(in crate::queue) fn put_back(&mut self, picked: Vec<Candidate>) {
        if let Some(lap) = self.pages.as_mut().and_then(|pages| pages.lap.as_mut()) {
            picked.into_iter().rev().for_each(|candidate| lap.candidates.push_front(candidate));
        }
    }

    fn lap_ended(&mut self, now: Instant) {
        let Some(pages) = &mut self.pages else { return };
        let Some(lap) = pages.lap.take() else { return };
        pages.without_walks = false;
        self.free.lap_ended(lap.cost, lap.jobs, now);
        self.queued.lap_ended(lap.cost, lap.jobs, now);
        // So few that a walk passes them as well.
        if lap.entries <= pages.size / 4 {
            self.pages = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn cancelled() -> QueueError {
        let code = Some(tokio_postgres::error::SqlState::QUERY_CANCELED);
        QueueError::Statement { what: "x", reason: String::new(), code, lost: false }
    }

    fn lost() -> QueueError {
        QueueError::Statement { what: "x", reason: String::new(), code: None, lost: true }
    }

    /// A lap has begun.
    fn lap(now: Instant) -> Frontiers {
        let mut frontiers = Frontiers::default();
        frontiers.failed(&cancelled(), now);
        assert_eq!(frontiers.next(10, now), Next::Begin);
        frontiers.lap_begins(&[0, 5], at(1000), now);
        frontiers
    }

    fn page(frontiers: &mut Frontiers, now: Instant) -> Page {
        match frontiers.next(10, now) {
            Next::Read(page) => page,
            other => panic!("{other:?} is no page"),
        }
    }

    fn seen(entries: i64, priority: i16, seconds: u64, id: i64) -> Seen {
        Seen { candidates: Vec::new(), entries, priority: Some(priority), run_at: Some(at(seconds)), id: Some(id) }
    }

    fn candidate(id: i64, queue: Option<i32>) -> Candidate {
        Candidate { id, queue, spot: (0, at(1)) }
    }

    #[test]
    fn a_cancelled_claim_leads_to_pages_and_so_do_two_lost_connections_in_a_row() {
        let now = Instant::now();
        let mut frontiers = Frontiers::default();
        assert_eq!(frontiers.next(10, now), Next::Walk);
        frontiers.failed(&lost(), now);
        assert!(!frontiers.has_pages(now));
        frontiers.was_not_cut_off();
        frontiers.failed(&lost(), now);
        assert!(!frontiers.has_pages(now), "one went through in between");
        frontiers.failed(&lost(), now);
        assert!(frontiers.has_pages(now));
        assert!(lap(now).has_pages(now));
    }

    #[test]
    fn each_page_begins_where_the_last_one_ended() {
        let now = Instant::now();
        let mut frontiers = lap(now);
        let mut read = |entries, priority, seconds, id| {
            let page = page(&mut frontiers, now);
            frontiers.page_read(page, seen(entries, priority, seconds, id), Duration::ZERO);
            page.at
        };
        let cursor = |priority, run_at: Option<u64>, id| Cursor { priority, run_at: run_at.map(at), id };
        assert_eq!(read(LONGEST, 0, 10, 1), Cursor::BEGINNING);
        assert_eq!(read(LONGEST, 0, 20, 1), cursor(0, Some(10), None));
        assert_eq!(read(LONGEST, 0, 20, 1), cursor(0, Some(20), None));
        assert_eq!(read(LONGEST, 0, 90, 700), cursor(0, Some(20), Some(i64::MIN)), "all of them at one moment");
        assert_eq!(read(3, 0, 90, 900), cursor(0, Some(20), Some(700)));
        let after = at(20) + Duration::from_micros(1);
        assert_eq!(read(3, 0, 90, 900), Cursor { priority: 0, run_at: Some(after), id: None });
        assert_eq!(read(3, 5, 90, 900), cursor(1, None, None), "the next priority");
        assert_eq!(read(0, 0, 0, 0), cursor(6, None, None));
    }

    #[test]
    fn a_lap_that_had_little_to_pass_is_the_last_one_by_pages() {
        for (entries, goes_on) in [(LONGEST / 4, false), (LONGEST / 2, true)] {
            let mut now = Instant::now();
            let mut frontiers = lap(now);
            let first = page(&mut frontiers, now);
            frontiers.page_read(first, Seen { priority: None, ..seen(entries, 0, 1, 1) }, Duration::from_millis(10));
            assert_eq!(frontiers.next(10, now), Next::Walk);
            now += Duration::from_secs(30);
            assert_eq!(frontiers.has_pages(now), goes_on);
            now += TRY_AGAIN;
            assert_eq!(frontiers.next(10, now), Next::Walk, "it may be over");
        }
    }

    #[test]
    fn pages_become_shorter_down_to_some_entries() {
        let now = Instant::now();
        let mut frontiers = lap(now);
        let mut sizes = Vec::new();
        loop {
            sizes.push(page(&mut frontiers, now).size);
            if !frontiers.page_was_cut(sizes[sizes.len() - 1]) {
                break;
            }
        }
        assert_eq!(sizes, [8192, 2048, 512, SHORTEST]);
    }

    #[test]
    fn one_job_of_each_queue_is_claimed_at_a_time_and_none_of_a_queue_that_waits_behind() {
        let now = Instant::now();
        let mut frontiers = lap(now);
        frontiers.waiting.passed(3, (0, at(1)));
        let candidates =
            [(1, None), (2, Some(1)), (3, Some(1)), (4, Some(3)), (5, Some(2))].map(|(id, queue)| candidate(id, queue));
        let first = page(&mut frontiers, now);
        frontiers.page_read(first, Seen { candidates: candidates.to_vec(), ..seen(5, 0, 1, 5) }, Duration::ZERO);
        let mut ids = || match frontiers.next(10, now) {
            Next::Claim(picked) => picked.iter().map(|candidate| candidate.id).collect(),
            _ => Vec::new(),
        };
        assert_eq!(ids(), [1, 2, 5]);
        assert_eq!(ids(), [3]);
        assert!(ids().is_empty());
    }
}
