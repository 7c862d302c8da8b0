//! A claim under way: what it asks for, and what it teaches when it ends.

use std::time::{Duration, Instant};

use super::{Claim, Demand, Lane, Role, refetch::Refetch};

/// This soon a claim follows that cannot know whether the other claimer had the jobs that it did not see.
const OTHER_CLAIMER: Duration = Duration::from_millis(5);

/// A claim under way. It is dropped when its jobs count as unsettled, or what it may have left behind is known.
#[derive(Debug)]
pub(in crate::work) struct Claiming<'a> {
    demand: &'a Demand,
    claim: Claim,
    number: usize,
    /// When it began, there was no other, and every job that had been claimed was settled.
    alone: bool,
    /// Its jobs are still counted as asked for.
    asks: bool,
}

/// What a claim has brought.
#[derive(Debug, Clone, Copy)]
pub(in crate::work) struct ClaimEnd {
    pub(in crate::work) jobs: usize,
    /// In how long a further one could bring more.
    pub(in crate::work) again: Option<Duration>,
    /// It went by ids of tasks that are right.
    pub(in crate::work) knows_task_ids: bool,
}

impl<'a> Claiming<'a> {
    pub(super) fn new(demand: &'a Demand, claim: Claim, number: usize, alone: bool) -> Self {
        Self { demand, claim, number, alone, asks: true }
    }

    pub(in crate::work) fn claim(&self) -> Claim {
        self.claim
    }

    /// Returns whether a pool that ends when no job is left can end now.
    pub(in crate::work) fn ended(mut self, role: Role, end: ClaimEnd, now: Instant) -> bool {
        let Claim { lane, limit } = self.claim;
        let full = end.jobs == limit;
        let refetch = self.demand.refetch.as_ref();
        let (number, alone, once) = (self.number, self.alone, self.demand.once);
        self.asks = false;
        self.demand.change(|state| {
            state.asked -= limit;
            state.last_claim = now;
            state.again_at = end.again.map(|rest| now + rest);
            state.refetch = refetch.and_then(|settings| Refetch::after(end.jobs, full, settings, now));
            state.express_claims = match lane {
                Lane::Marked => 0,
                Lane::Express => state.express_claims + usize::from(full),
            };
            if role == Role::Overflow {
                // Where both would look for the last jobs again and again, neither could say that there are none.
                state.overflow_called = full;
            }
            // There are more, or there may be some in queues.
            state.poll |= full || lane == Lane::Express;
            state.marked_next |= !full && lane == Lane::Express;
            if !once || end.jobs > 0 || lane == Lane::Express {
                return false;
            }
            // Nobody else of this pool could have a job that it did not see.
            let saw_everything = alone && state.claims_begun == number && end.knows_task_ids;
            if !saw_everything {
                // Where jobs are unsettled, the pool polls when they are settled. Where not, the other claimer is claiming, or
                // this claim went by ids that were wrong.
                state.again_at = Some(now + OTHER_CLAIMER);
            }
            saw_everything
        })
    }

    /// It was refused, or its answer was lost.
    pub(in crate::work) fn failed(&mut self) {
        if std::mem::take(&mut self.asks) {
            self.demand.change(|state| {
                state.asked -= self.claim.limit;
                state.poll = true;
                // Where claims are cut off, it is the marked lane that goes on where they ended.
                state.marked_next = true;
            });
        }
    }
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        self.demand.change(|state| {
            state.claims_under_way -= 1;
            if self.asks {
                state.asked -= self.claim.limit;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::config::WorkerSettings;

    #[test]
    fn only_an_empty_claim_without_another_one_beside_it_shows_that_nothing_is_left() {
        let (demand, unsettled) = (Demand::new(&WorkerSettings::default(), true), Cell::new(0));
        let begin = || demand.begin(Claim { lane: Lane::Marked, limit: 10 }, || unsettled.get());
        let ended = |claiming: Claiming<'_>, jobs, knows_task_ids| {
            claiming.ended(Role::Primary, ClaimEnd { jobs, again: None, knows_task_ids }, Instant::now())
        };
        assert!(ended(begin(), 0, true));
        assert!(!ended(begin(), 1, true));
        assert!(!ended(begin(), 0, false), "it went by wrong ids");
        let (first, second) = (begin(), begin());
        assert!(!ended(second, 0, true), "the first could have had a job");
        assert!(!ended(first, 0, true), "so could the second");
        assert!(ended(begin(), 0, true));
        unsettled.set(1);
        assert!(!ended(begin(), 0, true));
    }

    #[test]
    fn a_claim_asks_for_its_jobs_until_it_has_ended_or_failed() {
        let demand = Demand::new(&WorkerSettings::default(), false);
        let begin = || demand.begin(Claim { lane: Lane::Marked, limit: 10 }, || 0);
        let asked = || demand.state().asked;
        let (first, mut second, third) = (begin(), begin(), begin());
        assert_eq!(asked(), 30);
        drop(third);
        second.failed();
        assert_eq!(asked(), 10);
        drop(second);
        first.ended(Role::Primary, ClaimEnd { jobs: 10, again: None, knows_task_ids: true }, Instant::now());
        assert_eq!((asked(), demand.state().claims_under_way), (0, 0));
    }
}
