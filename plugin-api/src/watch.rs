//! Notices async tasks that block, and has spare threads go on with the other ones.
//!
//! An async task that blocks keeps its thread. If no other thread is left, nothing else of the plugin goes on, not even a
//! timer. A runtime cannot get more threads later, so it has some from the start, which do nothing but wait until they are
//! needed. To tokio, they are busy; one that is let go takes over whatever the blocked thread has not begun.
//!
//! Whether a thread is left is found out by a heartbeat, a task that does nothing, and only while there are jobs. Who keeps
//! the threads is looked up when it stays away: a future that is in the same poll as before.

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

/// So many async tasks of a plugin may block at once before they hold up the others.
pub(crate) const SPARE_THREADS: usize = 4;

/// How long a heartbeat may take. A task is taken to block if it is in the same poll after one more of these.
const BEAT: Duration = Duration::from_millis(500);

/// A spare thread that is not needed any more is taken back after so many heartbeats.
const CALM: u32 = 10;

/// Where the spare threads and the one that watches wait.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    state: Mutex<State>,
    /// A spare thread is let go.
    let_go: Condvar,
    /// Jobs have begun where there were none, or the watch is over.
    wanted: Condvar,
    /// Nobody watches, because there are no jobs.
    asleep: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// How many spare threads may go that have not gone yet.
    leaving: usize,
    closed: bool,
}

/// What the one who watches needs of the plugin.
#[derive(Debug)]
pub(crate) struct Watched<'a> {
    pub(crate) watch: &'static Watch,
    pub(crate) calls: &'a Calls,
    pub(crate) handle: &'a Handle,
    pub(crate) link: &'a dyn HostLink,
}

/// A call, and the poll that it was in.
type Polled = (Arc<Call>, u64);

impl Watch {
    /// Has a thread of the runtime wait, and costs nothing but that.
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

    /// Ends the watch, and lets all spare threads go.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.let_go.notify_all();
        self.wanted.notify_all();
    }

    /// To be told after a call was entered.
    pub(crate) fn call_began(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            let _state = self.state();
            self.asleep.store(false, Ordering::SeqCst);
            self.wanted.notify_all();
        }
    }

    /// Waits while there are no calls. `call_began` looks at `asleep` after a call was entered, and this looks for calls after
    /// it has set it, so one of the two sees the other.
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

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    beats: u64,
    /// Who was being polled when the heartbeat was late.
    suspects: Option<Vec<Polled>>,
    /// Those that were found to block, and still do.
    blocking: Vec<Polled>,
    /// Spare threads that were let go for those.
    lent: usize,
    /// Spare threads that were let go, and nobody knows for whom. They stay with the others.
    lost: usize,
    calm: u32,
    /// How many jobs had begun while others waited.
    begun: Option<u64>,
}

impl Watched<'_> {
    /// Watches until the watch is closed. `begun` tells how many jobs have begun, if others wait; `wake` has those begun by
    /// whichever thread is free.
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
                // Who stood still himself can say nothing about others.
                seen.suspects = None;
            } else if answered.load(Ordering::Relaxed) == seen.beats {
                self.in_time(&mut seen);
                if seen.begun.is_some() && seen.begun == before {
                    // Whoever was to begin them is behind a task that blocks.
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

    /// Whether some task was found to block.
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
            // There is much to do, and the heartbeat has to wait for its turn.
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
            "The other async jobs of this plugin go on on a spare thread."
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

/// Whether the call is still in that poll.
fn is_still_there((call, poll): &Polled) -> bool {
    call.poll() == Some(*poll)
}
