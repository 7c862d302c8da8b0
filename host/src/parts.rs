//! The parts of a host: tasks that it cannot work without.
//!
//! A part that panics, or ends while the host goes on, is a bug of this program. The host hears of it, stops, and says so by its
//! exit status, so that a supervisor starts it again. It never lives on without a part. Of each part it is known whether it
//! still moves, for those who watch over the host from outside.

use std::{
    cell::Cell,
    fmt,
    future::poll_fn,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

mod progress;

pub use progress::Stuck;
use progress::{Progress, Registry};

/// How often a part that waits shows that it moves, where somebody watches.
const TICK: Duration = Duration::from_secs(1);

/// The parts of one host. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The first one; what fails after it may be its consequence.
    failure: watch::Sender<Option<PartFailure>>,
    /// Those that run.
    registry: Mutex<Registry>,
    watched: std::sync::atomic::AtomicBool,
}

/// A part of the host ended that should not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFailure {
    /// Which one.
    pub part: &'static str,
    /// The message of the panic; `None` if it returned.
    pub panic: Option<String>,
    /// Where in the source it panicked, if that was noted.
    pub location: Option<String>,
}

impl fmt::Display for PartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.panic, &self.location) {
            (None, _) => write!(f, "the {} ended although the host was not stopping", self.part),
            (Some(message), None) => write!(f, "the {} panicked: {message}", self.part),
            (Some(message), Some(location)) => write!(f, "the {} panicked at {location}: {message}", self.part),
        }
    }
}

/// A part, as its own loop sees it.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    name: &'static str,
    parts: Parts,
    progress: Arc<Progress>,
}

impl Parts {
    /// A part of this name that does not run yet.
    pub(crate) fn part(&self, name: &'static str) -> Part {
        Part { name, parts: self.clone(), progress: Arc::default() }
    }

    /// Runs what may end at any time but must not panic.
    pub(crate) fn guard<F: Future>(&self, part: &'static str, work: F) -> impl Future<Output = F::Output> + use<F> {
        let caught = self.catch(part, work);
        async move { caught.await.unwrap_or_else(|panic| panic::resume_unwind(panic)) }
    }

    /// The same, and gives the panic.
    pub(crate) fn catch<F: Future>(
        &self,
        part: &'static str,
        work: F,
    ) -> impl Future<Output = std::thread::Result<F::Output>> + use<F> {
        let parts = self.clone();
        // In a box, or each future around it would be twice as large as the one within.
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        async move {
            let ended = poll_fn(|context| {
                let fault = AssertUnwindSafe(|| fault::inject(part));
                if let Err(panic) = panic::catch_unwind(fault) {
                    return Poll::Ready(Err(panic));
                }
                work.as_mut().poll(context)
            });
            ended.await.inspect_err(|panic| {
                let location = LAST_PANIC.with(Cell::take);
                parts.fail(PartFailure { part, panic: Some(message_of(&**panic)), location });
            })
        }
    }

    /// The same, on a task of its own.
    pub(crate) fn spawn<F>(&self, part: &'static str, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        tokio::spawn(self.guard(part, work))
    }

    /// The first failure, if there was one.
    pub(crate) fn failure(&self) -> Option<PartFailure> {
        self.inner.failure.borrow().clone()
    }

    /// Waits for the first failure.
    pub(crate) async fn failed(&self) -> PartFailure {
        let mut failure = self.inner.failure.subscribe();
        loop {
            if let Some(failure) = failure.borrow_and_update().clone() {
                return failure;
            }
            // An error would mean that the sender is gone, which is in this.
            let _ = failure.changed().await;
        }
    }

    /// From here on, each part shows once a second that it moves, even if it has nothing to do. Parts that run already do not.
    pub(crate) fn watch(&self) {
        self.inner.watched.store(true, std::sync::atomic::Ordering::Release);
    }

    /// The parts that have not moved for this long, and for how long they have not. A part that waits for the database or for
    /// a file system moves. Empty unless [`Parts::watch`] was called before the host started.
    pub(crate) fn stuck(&self, limit: Duration) -> Vec<Stuck> {
        self.registry().stuck(limit)
    }

    fn is_watched(&self) -> bool {
        self.inner.watched.load(std::sync::atomic::Ordering::Acquire)
    }

