//! A full scan page by page, for claims that are cut off: by a time limit that the host cannot lift, by a pooler, or by hand.
//!
//! A scan that is cut off brings nothing, and the next one would be cut off at the same point. So the full scan reads pages of a
//! bounded number of entries, each from the end of the last one. The candidates that it finds are then claimed by their ids. Scans
//! from the cursors look for jobs that became due in the meantime.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    time::{Duration, Instant, SystemTime},
};

use super::{
    ScanState,
    page::{Candidate, Page, PageStart, Seen},
};
use crate::queue::{Job, QueueError};

/// Entries of the first page. Each page that is cut off makes the next ones a quarter as long, down to the shortest.
const LONGEST: i64 = 8192;
const SHORTEST: i64 = 128;

/// A claim that the server cancelled leads to pages at once. A lost connection can have other reasons, so it takes two in a row.
const CANCELLED: usize = 2;
const LOST: usize = 1;

/// The time after which a single scan is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// The next action of a claim.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::queue) enum Next {
    /// Scan from the cursors.
    Scan,
    /// Read the existing priorities and the time.
    Begin,
    Read(Page),
    Claim(Vec<Candidate>),
}

/// The state of full scans by pages.
#[derive(Debug)]
pub(super) struct Pages {
    since: Instant,
    size: i64,
    /// The most candidates that one statement claims.
    most: usize,
    full_scans: u64,
    full_scan: Option<FullScan>,
    /// Scans from the cursors are cut off as well: they wait for the end of the full scan.
    without_scans: bool,
    /// The last page brought jobs: a scan for new ones comes before the next page.
    scan_next: bool,
}

/// The current full scan.
#[derive(Debug)]
struct FullScan {
    /// The next page; `None` after the last one.
    at: Option<PageStart>,
    due: SystemTime,
    /// From the pages read so far.
    candidates: VecDeque<Candidate>,
    entries: i64,
    cost: Duration,
    jobs: usize,
}

impl Pages {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            size: LONGEST,
            most: usize::MAX,
            full_scans: 0,
            full_scan: None,
            without_scans: false,
            scan_next: false,
        }
    }
}

impl ScanState {
    /// Records the failure of a claim. Switches to pages if it was cut off.
    pub(in crate::queue) fn failed(&mut self, error: &QueueError, now: Instant) {
        let weight = if error.is_cancelled() { CANCELLED } else { LOST };
        if !error.cuts_off() {
            return;
        }
        self.fast_path = super::FastPath::default();
        if let Some(pages) = &mut self.pages {
            match pages.full_scan {
                Some(_) => pages.without_scans = true,
                None => self.reset_cursors(),
            }
            return;
        }
        self.cut_off += weight;
        if self.cut_off >= CANCELLED {
            self.pages = Some(Pages::new(now));
            self.reset_cursors();
        }
    }

    /// Records a scan that was not cut off.
    pub(super) fn was_not_cut_off(&mut self) {
        self.cut_off = 0;
    }

    /// Whether a full scan by pages is running or due.
    pub(in crate::queue) fn has_pages(&self, now: Instant) -> bool {
        self.pages.as_ref().is_some_and(|pages| pages.full_scan.is_some() || self.is_full_scan_due(now))
    }

    /// Whether a page comes next. While pages bring jobs, every other claim looks for new jobs first.
    pub(in crate::queue) fn is_turn_of_pages(&mut self, now: Instant) -> bool {
        let has_pages = self.has_pages(now);
        has_pages && self.pages.as_mut().is_some_and(|pages| !mem::take(&mut pages.scan_next) || pages.without_scans)
    }

    /// Scans skip jobs in queues during a full scan by pages, which may still find earlier jobs of the same queue.
    pub(super) fn is_in_full_scan(&self) -> bool {
        self.pages.as_ref().is_some_and(|pages| pages.full_scan.is_some())
    }

    /// Whether scans from the cursors are suspended.
    pub(in crate::queue) fn is_without_scans(&self) -> bool {
        self.pages.as_ref().is_some_and(|pages| pages.without_scans)
    }

    fn is_full_scan_due(&self, now: Instant) -> bool {
        self.free.is_full_scan_due(now) || self.queued.is_full_scan_due(now)
    }

