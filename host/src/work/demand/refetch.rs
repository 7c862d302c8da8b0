//! The wait after a claim that brought few jobs, for those who prefer batches to latency.

use std::time::Instant;

use rand::Rng;

use crate::config;

#[derive(Debug)]
pub(super) struct Refetch {
    until: Instant,
    /// How many new jobs end it.
    enough: usize,
    heard: usize,
}

impl Refetch {
    /// A claim has brought so many jobs. `None`: these were not few, so there is nothing to wait for.
    pub(super) fn after(jobs: usize, full: bool, settings: &config::Refetch, now: Instant) -> Option<Self> {
        let few = jobs <= settings.threshold && !full;
        few.then(|| {
            let mut random = rand::rng();
            Self {
                until: now + settings.delay.mul_f64(random.random_range(0.5..1.5)),
                enough: random.random_range(0..=settings.max_abort_threshold).max(1),
                heard: 0,
            }
        })
    }

    /// So many jobs were added. Returns whether that ends the wait.
    pub(super) fn hear(&mut self, jobs: usize) -> bool {
        self.heard = self.heard.saturating_add(jobs);
        self.heard >= self.enough
    }

    /// Until when nothing is claimed.
    pub(super) fn until(&self) -> Instant {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn few_jobs_make_it_wait_until_enough_were_heard_of() {
        let settings = config::Refetch { delay: Duration::from_secs(3_600), threshold: 2, max_abort_threshold: 10 };
        let after = |jobs, full| Refetch::after(jobs, full, &settings, Instant::now());
        for (jobs, full, waits) in [(0, false, true), (2, false, true), (3, false, false), (2, true, false)] {
            assert_eq!(after(jobs, full).is_some(), waits, "{jobs} jobs, full: {full}");
        }
        let mut refetch = after(0, false).expect("these are few");
        assert!(!refetch.hear(0));
        assert!(refetch.hear(10));
    }
}
