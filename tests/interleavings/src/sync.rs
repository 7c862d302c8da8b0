//! The checker's locks, what else threads meet by made of them, and a clock that says anything. To the checker, a future is a
//! thread that waits for locks, so these wait like one.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

pub(crate) use shuttle::{
    future::yield_now,
    sync::{Condvar, Mutex, MutexGuard, atomic::AtomicBool},
    thread_local,
};
pub(crate) use std::sync::PoisonError;

use shuttle::rand::Rng;

/// A moment of which nobody knows how long ago it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instant;

impl Instant {
    pub(crate) fn now() -> Self {
        Self
    }

    pub(crate) fn elapsed(self) -> Duration {
        if shuttle::rand::thread_rng().gen_bool(0.5) { Duration::ZERO } else { Duration::from_secs(1) }
    }
}

/// A value, and those who wait for it to change.
#[derive(Debug, Default)]
struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().expect("nobody panics")
    }

    fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    fn wait_while(&self, waits: impl Fn(&T) -> bool) -> MutexGuard<'_, T> {
        self.changed.wait_while(self.lock(), |value| waits(value)).expect("nobody panics")
    }
}

/// A pointer that is read and replaced whole.
#[derive(Debug, Default)]
pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

impl<T> ArcSwap<T> {
    pub(crate) fn load(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().expect("nobody panics"))
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        self.load()
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        *self.0.lock().expect("nobody panics") = value;
    }
}

/// A value of which only the last counts.
pub(crate) mod watch {
    use super::{Arc, MutexGuard, Watched};

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Arc<Watched<(u64, T)>>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T> {
        shared: Arc<Watched<(u64, T)>>,
        seen: u64,
    }

    impl<T> Sender<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Arc::new(Watched {
                value: shuttle::sync::Mutex::new((0, value)),
                changed: shuttle::sync::Condvar::new(),
            }))
        }

        pub(crate) fn send_replace(&self, value: T) {
            self.send_if_modified(|before| {
                *before = value;
                true
            });
        }

        pub(crate) fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
            self.0.change(|(count, value)| {
                let modified = modify(value);
                *count += u64::from(modified);
                modified
            })
        }

        pub(crate) fn subscribe(&self) -> Receiver<T> {
            let seen = self.0.lock().0;
            Receiver { shared: Arc::clone(&self.0), seen }
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn borrow(&self) -> Borrowed<'_, T> {
            Borrowed(self.shared.lock())
        }

        /// Waits for a value that was not seen yet.
        pub(crate) async fn changed(&mut self) -> Result<(), std::convert::Infallible> {
            self.seen = self.shared.wait_while(|(count, _)| *count == self.seen).0;
            Ok(())
        }
    }

    pub(crate) struct Borrowed<'a, T>(MutexGuard<'a, (u64, T)>);

    impl<T> std::ops::Deref for Borrowed<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0.1
        }
    }
}

/// Wakes one who waits, or the next one to come, or all who wait already.
#[derive(Debug)]
pub(crate) struct Notify(Watched<Notified>);

#[derive(Debug, Default)]
struct Notified {
    permit: bool,
    all: u64,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self(Watched { value: Mutex::new(Notified::default()), changed: Condvar::new() })
    }

    pub(crate) fn notify_one(&self) {
        self.0.change(|state| state.permit = true);
    }

    pub(crate) fn notify_waiters(&self) {
        self.0.change(|state| state.all += 1);
    }

    pub(crate) fn notified(&self) -> Waiting<'_> {
        Waiting { notify: self, all: self.0.lock().all }
    }
}

#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    notify: &'a Notify,
    all: u64,
}

impl Waiting<'_> {
    /// Those who wait are all who have asked.
    pub(crate) fn enable(self: Pin<&mut Self>) -> bool {
        false
    }
}

impl Future for Waiting<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let mut state = self.notify.0.wait_while(|state| !state.permit && state.all == self.all);
        if state.all == self.all {
            state.permit = false;
        }
        Poll::Ready(())
    }
}

/// A word that is given once.
#[derive(Debug)]
pub(crate) struct CancellationToken(Watched<bool>);

impl CancellationToken {
    pub(crate) fn new() -> Self {
        Self(Watched { value: Mutex::new(false), changed: Condvar::new() })
    }

    pub(crate) fn cancel(&self) {
        self.0.change(|given| *given = true);
    }

    pub(crate) async fn cancelled(&self) {
        drop(self.0.wait_while(|given| !given));
    }
}

/// Counts what runs, and tells when the last has ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskTracker(Arc<Watched<Tracked>>);

#[derive(Debug, Default)]
struct Tracked {
    running: usize,
    closed: bool,
}

impl TaskTracker {
    pub(crate) fn token(&self) -> TaskTrackerToken {
        self.0.change(|tracked| tracked.running += 1);
        TaskTrackerToken(self.clone())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    pub(crate) fn close(&self) {
        self.0.change(|tracked| tracked.closed = true);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().running
    }

    pub(crate) async fn wait(&self) {
        drop(self.0.wait_while(|tracked| !tracked.closed || tracked.running > 0));
    }
}

#[derive(Debug)]
pub(crate) struct TaskTrackerToken(TaskTracker);

impl Drop for TaskTrackerToken {
    fn drop(&mut self) {
        self.0.0.change(|tracked| tracked.running -= 1);
    }
}
