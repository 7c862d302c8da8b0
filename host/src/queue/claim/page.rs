//! A page of a lap: where it begins, what it had, and where the next one begins.

use std::time::{Duration, SystemTime};

use super::waiting::Spot;

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) struct Cursor {
    /// In the first priority from this one on.
    pub(in crate::queue) priority: i16,
    /// And in this very one, at this time; `None`: at its beginning.
    pub(in crate::queue) run_at: Option<SystemTime>,
    /// More jobs are due at that moment than a page has entries: after this id. The index has no order among them, so that they
    /// are read along the primary key.
    pub(in crate::queue) id: Option<i64>,
}

impl Cursor {
    pub(super) const BEGINNING: Self = Self { priority: i16::MIN, run_at: None, id: None };
}

/// A page that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) struct Page {
    pub(super) lap: u64,
    pub(in crate::queue) at: Cursor,
    pub(in crate::queue) size: i64,
    /// Jobs that are due later are not a part of the lap.
    pub(in crate::queue) due: SystemTime,
}

/// A job that may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) struct Candidate {
    pub(in crate::queue) id: i64,
    pub(in crate::queue) queue: Option<i32>,
    pub(in crate::queue) spot: Spot,
}

/// What a page had.
#[derive(Debug, Default)]
pub(in crate::queue) struct Seen {
    pub(in crate::queue) candidates: Vec<Candidate>,
    /// How many entries it had.
    pub(in crate::queue) entries: i64,
    /// Of which priority; `None`: there are no jobs from there on.
    pub(in crate::queue) priority: Option<i16>,
    /// The latest time, and the highest id.
    pub(in crate::queue) run_at: Option<SystemTime>,
    pub(in crate::queue) id: Option<i64>,
}

impl Page {
    /// Where the page after this one begins.
    pub(super) fn after(&self, seen: &Seen) -> Option<Cursor> {
        let Cursor { run_at, id, .. } = self.at;
        let priority = seen.priority?;
        let is_last = seen.entries < self.size;
        let next_priority = priority.checked_add(1).map(|priority| Cursor { priority, run_at: None, id: None });
        match (id, run_at) {
            // The crowd goes on.
            (Some(_), _) if !is_last => Some(Cursor { id: seen.id, ..self.at }),
            (Some(_), run_at) => {
                Some(Cursor { priority, run_at: run_at.map(|at| at + Duration::from_micros(1)), id: None })
            }
            (None, _) if is_last => next_priority,
            (None, run_at) => {
                let is_crowd = priority == self.at.priority && run_at.is_some() && run_at == seen.run_at;
                Some(Cursor { priority, run_at: seen.run_at, id: is_crowd.then_some(i64::MIN) })
            }
        }
    }
}