    /// The next action of a claim of up to `limit` jobs.
    pub(in crate::queue) fn next(&mut self, limit: usize, now: Instant) -> Next {
        let due = self.is_full_scan_due(now);
        let Some(pages) = &mut self.pages else { return Next::Scan };
        let Some(full_scan) = &pages.full_scan else {
            if due && now.saturating_duration_since(pages.since) > TRY_AGAIN {
                self.pages = None;
                return Next::Scan;
            }
            return if due { Next::Begin } else { Next::Scan };
        };
        let page =
            full_scan.at.map(|at| Page { full_scan: pages.full_scans, at, size: pages.size, due: full_scan.due });
        let limit = limit.min(pages.most);
        let picked = self.pick(limit);
        match page {
            _ if !picked.is_empty() => Next::Claim(picked),
            Some(page) => Next::Read(page),
            None => {
                self.full_scan_ended(now);
                Next::Scan
            }
        }
    }

    /// The next candidates, at most one of each queue. Skips queues whose next job lies behind the cursor.
    fn pick(&mut self, limit: usize) -> Vec<Candidate> {
        let (mut picked, mut later) = (Vec::new(), Vec::new());
        let Some(full_scan) = self.pages.as_mut().and_then(|pages| pages.full_scan.as_mut()) else { return picked };
        let mut queues = HashSet::new();
        while picked.len() < limit {
            let Some(candidate) = full_scan.candidates.pop_front() else { break };
            match candidate.queue {
                Some(queue) if self.waiting.has(queue) => self.waiting.passed(queue, candidate.spot),
                Some(queue) if !queues.insert(queue) => later.push(candidate),
                _ => picked.push(candidate),
            }
        }
        self.put_back(later);
        picked
    }

    /// Candidates for a claim that marks jobs part by part.
    pub(in crate::queue) fn pick_carefully(&mut self, limit: usize) -> Option<Vec<Candidate>> {
        Some(self.pick(limit)).filter(|picked| !picked.is_empty())
    }

    /// Records the result of [`Next::Begin`].
    pub(in crate::queue) fn full_scan_begins(&mut self, priorities: &[i16], due: SystemTime, now: Instant) {
        let Some(pages) = &mut self.pages else { return };
        if pages.full_scan.is_some() {
            return;
        }
        pages.full_scans += 1;
        pages.full_scan = Some(FullScan {
            at: Some(PageStart::BEGINNING),
            due,
            candidates: VecDeque::new(),
            entries: 0,
            cost: Duration::ZERO,
            jobs: 0,
        });
        self.free.leave_out(due, priorities, now);
        self.queued.leave_out(due, priorities, now);
    }

    /// Records the result of [`Next::Read`]. Another claim may have read the same page.
    pub(in crate::queue) fn page_read(&mut self, page: Page, seen: Seen, took: Duration) {
        let Some(pages) = self.pages.as_mut().filter(|pages| pages.full_scans == page.full_scan) else { return };
        let Some(full_scan) = pages.full_scan.as_mut().filter(|full_scan| full_scan.at == Some(page.at)) else {
            return;
        };
        full_scan.at = page.after(&seen);
        full_scan.entries += seen.entries;
        full_scan.cost += took;
        full_scan.candidates.extend(seen.candidates);
    }

    /// Reading a page of this size was cut off. Returns whether to try a shorter one.
    pub(in crate::queue) fn page_was_cut(&mut self, size: i64) -> bool {
        if let Some(pages) = &mut self.pages {
            pages.size = pages.size.min((size / 4).max(SHORTEST));
        }
        size > SHORTEST
    }

    /// Claiming this many candidates was cut off. Returns whether to try fewer.
    pub(in crate::queue) fn picked_were_cut(&mut self, number: usize) -> bool {
        if let Some(pages) = &mut self.pages {
            pages.most = pages.most.min((number / 4).max(1));
        }
        number > 1
    }

    /// Records the result of [`Next::Claim`].
    pub(in crate::queue) fn picked_are_claimed(&mut self, picked: &[Candidate], jobs: &[Job], took: Duration) {
        let claimed: HashSet<i64> = jobs.iter().map(|job| job.id).collect();
        for candidate in picked.iter().filter(|candidate| !claimed.contains(&candidate.id)) {
            if let Some(queue) = candidate.queue {
                self.waiting.passed(queue, candidate.spot);
            }
        }
        let Some(pages) = &mut self.pages else { return };
        pages.scan_next = !jobs.is_empty();
        if let Some(full_scan) = &mut pages.full_scan {
            full_scan.cost += took;
            full_scan.jobs += jobs.len();
        }
    }

    /// Returns candidates whose claim failed as a whole.
    pub(in crate::queue) fn put_back(&mut self, picked: Vec<Candidate>) {
        if let Some(full_scan) = self.pages.as_mut().and_then(|pages| pages.full_scan.as_mut()) {
            picked.into_iter().rev().for_each(|candidate| full_scan.candidates.push_front(candidate));
        }
    }

