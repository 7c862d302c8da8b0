//! The calls in progress, by number.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::job::{Call, Stop};

/// Only the caller that removes a call from this table reports its end. Each end is thus reported exactly once.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    table: Mutex<Table>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, Arc<Call>, BuildHasherDefault<Spread>>,
    closed: Option<&'static str>,
}

/// Why a call was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No more calls are accepted, for this reason.
    Closed(&'static str),
    /// A call with this number is in progress; its end will be reported separately.
    Running,
}

impl Calls {
    /// Adds a call.
    pub(crate) fn begin(&self, call: &Arc<Call>) -> Result<(), Refused> {
        let mut table = self.table();
        if let Some(reason) = table.closed {
            return Err(Refused::Closed(reason));
        }
        match table.open.entry(call.number) {
            Entry::Occupied(_) => Err(Refused::Running),
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(call));
                Ok(())
            }
        }
    }

    /// Removes a call; `false` if it has already ended.
    pub(crate) fn end(&self, number: u64) -> bool {
        let mut table = self.table();
        let removed = table.open.remove(&number);
        // Only a closed table has waiters, and notifying nobody still costs a system call.
        if table.closed.is_some() {
            self.ended.notify_all();
        }
        drop(table);
        removed.is_some()
    }

    /// Tells a call to stop if it is still in progress. A weaker request never overrides a stronger one.
    pub(crate) fn stop(&self, number: u64, stop: Stop) {
        if let Some(call) = self.table().open.get(&number) {
            call.tell(stop);
        }
    }

    /// Tells all calls to stop, and refuses new ones.
    pub(crate) fn close(&self, reason: &'static str) {
        let mut table = self.table();
        table.closed = Some(reason);
        for call in table.open.values() {
            call.tell(Stop::Aborted(reason));
        }
    }

    /// Waits until no call is left or the time is over, and returns the remaining calls.
    pub(crate) fn wait_until_empty(&self, until: Instant) -> Vec<u64> {
        let mut table = self.table();
        while !table.open.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            table = self.ended.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        table.open.keys().copied().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table().open.is_empty()
    }

    /// The calls whose futures are being polled, with the number of the poll.
    pub(crate) fn polled(&self) -> Vec<(Arc<Call>, u64)> {
        self.table().open.values().filter_map(|call| Some((Arc::clone(call), call.poll()?))).collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hashes call numbers, which are trusted, for the table.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio in 64 bits. Unlike the lower half, the upper half of a product depends on every bit of a factor.
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
