//! The release of marked jobs that wait for a slot and are not to begin here.

use std::time::{Duration, Instant};

use super::{
    completion::{Completion, End, store_apart},
    held_job::HeldJob,
    pool::Pool,
};
use crate::queue::QueueError;

/// A marked job that has waited for a slot this long is released.
const HELD_LIMIT: Duration = Duration::from_millis(500);

impl Pool {
    /// When the next job will have waited too long.
    pub(super) fn release_due(&self) -> Option<Instant> {
        self.running().held().waiting_since().map(|since| since + self.held_limit())
    }

    /// Releases the jobs that have waited too long or whose task has vanished, and all of them at the end and while others may
    /// take this pool for dead.
    pub(super) fn release_waiting(&self) {
        if self.running().waiting() == 0 {
            return;
        }
        let (alive, closing) = (self.identity().is_alive(), self.identity().is_closing());
        let (limit, map) = (self.held_limit(), self.tasks().load());
        let too_long = |waited| waited >= limit;
        let reason = |held: &HeldJob, waited| {
            if closing {
                Some("the host is stopping")
            } else if !alive {
                Some("others may take this host for dead")
            } else if held.map != map.epoch() && map.get(&held.task).is_none() {
                Some("no plugin has this task any more")
            } else {
                too_long(waited).then_some("it has waited too long for others to end")
            }
        };
        let mut stalled = false;
        for (held, waited) in self.running().held().withdraw_marked(|held, waited| reason(held, waited).is_some()) {
            stalled |= too_long(waited);
            let end = End::Release {
                reason: reason(&held, waited).unwrap_or_default(),
                at_once: too_long(waited) && alive && !closing,
            };
            let run = Some(Box::new(held.describe(self.identity().id(), None)));
            self.completions().add(Completion::of(&held, Duration::ZERO, end, run));
        }
        if stalled && !closing {
            self.demand().jobs_waited_too_long();
            self.speed().stalled(limit);
        }
    }

    /// Releases everything that is locked in this pool's name, for a host that ends without knowing what it holds. None of it
    /// may still run. Jobs that the database refuses to unlock stay locked.
    pub(crate) async fn release_all(&self) -> Result<usize, QueueError> {
        let session = self.database().session().await?;
        let locked = session.locked_by(self.owner()).await?;
        match session.return_jobs(self.owner(), &locked).await {
            Err(error) if error.is_refusal() => {}
            returned => return Ok(returned?.len()),
        }
        let releases = locked.into_iter().map(Completion::never_begun).collect();
        let apart = store_apart(&session, self.owner(), releases, usize::MAX).await.map_err(|(error, _)| error)?;
        Ok(apart.stored.len())
    }

    fn held_limit(&self) -> Duration {
        self.settings().local_queue.as_ref().map_or(HELD_LIMIT, |queue| queue.ttl)
    }
}
