//! Whether a claim that brought nothing means that there is nothing: not if another one may have had something meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the claims of all lines of a pool.
#[derive(Debug, Default)]
pub(super) struct Claims {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Claims {
    /// To be called before a claim. What it gives is dropped when the jobs of the claim count as unsettled.
    pub(super) fn begin(&self, unsettled: &AtomicUsize) -> Claiming<'_> {
        let number = self.begun.fetch_add(1, Ordering::AcqRel);
        // In this order: jobs of a claim that has ended are among the unsettled ones.
        let alone = self.ended.load(Ordering::Acquire) == number && unsettled.load(Ordering::Acquire) == 0;
        Claiming { claims: self, number, alone }
    }
}

/// A claim under way.
#[derive(Debug)]
pub(super) struct Claiming<'a> {
    claims: &'a Claims,
    number: usize,
    /// When it began, there was no other, and every job that had been claimed was settled.
    alone: bool,
}

impl Claiming<'_> {
    /// Whether nobody else of this pool could have a job that it did not see.
    pub(super) fn saw_everything(&self) -> bool {
        self.alone && self.claims.begun.load(Ordering::Acquire) == self.number + 1
    }
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        self.claims.ended.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_claim_without_another_one_beside_it_saw_everything() {
        let (claims, unsettled) = (Claims::default(), AtomicUsize::new(0));
        let first = claims.begin(&unsettled);
        assert!(first.saw_everything());
        let second = claims.begin(&unsettled);
        assert!(!first.saw_everything() && !second.saw_everything());
        drop(second);
        assert!(!first.saw_everything(), "the second could have had a job");
        drop(first);
        assert!(claims.begin(&unsettled).saw_everything());
        unsettled.store(1, Ordering::Release);
        assert!(!claims.begin(&unsettled).saw_everything());
    }
}
