//! A job, copied from the host, and the call that runs it.

use std::{
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Notify;

use crate::{current::Current, host_link::HostLink};

/// A job as received from the host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Job {
    pub(crate) id: i64,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    pub(crate) priority: i32,
    pub(crate) revision: i32,
    pub(crate) run_at_us: i64,
    pub(crate) created_at_us: i64,
    pub(crate) updated_at_us: i64,
    pub(crate) timeout_ms: u64,
    pub(crate) payload: String,
    pub(crate) queue: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) flags: Option<String>,
}

/// The urgency of a request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    No,
    /// The task was told, and may end in its own way.
    Asked,
    /// The task's future is dropped at its next await, for this reason.
    Aborted(&'static str),
}

/// One run of a task.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) task: &'static str,
    pub(crate) job: Job,
    pub(crate) deadline: Option<Instant>,
    pub(crate) link: Arc<dyn HostLink>,
    asked: AtomicBool,
    aborted: OnceLock<&'static str>,
    /// Signalled when one of the two fields above changes.
    told: Notify,
    /// Counts the beginnings and ends of the future's polls; odd during a poll.
    polls: AtomicU64,
}

impl Call {
    pub(crate) fn new(number: u64, task: &'static str, job: Job, link: Arc<dyn HostLink>) -> Self {
        let limit = (job.timeout_ms > 0).then(|| Duration::from_millis(job.timeout_ms));
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let (asked, aborted, told) = (AtomicBool::new(false), OnceLock::new(), Notify::new());
        Self { number, task, job, deadline, link, asked, aborted, told, polls: AtomicU64::new(0) }
    }

    pub(crate) fn current(&self, owns_panics: bool) -> Current {
        Current { call: self.number, link: Arc::clone(&self.link), owns_panics }
    }

    /// Notes the beginning or end of a poll. Only one thread polls the future at a time.
    pub(crate) fn turn(&self) {
        self.polls.store(self.polls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The number of the current poll, if there is one.
    pub(crate) fn poll(&self) -> Option<u64> {
        Some(self.polls.load(Ordering::Relaxed)).filter(|polls| polls % 2 == 1)
    }

    /// Tells the call to stop. A weaker request never overrides a stronger one.
    pub(crate) fn tell(&self, stop: Stop) {
        match stop {
            Stop::No => return,
            Stop::Asked => self.asked.store(true, Ordering::SeqCst),
            Stop::Aborted(reason) => drop(self.aborted.set(reason)),
        }
        self.told.notify_waiters();
    }

    /// The strongest request so far.
    pub(crate) fn stop(&self) -> Stop {
        match self.aborted.get() {
            Some(reason) => Stop::Aborted(reason),
            None if self.asked.load(Ordering::SeqCst) => Stop::Asked,
            None => Stop::No,
        }
    }

    /// Completes when the task has to stop.
    pub(crate) async fn stopped(&self, at_least: Stop) -> Stop {
        loop {
            // Registers before it reads, so no notification is lost in between.
            let mut told = pin!(self.told.notified());
            told.as_mut().enable();
            let stop = self.stop();
            if stop >= at_least {
                return stop;
            }
            told.await;
        }
    }
}

/// Converts microseconds since the Unix epoch, as used at the FFI boundary.
pub(crate) fn micros(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    }
}

pub(crate) fn time(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_the_epoch_cross_unchanged() {
        for us in [0, 1, -1, 1_700_000_000_123_456, -86_400_000_000] {
            assert_eq!(micros(time(us)), us);
        }
    }
}
