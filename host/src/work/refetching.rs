//! The wait after a claim that brought few jobs, for those who would rather have many at once than each at once.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rand::Rng;

use crate::config::Refetch;

#[derive(Debug, Default)]
pub(super) struct Refetching {
    wait: Mutex<Option<Wait>>,
}

#[derive(Debug)]
struct Wait {
    until: Instant,
    /// How many new jobs end it.
    enough: usize,
    heard: usize,
}

impl Refetching {
    /// A claim has brought so many jobs.
    pub(super) fn claimed(&self, jobs: usize, full: bool, settings: &Refetch) {
        let few = jobs <= settings.threshold && !full;
        *self.wait() = few.then(|| {
            let mut random = rand::rng();
            Wait {
                until: Instant::now() + settings.delay.mul_f64(random.random_range(0.5..1.5)),
                enough: random.random_range(0..=settings.max_abort_threshold).max(1),
                heard: 0,
            }
        });
    }

    /// So many jobs were added.
    pub(super) fn heard(&self, jobs: usize) {
        let mut wait = self.wait();
        if let Some(one) = &mut *wait {
            one.heard = one.heard.saturating_add(jobs);
            if one.heard >= one.enough {
                *wait = None;
            }
        }
    }

    /// Until when nothing is claimed.
    pub(super) fn until(&self) -> Option<Instant> {
        self.wait().as_ref().map(|wait| wait.until).filter(|until| *until > Instant::now())
    }

    fn wait(&self) -> MutexGuard<'_, Option<Wait>> {
        self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn few_jobs_make_it_wait_until_enough_were_heard_of() {
        let settings = Refetch { delay: Duration::from_secs(3_600), threshold: 2, max_abort_threshold: 10 };
        let refetching = Refetching::default();
        for (jobs, full, waits) in [(0, false, true), (2, false, true), (3, false, false), (2, true, false)] {
            refetching.claimed(jobs, full, &settings);
            assert_eq!(refetching.until().is_some(), waits, "{jobs} jobs, full: {full}");
        }
        refetching.claimed(0, false, &settings);
        refetching.heard(0);
        assert!(refetching.until().is_some());
        refetching.heard(10);
        assert!(refetching.until().is_none());
    }
}
