//! The ranges of a scan as parameters of a statement: one for each known priority, with the gap before it.

use std::{collections::BTreeSet, time::SystemTime};

use tokio_postgres::types::{ToSql, Type};

use super::cursors::{Cursors, Position};

/// A priority that no job can have, for the gap behind the last known one.
const BEYOND: i32 = i16::MAX as i32 + 1;

/// One row for each range, column by column.
#[derive(Debug, Default)]
pub(in crate::queue) struct Ranges {
    /// The priority of the previous range. Unknown priorities may lie between the two.
    below: Vec<i32>,
    priority: Vec<i32>,
    /// The start of the scan for jobs without a queue.
    free_at: Vec<Option<SystemTime>>,
    free_id: Vec<Option<i64>>,
    /// The start of the scan for jobs in queues.
    queued_at: Vec<Option<SystemTime>>,
    queued_id: Vec<Option<i64>>,
}

impl Ranges {
    /// Of [`Ranges::free_parameters`].
    pub(in crate::queue) const KINDS: [Type; 4] =
        [Type::INT4_ARRAY, Type::INT4_ARRAY, Type::TIMESTAMPTZ_ARRAY, Type::INT8_ARRAY];

    /// For both scans, or for jobs without a queue only.
    pub(in crate::queue) fn new(free: &Cursors, queued: Option<&Cursors>) -> Self {
        let scans = || queued.into_iter().chain([free]);
        let known: BTreeSet<i16> = scans().flat_map(Cursors::priorities).collect();
        let priority: Vec<i32> = known.iter().map(|priority| i32::from(*priority)).chain([BEYOND]).collect();
        let below =
            [i32::from(i16::MIN) - 1].into_iter().chain(priority.iter().copied()).take(priority.len()).collect();
        // No cursor exists beyond the last priority.
        let positions = |scan: &Cursors| -> Vec<Position> {
            known.iter().map(|priority| scan.position(*priority)).chain([Position::default()]).collect()
        };
        let (free, queued) = (positions(free), queued.map(positions).unwrap_or_default());
        Self {
            free_at: free.iter().map(|position| position.run_at).collect(),
            free_id: free.iter().map(|position| position.id).collect(),
            queued_at: queued.iter().map(|position| position.run_at).collect(),
            queued_id: queued.iter().map(|position| position.id).collect(),
            below,
            priority,
        }
    }

    /// The columns for both scans, in the order of the fields.
    pub(in crate::queue) fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 6] {
        let [below, priority, free_at, free_id] = self.free_parameters();
        let (queued_at, queued_id) =
            ((&self.queued_at as _, Self::KINDS[2].clone()), (&self.queued_id as _, Self::KINDS[3].clone()));
        [below, priority, free_at, free_id, queued_at, queued_id]
    }

    /// The columns for the scan for jobs without a queue.
    pub(in crate::queue) fn free_parameters(&self) -> [(&(dyn ToSql + Sync), Type); 4] {
        let [below, priority, free_at, free_id] = Self::KINDS;
        [(&self.below, below), (&self.priority, priority), (&self.free_at, free_at), (&self.free_id, free_id)]
    }
}
