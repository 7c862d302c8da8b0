//! The checker's locks, and a clock that says anything.

pub(super) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard},
    thread_local,
};
pub(super) use std::sync::PoisonError;

use std::time::Duration;

use shuttle::rand::Rng;

/// A moment of which nobody knows how long ago it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instant;

impl Instant {
    pub(super) fn now() -> Self {
        Self
    }

    pub(super) fn elapsed(self) -> Duration {
        if shuttle::rand::thread_rng().gen_bool(0.5) { Duration::ZERO } else { Duration::from_secs(1) }
    }
}
