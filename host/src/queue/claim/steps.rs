//! The steps of a walk, as parameters of a statement: one for each known priority, with the gap before it.

use std::{collections::BTreeSet, time::SystemTime};

use tokio_postgres::types::{ToSql, Type};

use super::frontier::{Frontier, Place};

/// A priority that no job can have, for the gap behind the last known one.
const BEYOND: i32 = i16::MAX as i32 + 1;

/// One row for each step, column by column.
#[derive(Debug, Default)]
pub(in crate::queue) struct Steps {
    /// The priority of the step before: between the two there may be others that nobody has seen yet.
    below: Vec<i32>,
    priority: Vec<i32>,
    /// Where the walk over jobs without a queue begins in this priority.
    free_at: Vec<Option<SystemTime>>,
    free_id: Vec<Option<i64>>,
    /// And the one over jobs in queues.
    queued_at: Vec<Option<SystemTime>>,
    queued_id: Vec<Option<i64>>,
}

impl Steps {
    /// Of [`Steps::free_parameters`].
    pub(in crate::queue) const KINDS: [Type; 4] =
        [Type::INT4_ARRAY, Type::INT4_ARRAY, Type::TIMESTAMPTZ_ARRAY, Type::INT8_ARRAY];

    /// For both walks at once, or for the first alone.
    pub(in crate::queue) fn new(free: &Frontier, queued: Option<&Frontier>) -> Self {
        let walks = || queued.into_iter().chain([free]);
        let known: BTreeSet<i16> = walks().flat_map(Frontier::priorities).collect();
        let priority: Vec<i32> = known.iter().map(|priority| i32::from(*priority)).chain([BEYOND]).collect();
        let below =
            [i32::from(i16::MIN) - 1].into_iter().chain(priority.iter().copied()).take(priority.len()).collect();
        // Beyond the last one nothing was walked.
        let places = |walk: &Frontier| -> Vec<Place> {
            known.iter().map(|priority| walk.place(*priority)).chain([Place::default()]).collect()
        };
        let (free, queued) = (places(free), queued.map(places).unwrap_or_default());
        Self {
            free_at: free.iter().map(|place| place.run_at).collect(),
            free_id: free.iter().map(|place| place.id).collect(),
            queued_at: queued.iter().map(|place| place.run_at).collect(),
            queued_id: queued.iter().map(|place| place.id).collect(),
            below,
            priority,
        }
    }

    /// The columns for both walks, in the order of the fields.
    pub(in crate::queue) fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 6] {
        let [below, priority, free_at, free_id] = self.free_parameters();
        let (queued_at, queued_id) =
            ((&self.queued_at as _, Self::KINDS[2].clone()), (&self.queued_id as _, Self::KINDS[3].clone()));
        [below, priority, free_at, free_id, queued_at, queued_id]
    }

    /// Those for the walk over jobs without a queue.
    pub(in crate::queue) fn free_parameters(&self) -> [(&(dyn ToSql + Sync), Type); 4] {
        let [below, priority, free_at, free_id] = Self::KINDS;
        [(&self.below, below), (&self.priority, priority), (&self.free_at, free_at), (&self.free_id, free_id)]
    }
}
