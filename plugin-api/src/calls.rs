//! The calls that have begun and not ended, by their numbers.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::watch;

use crate::job::Stop;

/// Whoever removes a call from here reports its end: that is how each is reported exactly once.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    table: Mutex<Table>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, watch::Sender<Stop>>,
    closed: Option<&'static str>,
}

/// Why a call cannot begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Nothing begins any more, for this reason.
    Closed(&'static str),
    /// A call with this number is running; its own end will be reported.
    Running,
}

impl Calls {
    /// Enters a call. The receiver tells it when to stop.
    pub(crate) fn begin(&self, number: u64) -> Result<watch::Receiver<Stop>, Refused> {
        let mut table = self.table();
        if let Some(reason) = table.closed {
            return Err(Refused::Closed(reason));
        }
        if table.open.contains_key(&number) {
            return Err(Refused::Running);
        }
        let (sender, receiver) = watch::channel(Stop::No);
        table.open.insert(number, sender);
        Ok(receiver)
    }

    /// Removes a call; `false` if it has ended already.
    pub(crate) fn end(&self, number: u64) -> bool {
        let removed = self.table().open.remove(&number).is_some();
        self.ended.notify_all();
        removed
    }

    /// Tells a call to stop, if it still runs. A weaker demand does not undo a stronger one.
    pub(crate) fn stop(&self, number: u64, stop: Stop) {
        if let Some(call) = self.table().open.get(&number) {
            raise(call, stop);
        }
    }

    /// Tells all calls to stop, and refuses those that come.
    pub(crate) fn close(&self, reason: &'static str) {
        let mut table = self.table();
        table.closed = Some(reason);
        for call in table.open.values() {
            raise(call, Stop::Aborted(reason));
        }
    }

    /// Waits until no call is left, and returns those that are left when the time is over.
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

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raise(call: &watch::Sender<Stop>, stop: Stop) {
    call.send_if_modified(|current| {
        let stronger = stop > *current;
        if stronger {
            *current = stop;
        }
        stronger
    });
}
