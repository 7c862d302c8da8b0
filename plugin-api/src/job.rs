//! One job, copied from the host, and the call that runs it.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

use crate::{current::Current, host_link::HostLink};

/// A job as the host handed it over.
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

/// How urgently a call is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    No,
    /// The task was told and may end as it likes.
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
    pub(crate) stop: watch::Receiver<Stop>,
    pub(crate) link: Arc<dyn HostLink>,
}

impl Call {
    pub(crate) fn new(
        number: u64,
        task: &'static str,
        job: Job,
        stop: watch::Receiver<Stop>,
        link: Arc<dyn HostLink>,
    ) -> Self {
        let limit = (job.timeout_ms > 0).then(|| Duration::from_millis(job.timeout_ms));
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        Self { number, task, job, deadline, stop, link }
    }

    pub(crate) fn current(&self, owns_panics: bool) -> Current {
        Current { call: self.number, link: Arc::clone(&self.link), owns_panics }
    }

    /// Ends when the task is to stop. If nobody can say so any more, it never ends.
    pub(crate) async fn stopped(&self, at_least: Stop) -> Stop {
        let mut stop = self.stop.clone();
        let wanted = stop.wait_for(|stop| *stop >= at_least).await.map(|stop| *stop);
        match wanted {
            Ok(stop) => stop,
            Err(_) => std::future::pending().await,
        }
    }
}

/// Microseconds since the Unix epoch, as they cross the border.
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
