//! Detects async tasks that block, and lets spare threads take over the other tasks.
//!
//! An async task that blocks occupies its thread. Once all threads are blocked, the whole plugin stalls, including its
//! timers. tokio cannot add threads to a running runtime; so the runtime starts with spare threads, each parked in a task
//! that waits. A released spare thread takes over the tasks of the blocked thread that have not started.
//!
//! A heartbeat, a task that does nothing, shows whether a thread is free; it runs only while there are jobs. If the heartbeat
//! is late, a blocking task is recognized by its future, which is still in the same poll as before.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use taskbay_abi::{INIT_CALL, LEVEL_WARN};
use tokio::runtime::Handle;

use crate::{
    calls::Calls,
    host_link::{HostLink, Line},
    job::Call,
};

/// The number of async tasks of a plugin that may block at once without delaying the others.
pub(crate) const SPARE_THREADS: usize = 4;

/// The time limit of a heartbeat. A task that is in the same poll after another such period counts as blocking.
const BEAT: Duration = Duration::from_millis(500);

/// The number of heartbeats after which a spare thread that is no longer needed is parked again.
const CALM: u32 = 10;

/// The waiting place of the spare threads and the watching thread.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    state: Mutex<State>,
    /// Signalled when a spare thread is released.
    let_go: Condvar,
    /// Signalled when the first job starts or the watch is closed.
    wanted: Condvar,
    /// Whether the watching thread sleeps, because there are no jobs.
    asleep: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The number of released spare threads that have not woken up yet.
    leaving: usize,
    closed: bool,
}

/// The parts of the plugin that the watching thread needs.
#[derive(Debug)]
pub(crate) struct Watched<'a> {
    pub(crate) watch: &'static Watch,
    pub(crate) calls: &'a Calls,
    pub(crate) handle: &'a Handle,
    pub(crate) link: &'a dyn HostLink,
}

/// A call, and the number of its poll.
type Polled = (Arc<Call>, u64);

impl Watch {
    /// Parks a thread of the runtime as a spare one.
    pub(crate) fn keep_spare(&'static self, runtime: &Handle) {
        runtime.spawn(async {
            let state = self.state();
            let wait = self.let_go.wait_while(state, |state| state.leaving == 0 && !state.closed);
            let mut state = wait.unwrap_or_else(PoisonError::into_inner);
            state.leaving = state.leaving.saturating_sub(1);
        });
    }

    fn let_one_go(&self) {
        self.state().leaving += 1;
        self.let_go.notify_one();
    }

