//! Releases the locks of workers.

use super::Admin;
use crate::queue::{QueueError, UnlockedWorker};

/// What becomes of the locks of hosts that show that they are alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LivingHosts {
    /// They stay.
    #[default]
    KeepLocks,
    /// They are released as well, and the jobs may run twice.
    LoseLocks,
}

/// What became of the locks of some workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnlockReport {
    /// What each of the others held.
    pub unlocked: Vec<UnlockedWorker>,
    /// The workers whose locks stay, because they are alive.
    pub kept: Vec<String>,
    /// All of the workers that show that they are alive.
    pub alive: Vec<String>,
}

impl Admin {
    /// Unlocks the jobs and queues of workers, which are named as in `locked_by`. Workers of graphile-worker do not show whether
    /// they are alive, and are taken for dead.
    pub async fn unlock(&self, workers: &[&str], living: LivingHosts) -> Result<UnlockReport, QueueError> {
        let alive = self.session.living_owners(workers).await?;
        let keeps = |name: &&str| living == LivingHosts::KeepLocks && alive.iter().any(|alive| alive == name);
        let (kept, dead): (Vec<&str>, Vec<&str>) = workers.iter().partition(|name| keeps(name));
        let unlocked = self.session.force_unlock_workers(&dead).await?;
        Ok(UnlockReport { unlocked, kept: kept.into_iter().map(str::to_owned).collect(), alive })
    }
}
