//! The name under which a pool claims jobs, whether it may claim any, and when it ends.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::queue::SHOWS_LIFE;

/// Owner-id prefix of pools without a liveness lock.
const WITHOUT_LIFE: &str = "taskbay-";

/// When a pool ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Never.
    Continuous,
    /// When no job is left that can run now.
    Once,
}

/// The two stop signals.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Claim no more, let running jobs finish.
    pub graceful: CancellationToken,
    /// Cancel what still runs.
    pub now: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Identity {
    /// The pool in events, and its owner id while it holds a liveness lock.
    id: Arc<str>,
    /// What `locked_by` says; known when the first job is claimed.
    owner: OnceLock<String>,
    /// Hosts that look for the dead know that this pool is not among them.
    alive: AtomicBool,
    mode: Mode,
    stop: Stop,
    /// Nothing is claimed any more.
    closing: CancellationToken,
}

impl Identity {
    /// An owner id never seen before: `taskbay-live-` and 18 hex digits, or without `live-` where the pool has no liveness lock.
    pub(super) fn new(shows_life: bool, mode: Mode, stop: Stop) -> Self {
        let random: [u8; 9] = rand::rng().random();
        let prefix = if shows_life { SHOWS_LIFE } else { WITHOUT_LIFE };
        let id: Arc<str> = random.iter().fold(prefix.to_owned(), |id, byte| format!("{id}{byte:02x}")).into();
        Self {
            owner: if shows_life { OnceLock::new() } else { OnceLock::from(id.to_string()) },
            id,
            alive: AtomicBool::new(!shows_life),
            mode,
            closing: stop.graceful.child_token(),
            stop,
        }
    }

    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// What `locked_by` says of the jobs that the pool holds.
    pub(super) fn owner(&self) -> &str {
        self.owner.get().map_or(&*self.id, String::as_str)
    }

    /// The owner id while the pool holds its liveness lock.
    pub(super) fn guarded_owner(&self) -> &str {
        &self.id
    }

    /// The pool claims jobs in its own name: its liveness lock is held.
    pub(super) fn revive(&self) {
        self.revive_as(self.id.to_string());
    }

    /// The pool claims jobs in a name that nobody looks for, because it cannot hold a liveness lock.
    pub(super) fn revive_unguarded(&self) {
        self.revive_as(self.id.replacen(SHOWS_LIFE, WITHOUT_LIFE, 1));
    }

    fn revive_as(&self, owner: String) {
        let _ = self.owner.set(owner);
        self.alive.store(true, Ordering::Release);
    }

    /// Others may take the pool for dead.
    pub(super) fn lose_life(&self) {
        self.alive.store(false, Ordering::Release);
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub(super) fn works_once(&self) -> bool {
        self.mode == Mode::Once
    }

    /// Ends the claiming.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// Fires when nothing is claimed any more.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    pub(super) fn may_claim(&self) -> bool {
        self.is_alive() && !self.is_closing()
    }

    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_claims_once_others_see_that_it_lives_and_until_it_closes() {
        let identity = Identity::new(true, Mode::Once, Stop::default());
        assert!(!identity.may_claim());
        identity.revive();
        assert!(identity.may_claim() && identity.owner().starts_with(SHOWS_LIFE));
        identity.lose_life();
        assert!(!identity.may_claim());
        identity.revive();
        identity.close();
        assert!(!identity.may_claim() && !identity.stop().graceful.is_cancelled());
    }

    #[test]
    fn a_pool_without_a_liveness_lock_has_a_name_that_nobody_looks_for() {
        let without = Identity::new(false, Mode::Once, Stop::default());
        assert!(without.may_claim() && !without.owner().starts_with(SHOWS_LIFE));
        let unable = Identity::new(true, Mode::Once, Stop::default());
        unable.revive_unguarded();
        assert!(unable.may_claim() && !unable.owner().starts_with(SHOWS_LIFE));
        assert!(unable.owner().starts_with(WITHOUT_LIFE));
    }

    #[test]
    fn a_stop_signal_closes_the_pool() {
        let stop = Stop::default();
        let identity = Identity::new(false, Mode::Continuous, stop.clone());
        stop.graceful.cancel();
        assert!(identity.is_closing());
    }
}