    /// Ends the watch, and releases all spare threads.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.let_go.notify_all();
        self.wanted.notify_all();
    }

    /// Must be called after a call is added to `Calls`.
    pub(crate) fn call_began(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            let _state = self.state();
            self.asleep.store(false, Ordering::SeqCst);
            self.wanted.notify_all();
        }
    }

    /// Waits while there are no calls. `call_began` reads `asleep` after a call was added, and this method reads the calls
    /// after it has set `asleep`; so one of the two sees the other's change.
    fn sleep_without(&self, calls: &Calls) {
        let state = self.state();
        self.asleep.store(true, Ordering::SeqCst);
        if calls.is_empty() {
            let asleep = |state: &mut State| self.asleep.load(Ordering::SeqCst) && !state.closed;
            drop(self.wanted.wait_while(state, asleep));
        }
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Waits for a heartbeat; `false` when the watch is over.
    fn wait_for_beat(&self) -> bool {
        let wait = self.wanted.wait_timeout_while(self.state(), BEAT, |state| !state.closed);
        !wait.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The observations so far.
#[derive(Debug, Default)]
struct Seen {
    beats: u64,
    /// The calls being polled when the heartbeat was late.
    suspects: Option<Vec<Polled>>,
    /// The calls that are known to block.
    blocking: Vec<Polled>,
    /// The number of spare threads released for `blocking`.
    lent: usize,
    /// The number of spare threads released for an unknown reason. They are not parked again.
    lost: usize,
    calm: u32,
    /// The number of jobs started, while others were queued.
    begun: Option<u64>,
}

impl Watched<'_> {
    /// Watches until the watch is closed. `begun` returns the number of jobs started, if others are queued; `wake` lets any
    /// free thread start those.
    pub(crate) fn run(self, begun: impl Fn() -> Option<u64>, wake: impl Fn()) {
        let answered = Arc::new(AtomicU64::new(0));
        let mut seen = Seen::default();
        loop {
            let well = answered.load(Ordering::Relaxed) == seen.beats;
            if well && seen.lent == 0 {
                self.watch.sleep_without(self.calls);
            }
            if well {
                seen.beats += 1;
                let (answered, beat) = (Arc::clone(&answered), seen.beats);
                self.handle.spawn(async move { answered.store(beat, Ordering::Relaxed) });
            }
            let start = Instant::now();
            if !self.watch.wait_for_beat() {
                return;
            }
            let before = std::mem::replace(&mut seen.begun, begun());
            if start.elapsed() > BEAT * 2 {
                // This thread itself was suspended, so the observation proves nothing.
                seen.suspects = None;
            } else if answered.load(Ordering::Relaxed) == seen.beats {
                self.in_time(&mut seen);
                if seen.begun.is_some() && seen.begun == before {
                    // The worker for the queued jobs is stuck behind a blocking task.
                    wake();
                }
            } else if self.late(&mut seen) {
                wake();
            }
        }
    }

    fn in_time(&self, seen: &mut Seen) {
        seen.suspects = None;
        seen.blocking.retain(is_still_there);
        seen.calm = if seen.blocking.len() < seen.lent { seen.calm + 1 } else { 0 };
        if seen.calm >= CALM {
            (seen.calm, seen.lent) = (0, seen.lent - 1);
            self.watch.keep_spare(self.handle);
        }
    }

    /// Handles a late heartbeat; returns whether a task was found to block.
    fn late(&self, seen: &mut Seen) -> bool {
        seen.blocking.retain(is_still_there);
        let mut polled = self.calls.polled();
        polled.retain(|(call, _)| !seen.blocking.iter().any(|(known, _)| Arc::ptr_eq(known, call)));
        let Some(mut found) = seen.suspects.take() else {
            seen.suspects = Some(polled);
            return false;
        };
        let somebody_worked = !found.is_empty() || !polled.is_empty();
        found.retain(is_still_there);
        if found.is_empty() && somebody_worked {
            // The runtime is busy, and the heartbeat has to wait for its turn.
            seen.suspects = Some(polled);
            return false;
        }
        let left = SPARE_THREADS - seen.lent - seen.lost;
        self.name(&found, left > 0);
        if left > 0 {
            self.watch.let_one_go();
            *(if found.is_empty() { &mut seen.lost } else { &mut seen.lent }) += 1;
        }
        seen.blocking.append(&mut found);
        seen.calm = 0;
        true
    }

    fn name(&self, found: &[Polled], spare: bool) {
        let then = if spare {
            "A spare thread takes over the other async jobs of this plugin."
        } else {
            "No spare thread is left: the other async jobs of this plugin wait until it ends."
        };
        for (call, _) in found {
            let what = format!(
                "the async task `{}` of job {} blocks its thread: it came to no `.await` for a second. {then} Make it a plain \
                 `fn`, or move what blocks into `tokio::task::spawn_blocking`",
                call.task, call.job.id
            );
            self.warn(call.number, &what);
        }
        if found.is_empty() && spare {
            let what = format!(
                "something that async tasks have spawned, or that the plugin's state does, blocks all threads for async \
                 tasks. {then} Move what blocks into `tokio::task::spawn_blocking`"
            );
            self.warn(INIT_CALL, &what);
        }
    }

    fn warn(&self, call: u64, message: &str) {
        self.link.log(call, &Line { level: LEVEL_WARN, target: "taskbay_plugin", message, fields: None });
    }
}

/// Whether the call is still in the same poll.
fn is_still_there((call, poll): &Polled) -> bool {
    call.poll() == Some(*poll)
}
