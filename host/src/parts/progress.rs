//! When each part has last moved.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// What one part stamps.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When its task was last run, whatever it did.
    polled: AtomicU64,
    /// When its loop last came round; 0 for a part without such a loop.
    turned: AtomicU64,
    /// How many waits are under way for something outside of this program.
    outside: AtomicUsize,
}

/// The parts that run.
#[derive(Debug, Default)]
pub(super) struct Registry(Vec<(&'static str, Arc<Progress>)>);

/// A part that does not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stuck {
    pub part: &'static str,
    /// For how long it has not.
    pub since: Duration,
}

impl Progress {
    pub(super) fn polled(&self) {
        self.polled.store(now(), Ordering::Release);
    }

    pub(super) fn turned(&self) {
        self.turned.store(now(), Ordering::Release);
    }

    /// Until this is dropped, the loop need not come round.
    pub(super) fn outside(&self) -> Outside<'_> {
        self.outside.fetch_add(1, Ordering::AcqRel);
        Outside(self)
    }

    fn moved(&self) -> u64 {
        let (polled, turned) = (self.polled.load(Ordering::Acquire), self.turned.load(Ordering::Acquire));
        let may_wait = turned == 0 || self.outside.load(Ordering::Acquire) > 0;
        if may_wait { polled } else { polled.min(turned) }
    }
}

pub(super) struct Outside<'a>(&'a Progress);

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        // The time that went by was not the loop's.
        self.0.turned();
        self.0.outside.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Registry {
    pub(super) fn add(&mut self, part: &'static str, progress: &Arc<Progress>) {
        self.0.push((part, Arc::clone(progress)));
    }

    pub(super) fn remove(&mut self, progress: &Arc<Progress>) {
        self.0.retain(|(_, other)| !Arc::ptr_eq(progress, other));
    }

    pub(super) fn stuck(&self, limit: Duration) -> Vec<Stuck> {
        let now = now();
        let since = |progress: &Progress| Duration::from_millis(now.saturating_sub(progress.moved()));
        let all = self.0.iter().map(|(part, progress)| Stuck { part, since: since(progress) });
        all.filter(|part| part.since >= limit).collect()
    }
}

/// In milliseconds, and never 0. It stands still while the machine sleeps.
fn now() -> u64 {
    static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGINNING.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_stuck_if_its_task_does_not_run_or_its_loop_does_not_come_round() {
        let moment = |ago: u64| AtomicU64::new(1_000_000 - ago);
        let at = |polled, turned, outside| {
            let progress = Progress { polled, turned, outside: AtomicUsize::new(outside) };
            1_000_000 - progress.moved() >= 10_000
        };
        assert!(!at(moment(1_000), AtomicU64::new(0), 0), "it has no loop");
        assert!(!at(moment(1_000), moment(1_000), 0));
        assert!(at(moment(1_000), moment(11_000), 0), "its loop waits");
        assert!(!at(moment(1_000), moment(11_000), 1), "for something outside");
        assert!(at(moment(11_000), moment(1_000), 0), "its task does not run");
        assert!(at(moment(11_000), moment(1_000), 1));
        let progress = Progress::default();
        drop(progress.outside());
        assert!(progress.turned.load(Ordering::Acquire) > 0, "a wait that is over is a turn");
    }
}
