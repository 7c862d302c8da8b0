//! What the code waits and counts with where threads meet. The tests of interleavings compile that code with a checker's own in
//! the place of these.

pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    thread_local,
    time::Instant,
};

pub(crate) use arc_swap::ArcSwap;
pub(crate) use tokio::{
    sync::{Notify, watch},
    task::yield_now,
};
pub(crate) use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
