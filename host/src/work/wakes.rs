//! What wakes the two claimers, and what they know of each other.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Wakes {
    primary: Notify,
    overflow: Notify,
    /// The primary claimer waits for the end of a transaction.
    primary_is_bound: AtomicBool,
    /// The overflow claimer has ended, and with it its last claim.
    overflow_is_over: AtomicBool,
}

impl Wakes {
    /// There is something to store, or room for more jobs.
    pub(super) fn wake(&self) {
        self.primary.notify_one();
        if self.primary_is_bound.load(Ordering::Acquire) {
            self.overflow.notify_one();
        }
    }

    pub(super) fn wake_primary(&self) {
        self.primary.notify_one();
    }

    /// There are more jobs than one claimer brings.
    pub(super) fn call_overflow(&self) {
        self.overflow.notify_one();
    }

    /// Runs `waiting`, during which the overflow claimer stands in for the primary one.
    pub(super) async fn with_primary_bound(&self, waiting: impl Future<Output = ()>) {
        self.primary_is_bound.store(true, Ordering::Release);
        self.overflow.notify_one();
        waiting.await;
        self.primary_is_bound.store(false, Ordering::Release);
    }

    pub(super) fn overflow_ended(&self) {
        self.overflow_is_over.store(true, Ordering::Release);
        self.primary.notify_one();
    }

    pub(super) fn has_overflow_ended(&self) -> bool {
        self.overflow_is_over.load(Ordering::Acquire)
    }

    pub(super) async fn primary_woken(&self) {
        self.primary.notified().await;
    }

    pub(super) async fn overflow_woken(&self) {
        self.overflow.notified().await;
    }
}
