//! What the child's outbox waits and measures with. The tests of interleavings, which compile that file as well, put other
//! things in their place.

pub(super) use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread_local,
    time::Instant,
};