    fn full_scan_ended(&mut self, now: Instant) {
        let Some(pages) = &mut self.pages else { return };
        let Some(full_scan) = pages.full_scan.take() else { return };
        pages.without_scans = false;
        self.free.full_scan_ended(full_scan.cost, full_scan.jobs, now);
        self.queued.full_scan_ended(full_scan.cost, full_scan.jobs, now);
        // Few enough for a single scan.
        if full_scan.entries <= pages.size / 4 {
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

    /// A full scan has started.
    fn full_scan(now: Instant) -> ScanState {
        let mut state = ScanState::default();
        state.failed(&cancelled(), now);
        assert_eq!(state.next(10, now), Next::Begin);
        state.full_scan_begins(&[0, 5], at(1000), now);
        state
    }

    fn page(state: &mut ScanState, now: Instant) -> Page {
        match state.next(10, now) {
            Next::Read(page) => page,
            other => panic!("{other:?} is not a page"),
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
        let mut state = ScanState::default();
        assert_eq!(state.next(10, now), Next::Scan);
        state.failed(&lost(), now);
        assert!(!state.has_pages(now));
        state.was_not_cut_off();
        state.failed(&lost(), now);
        assert!(!state.has_pages(now), "a claim succeeded in between");
        state.failed(&lost(), now);
        assert!(state.has_pages(now));
        assert!(full_scan(now).has_pages(now));
    }

    #[test]
    fn each_page_begins_where_the_last_one_ended() {
        let now = Instant::now();
        let mut state = full_scan(now);
        let mut read = |entries, priority, seconds, id| {
            let page = page(&mut state, now);
            state.page_read(page, seen(entries, priority, seconds, id), Duration::ZERO);
            page.at
        };
        let cursor = |priority, run_at: Option<u64>, id| PageStart { priority, run_at: run_at.map(at), id };
        assert_eq!(read(LONGEST, 0, 10, 1), PageStart::BEGINNING);
        assert_eq!(read(LONGEST, 0, 20, 1), cursor(0, Some(10), None));
        assert_eq!(read(LONGEST, 0, 20, 1), cursor(0, Some(20), None));
        assert_eq!(read(LONGEST, 0, 90, 700), cursor(0, Some(20), Some(i64::MIN)), "all of them are ties");
        assert_eq!(read(3, 0, 90, 900), cursor(0, Some(20), Some(700)));
        let after = at(20) + Duration::from_micros(1);
        assert_eq!(read(3, 0, 90, 900), PageStart { priority: 0, run_at: Some(after), id: None });
        assert_eq!(read(3, 5, 90, 900), cursor(1, None, None), "the next priority");
        assert_eq!(read(0, 0, 0, 0), cursor(6, None, None));
    }

    #[test]
    fn a_short_full_scan_is_the_last_one_by_pages() {
        for (entries, goes_on) in [(LONGEST / 4, false), (LONGEST / 2, true)] {
            let mut now = Instant::now();
            let mut state = full_scan(now);
            let first = page(&mut state, now);
            state.page_read(first, Seen { priority: None, ..seen(entries, 0, 1, 1) }, Duration::from_millis(10));
            assert_eq!(state.next(10, now), Next::Scan);
            now += Duration::from_secs(30);
            assert_eq!(state.has_pages(now), goes_on);
            now += TRY_AGAIN;
            assert_eq!(state.next(10, now), Next::Scan, "a single scan is tried again");
        }
    }

    #[test]
    fn pages_that_are_cut_off_become_shorter() {
        let now = Instant::now();
        let mut state = full_scan(now);
        let mut sizes = Vec::new();
        loop {
            sizes.push(page(&mut state, now).size);
            if !state.page_was_cut(sizes[sizes.len() - 1]) {
                break;
            }
        }
        assert_eq!(sizes, [8192, 2048, 512, SHORTEST]);
    }

    #[test]
    fn one_job_of_each_queue_is_claimed_at_a_time_and_none_of_a_queue_behind_its_cursor() {
        let now = Instant::now();
        let mut state = full_scan(now);
        state.waiting.passed(3, (0, at(1)));
        let candidates =
            [(1, None), (2, Some(1)), (3, Some(1)), (4, Some(3)), (5, Some(2))].map(|(id, queue)| candidate(id, queue));
        let first = page(&mut state, now);
        state.page_read(first, Seen { candidates: candidates.to_vec(), ..seen(5, 0, 1, 5) }, Duration::ZERO);
        let mut ids = || match state.next(10, now) {
            Next::Claim(picked) => picked.iter().map(|candidate| candidate.id).collect(),
            _ => Vec::new(),
        };
        assert_eq!(ids(), [1, 2, 5]);
        assert_eq!(ids(), [3]);
        assert!(ids().is_empty());
    }
}
