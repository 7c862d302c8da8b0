//! A page of a full scan: its start, its contents, and the start of the next one.

use std::time::{Duration, SystemTime};

use super::waiting::Spot;

/// The start of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) struct PageStart {
    /// The page lies in the first existing priority from this one on.
    pub(in crate::queue) priority: i16,
    /// The time to start at if that priority is this one; `None` for its beginning.
    pub(in crate::queue) run_at: Option<SystemTime>,
    /// Set if more jobs share that time than fit a page: start after this id. The index does not order ties, so they are read
    /// along the primary key.
    pub(in crate::queue) id: Option<i64>,
}

impl PageStart {
    pub(super) const BEGINNING: Self = Self { priority: i16::MIN, run_at: None, id: None };
}

/// A page to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) struct Page {
    pub(super) full_scan: u64,
    pub(in crate::queue) at: PageStart,
    pub(in crate::queue) size: i64,
    /// The full scan leaves out jobs that are due later.
    pub(in crate::queue) due: SystemTime,
}

/// A job that may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) struct Candidate {
    pub(in crate::queue) id: i64,
    pub(in crate::queue) queue: Option<i32>,
    pub(in crate::queue) spot: Spot,
}

/// The contents of a page.
#[derive(Debug, Default)]
pub(in crate::queue) struct Seen {
    pub(in crate::queue) candidates: Vec<Candidate>,
    /// The number of entries.
    pub(in crate::queue) entries: i64,
    /// The priority; `None` if no jobs follow.
    pub(in crate::queue) priority: Option<i16>,
    /// The latest time, and the highest id.
    pub(in crate::queue) run_at: Option<SystemTime>,
    pub(in crate::queue) id: Option<i64>,
}

impl Page {
    /// The start of the next page.
    pub(super) fn after(&self, seen: &Seen) -> Option<PageStart> {
        let PageStart { run_at, id, .. } = self.at;
        let priority = seen.priority?;
        let is_last = seen.entries < self.size;
        let next_priority = priority.checked_add(1).map(|priority| PageStart { priority, run_at: None, id: None });
        match (id, run_at) {
            // More ties follow.
            (Some(_), _) if !is_last => Some(PageStart { id: seen.id, ..self.at }),
            (Some(_), run_at) => {
                Some(PageStart { priority, run_at: run_at.map(|at| at + Duration::from_micros(1)), id: None })
            }
            (None, _) if is_last => next_priority,
            (None, run_at) => {
                let is_tied = priority == self.at.priority && run_at.is_some() && run_at == seen.run_at;
                Some(PageStart { priority, run_at: seen.run_at, id: is_tied.then_some(i64::MIN) })
            }
        }
    }
}
