//! A stop signal for any number of running jobs that costs nothing for jobs that are never stopped.
//!
//! The plugin's table of calls subscribes once, and forwards the signal to its jobs.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::sync::{AtomicBool, CancellationToken, Mutex, PoisonError};

/// What a signal wakes.
pub(super) trait Waiters: Send + Sync {
    /// Wakes all, to check their signals.
    fn wake_all(&self);
}

/// A signal that stays set once it is given. Clones are the same signal.
#[derive(Clone)]
pub struct StopSignal(Arc<Inner>);

struct Inner {
    /// A unique number.
    number: u64,
    given: AtomicBool,
    /// For waiters of this signal alone.
    token: CancellationToken,
    /// The tables whose calls are woken.
    tables: Mutex<Vec<Weak<dyn Waiters>>>,
}

impl StopSignal {
    /// Gives the signal.
    pub fn cancel(&self) {
        // Set before the wake-ups, so that a late subscriber sees it.
        self.0.given.store(true, Ordering::SeqCst);
        self.0.token.cancel();
        let tables = std::mem::take(&mut *self.0.tables.lock().unwrap_or_else(PoisonError::into_inner));
        for table in tables.iter().filter_map(Weak::upgrade) {
            table.wake_all();
        }
    }

    /// Whether it has been given.
    pub fn is_cancelled(&self) -> bool {
        self.0.given.load(Ordering::SeqCst)
    }

    /// Waits until it has been given.
    pub async fn cancelled(&self) {
        self.0.token.cancelled().await;
    }

    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    /// Subscribes a table: the signal wakes all its calls.
    pub(super) fn wakes(&self, calls: Weak<dyn Waiters>) {
        let mut tables = self.0.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if !tables.iter().any(|table| table.ptr_eq(&calls)) {
            tables.retain(|table| table.strong_count() > 0);
            tables.push(calls);
        }
    }
}

impl Default for StopSignal {
    fn default() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(Inner {
            number: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            given: AtomicBool::new(false),
            token: CancellationToken::new(),
            tables: Mutex::default(),
        }))
    }
}

impl fmt::Debug for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopSignal").field("given", &self.is_cancelled()).finish_non_exhaustive()
    }
}
