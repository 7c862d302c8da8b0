//! Queues whose next job lies behind the cursor, because they were busy when a scan passed it.
//!
//! When such a queue becomes free, the claim looks for its next job from the recorded position, so no full scan is needed.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    time::SystemTime,
};

use tokio_postgres::types::{ToSql, Type};

/// The most queues in memory. The next full scan finds the others.
const MOST: usize = 20_000;

/// The number of queues that one claim checks, in turn.
const OFFERED: usize = 128;

/// A job's position in the order of claims, without its id.
pub(in crate::queue) type Spot = (i16, SystemTime);

/// The position from which to look for the next job of each queue.
#[derive(Debug, Default)]
pub(in crate::queue) struct Waiting {
    spots: BTreeMap<i32, Spot>,
    /// The last queue that was checked.
    last: i32,
}

/// Queues to check, column by column.
#[derive(Debug, Default)]
pub(in crate::queue) struct Offer {
    queues: Vec<i32>,
    priorities: Vec<i16>,
    run_at: Vec<SystemTime>,
}

impl Waiting {
    /// The next queues for a claim to check.
    pub(in crate::queue) fn offer(&mut self) -> Offer {
        let mut offer = Offer::default();
        let after = self.spots.range((Excluded(self.last), Unbounded));
        let before = self.spots.range(..=self.last);
        for (queue, (priority, run_at)) in after.chain(before).take(OFFERED) {
            offer.queues.push(*queue);
            offer.priorities.push(*priority);
            offer.run_at.push(*run_at);
        }
        self.last = offer.queues.last().copied().unwrap_or_default();
        offer
    }

    /// Whether the next job of the queue lies behind the cursor.
    pub(in crate::queue) fn has(&self, queue: i32) -> bool {
        self.spots.contains_key(&queue)
    }

    /// A job of the queue was claimed: its other jobs come later.
    pub(in crate::queue) fn claimed(&mut self, queue: i32, spot: Spot) {
        if let Some(known) = self.spots.get_mut(&queue) {
            *known = (*known).max(spot);
        }
    }

    /// A scan passed a job of the queue at this position.
    pub(in crate::queue) fn passed(&mut self, queue: i32, spot: Spot) {
        if let Some(known) = self.spots.get_mut(&queue) {
            *known = (*known).min(spot);
        } else if self.spots.len() < MOST {
            self.spots.insert(queue, spot);
        }
    }

    /// The queue is free and has no job near its position, or does not exist.
    pub(in crate::queue) fn gone(&mut self, queue: i32) {
        self.spots.remove(&queue);
    }
}

impl Offer {
    /// Queues, priorities and times.
    pub(in crate::queue) fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 3] {
        [
            (&self.queues, Type::INT4_ARRAY),
            (&self.priorities, Type::INT2_ARRAY),
            (&self.run_at, Type::TIMESTAMPTZ_ARRAY),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spot(seconds: u64) -> Spot {
        (0, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn each_queue_has_its_turn() {
        let mut waiting = Waiting::default();
        (0..300).for_each(|queue| waiting.passed(queue, spot(1)));
        let mut seen: Vec<i32> = (0..3).flat_map(|_| waiting.offer().queues).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 300);
        (0..299).for_each(|queue| waiting.gone(queue));
        assert_eq!(waiting.offer().queues, [299]);
        waiting.gone(299);
        assert!(waiting.offer().queues.is_empty());
    }

    #[test]
    fn the_first_job_that_was_passed_counts_until_it_is_claimed() {
        let mut waiting = Waiting::default();
        waiting.claimed(1, spot(3));
        assert!(waiting.offer().queues.is_empty(), "nothing was passed");
        waiting.passed(1, spot(5));
        waiting.passed(1, spot(4));
        waiting.passed(1, spot(6));
        assert_eq!(waiting.offer().run_at, [spot(4).1]);
        waiting.claimed(1, spot(4));
        assert_eq!(waiting.offer().run_at, [spot(4).1], "the next one is looked for from there");
        waiting.claimed(1, spot(5));
        assert_eq!(waiting.offer().run_at, [spot(5).1]);
    }
}