    fn fail(&self, failure: PartFailure) {
        self.inner.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(|| failure.clone());
            is_first
        });
        let PartFailure { part, location, .. } = &failure;
        tracing::error!(event = "part_failed", part, location, "internal error: {failure}");
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// Spawns the part. It may end once `over` is cancelled, and not before.
    pub(crate) fn spawn<F>(&self, over: CancellationToken, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        tokio::spawn(self.run(over, work))
    }

    /// The same, within the task that calls it.
    pub(crate) fn run<F: Future>(&self, over: CancellationToken, work: F) -> impl Future<Output = F::Output> + use<F> {
        let Part { name, parts, progress } = self.clone();
        let mut work = Box::pin(parts.guard(name, work));
        async move {
            let watched = parts.is_watched();
            let _registered = watched.then(|| Registered::new(&parts, name, &progress));
            let mut tick = (watched || fault::is_possible()).then(|| tokio::time::interval(TICK));
            if let Some(tick) = &mut tick {
                tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
            }
            let output = poll_fn(|context| {
                if let Some(tick) = &mut tick {
                    // Asked until it is not there, it wakes this task when it is.
                    while tick.poll_tick(context).is_ready() {}
                    if fault::stops(name) {
                        return Poll::Pending;
                    }
                    progress.polled();
                }
                work.as_mut().poll(context)
            })
            .await;
            if !over.is_cancelled() {
                parts.fail(PartFailure { part: name, panic: None, location: None });
            }
            output
        }
    }

    /// The part's loop has come round. From the first call on, it counts as moving only if it does so again and again.
    pub(crate) fn turn(&self) {
        if self.parts.is_watched() {
            self.progress.turned();
        }
    }

    /// For a loop that waits: ends after a second where somebody watches, so that the loop comes round.
    pub(crate) async fn tick(&self) {
        if self.parts.is_watched() {
            tokio::time::sleep(TICK).await;
        } else {
            std::future::pending().await
        }
    }

    /// Waits for something that is not in the hands of this program: meanwhile, the loop need not come round.
    pub(crate) async fn outside<F: Future>(&self, work: F) -> F::Output {
        let _outside = self.progress.outside();
        work.await
    }
}

/// Puts a part on the list for as long as it runs.
struct Registered<'a> {
    parts: &'a Parts,
    progress: Arc<Progress>,
}

impl<'a> Registered<'a> {
    fn new(parts: &'a Parts, name: &'static str, progress: &Arc<Progress>) -> Self {
        progress.polled();
        parts.registry().add(name, progress);
        Self { parts, progress: Arc::clone(progress) }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.parts.registry().remove(&self.progress);
    }
}

thread_local! {
    /// Where this thread panicked last.
    static LAST_PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

/// From here on, a failure says where in the source it happened. This adds to what the process does at a panic, so it is for
/// programs, not for libraries.
pub(crate) fn note_where_panics_happen() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        LAST_PANIC.set(panic.location().map(ToString::to_string));
        before(panic);
    }));
}

pub(crate) fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it gave no message".to_owned())
}

/// Faults that tests of this mechanism ask for, since no part is known to fail by itself. Builds for production have none.
#[cfg(debug_assertions)]
mod fault {
    use std::{env, fs, path::PathBuf, sync::LazyLock};

    /// A file with `panic PART` or `stop PART` in it.
    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| env::var_os("FAULT_FILE_OF_TASKBAYS_TESTS").map(PathBuf::from));

    pub(super) fn is_possible() -> bool {
        FILE.is_some()
    }

    /// Panics if this part is to.
    pub(super) fn inject(part: &str) {
        assert!(!is_asked_for("panic", part), "a test asked for it");
    }

    /// Whether this part is to do nothing for now.
    pub(super) fn stops(part: &str) -> bool {
        is_asked_for("stop", part)
    }

    fn is_asked_for(what: &str, part: &str) -> bool {
        let asked = FILE.as_ref().and_then(|file| fs::read_to_string(file).ok());
        asked.is_some_and(|asked| asked.trim() == format!("{what} {part}"))
    }
}

#[cfg(not(debug_assertions))]
mod fault {
    pub(super) const fn is_possible() -> bool {
        false
    }

    pub(super) const fn inject(_: &str) {}

    pub(super) const fn stops(_: &str) -> bool {
        false
    }
}
