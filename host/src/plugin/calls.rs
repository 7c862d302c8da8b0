//! The calls in progress of a started plugin. A late or second end, or one for an unknown call, finds no entry and is
//! ignored.
//!
//! A call's number combines the index of its place with the place's use count; so places are reused, but numbers are not.

use std::{
    future::poll_fn,
    mem,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use super::stop_signal::{StopSignal, Waiters};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// The end of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallEnd {
    /// Reported by the plugin, with a `STATUS_*` value.
    Reported { status: u32, message: Option<String>, detail: Option<String> },
    /// The plugin's process is gone.
    Crashed(String),
}

/// The calls of one mapped plugin.
#[derive(Debug, Default)]
pub(super) struct Calls {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// No more calls are accepted.
    closed: bool,
    places: Vec<Place>,
    free: Vec<u32>,
    running: usize,
    /// The signals that wake these calls, by number.
    heeded: Vec<u64>,
}

/// The number of remembered signals. Registering with one of the others again is harmless.
const MOST_HEEDED: usize = 16;

#[derive(Debug)]
struct Place {
    /// The number of calls so far, including the current one.
    uses: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    Running {
        job: i64,
        task: u32,
        waiting: Option<Waker>,
    },
    Ended(CallEnd),
    /// The end was received; the call is about to be dropped.
    Told,
}

/// A call in progress. Dropping it gives up the wait for its end.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: u64,
    calls: Arc<Calls>,
}

impl Calls {
    /// Registers a call of a task, by its index, for a job; `None` once the plugin is gone.
    pub(super) fn begin(self: &Arc<Self>, job: i64, task: u32) -> Option<Call> {
        let mut table = self.lock();
        if table.closed {
            return None;
        }
        let index = table.free.pop().unwrap_or_else(|| {
            table.places.push(Place { uses: 0, state: State::Free });
            u32::try_from(table.places.len() - 1).expect("fewer than four billion jobs run")
        });
        table.running += 1;
        let place = &mut table.places[index as usize];
        place.uses += 1;
        place.state = State::Running { job, task, waiting: None };
        Some(Call { id: u64::from(place.uses) << 32 | u64::from(index), calls: Arc::clone(self) })
    }

    /// Ends a call; `false` if there is none.
    pub(super) fn finish(&self, call: u64, end: CallEnd) -> bool {
        let mut table = self.lock();
        let Some(place) = table.place(call).filter(|place| matches!(place.state, State::Running { .. })) else {
            return false;
        };
        let before = mem::replace(&mut place.state, State::Ended(end));
        table.running -= 1;
        drop(table);
        before.wake();
        true
    }

    /// The job and the task's index of a call in progress.
    pub(super) fn describe(&self, call: u64) -> Option<(i64, u32)> {
        match self.lock().place(call)?.state {
            State::Running { job, task, .. } => Some((job, task)),
            _ => None,
        }
    }

    /// The number of calls in progress.
    pub(super) fn running(&self) -> usize {
        self.lock().running
    }

    /// Refuses new calls, ends those in progress, and returns their number.
    pub(super) fn close(&self, reason: &str) -> usize {
        let mut table = self.lock();
        table.closed = true;
        table.running = 0;
        let ended: Vec<State> = table
            .places
            .iter_mut()
            .filter(|place| matches!(place.state, State::Running { .. }))
            .map(|place| mem::replace(&mut place.state, State::Ended(CallEnd::Crashed(reason.to_owned()))))
            .collect();
        drop(table);
        let count = ended.len();
        ended.into_iter().for_each(State::wake);
        count
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The place of a call, if the call is still the current one there.
    fn place(&mut self, call: u64) -> Option<&mut Place> {
        let index = usize::try_from(call & u64::from(u32::MAX)).ok()?;
        self.places.get_mut(index).filter(|place| u64::from(place.uses) == call >> 32)
    }
}

impl State {
    fn wake(self) {
        if let Self::Running { waiting: Some(waiting), .. } = self {
            waiting.wake();
        }
    }
}

impl Call {
    /// Waits for the end or for one of these signals. Cancel-safe.
    pub(super) async fn end_unless(&mut self, signals: &[&StopSignal]) -> Option<CallEnd> {
        poll_fn(|context| match self.poll_end(context, signals) {
            Poll::Ready(end) => Poll::Ready(Some(end)),
            Poll::Pending if signals.iter().any(|signal| signal.is_cancelled()) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn poll_end(&mut self, context: &mut Context<'_>, signals: &[&StopSignal]) -> Poll<CallEnd> {
        let mut table = self.calls.lock();
        let strange = signals.iter().any(|signal| !table.heeded.contains(&signal.number()));
        let Some(place) = table.place(self.id) else { return Poll::Pending };
        if let State::Running { waiting, .. } = &mut place.state {
            if !waiting.as_ref().is_some_and(|waiting| waiting.will_wake(context.waker())) {
                *waiting = Some(context.waker().clone());
            }
        } else if let State::Ended(end) = mem::replace(&mut place.state, State::Told) {
            return Poll::Ready(end);
        }
        drop(table);
        if strange {
            self.calls.heed(signals);
        }
        Poll::Pending
    }
}

impl Calls {
    /// Subscribes the calls to signals. A call that afterwards finds a signal not given will be woken by it.
    fn heed(self: &Arc<Self>, signals: &[&StopSignal]) {
        for signal in signals {
            signal.wakes(Arc::downgrade(self) as Weak<dyn Waiters>);
        }
        let mut table = self.lock();
        if table.heeded.len() + signals.len() > MOST_HEEDED {
            table.heeded.clear();
        }
        table.heeded.extend(signals.iter().map(|signal| signal.number()));
    }
}

impl Waiters for Calls {
    fn wake_all(&self) {
        let take = |place: &mut Place| match &mut place.state {
            State::Running { waiting, .. } => waiting.take(),
            _ => None,
        };
        let waiting: Vec<Waker> = self.lock().places.iter_mut().filter_map(take).collect();
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut table = self.calls.lock();
        let Some(place) = table.place(self.id) else { return };
        // Wakers and messages are dropped outside of the lock.
        let before = mem::replace(&mut place.state, State::Free);
        // A place whose use count is exhausted stays empty, so no number is used twice.
        let reusable = place.uses < u32::MAX;
        if matches!(before, State::Running { .. }) {
            table.running -= 1;
        }
        if reusable {
            table.free.push((self.id & u64::from(u32::MAX)) as u32);
        }
        drop(table);
        drop(before);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::{FutureExt, task::ArcWake};

    use super::*;

    fn done() -> CallEnd {
        CallEnd::Reported { status: 0, message: None, detail: None }
    }

    fn end_of(call: &mut Call) -> Option<CallEnd> {
        call.end_unless(&[]).now_or_never().flatten()
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl ArcWake for Woken {
        fn wake_by_ref(this: &Arc<Self>) {
            this.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_first_end_counts_and_later_ones_find_nothing() {
        let calls = Arc::new(Calls::default());
        let mut call = calls.begin(42, 3).unwrap();
        assert_eq!(calls.describe(call.id), Some((42, 3)));
        assert!(calls.finish(call.id, done()));
        assert!(!calls.finish(call.id, CallEnd::Crashed("late".into())));
        for never in [0, 999, 999 << 32, u64::MAX] {
            assert!(!calls.finish(never, done()));
        }
        assert_eq!(end_of(&mut call), Some(done()));
        assert_eq!(end_of(&mut call), None);
        assert_eq!(calls.describe(call.id), None);
    }

    #[test]
    fn an_end_for_a_call_that_was_given_up_does_not_reach_the_next_one_in_its_place() {
        let calls = Arc::new(Calls::default());
        let call = calls.begin(1, 0).unwrap();
        let id = call.id;
        drop(call);
        let mut next = calls.begin(2, 0).unwrap();
        assert_eq!(calls.lock().places.len(), 1, "the place is the same");
        assert!(!calls.finish(id, CallEnd::Crashed("late".into())));
        assert_eq!((calls.describe(id), calls.describe(next.id)), (None, Some((2, 0))));
        assert_eq!(end_of(&mut next), None);
        assert!(calls.finish(next.id, done()));
    }

    #[test]
    fn no_number_comes_twice_not_even_when_a_place_is_worn_out() {
        let calls = Arc::new(Calls::default());
        drop(calls.begin(1, 0).unwrap());
        calls.lock().places[0].uses = u32::MAX - 1;
        let last = calls.begin(2, 0).unwrap();
        let id = last.id;
        drop(last);
        let elsewhere = calls.begin(3, 0).unwrap();
        assert_ne!(elsewhere.id & u64::from(u32::MAX), id & u64::from(u32::MAX));
        assert!(!calls.finish(id, done()));
    }

    #[test]
    fn places_are_used_again_and_no_number_is_that_of_the_start_up() {
        let calls = Arc::new(Calls::default());
        let mut seen = std::collections::HashSet::new();
        for round in 0..50 {
            let running: Vec<Call> = (0..20).map(|job| calls.begin(job, 0).unwrap()).collect();
            assert_eq!(calls.running(), 20);
            assert!(running.iter().all(|call| call.id != taskbay_abi::INIT_CALL && seen.insert(call.id)), "{round}");
        }
        assert_eq!(calls.running(), 0);
        assert_eq!(calls.lock().places.len(), 20);
    }

    #[test]
    fn closing_fails_what_runs_and_lets_nothing_begin() {
        let calls = Arc::new(Calls::default());
        let mut call = calls.begin(1, 0).unwrap();
        assert_eq!(calls.close("gone"), 1);
        assert_eq!(end_of(&mut call), Some(CallEnd::Crashed("gone".into())));
        assert!(calls.begin(2, 0).is_none());
        assert_eq!(calls.close("again"), 0);
    }

    #[test]
    fn a_signal_wakes_every_call_that_heeds_it_whenever_that_began() {
        let calls = Arc::new(Calls::default());
        let (signal, other) = (StopSignal::default(), StopSignal::default());
        let woken = Arc::new(Woken::default());
        let waker = futures_util::task::waker(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut running: Vec<Call> = (0..3).map(|job| calls.begin(job, 0).unwrap()).collect();
        // Enough other signals to forget this one, and to subscribe to it again.
        for _ in 0..2 * MOST_HEEDED {
            let _ = running[0].end_unless(&[&StopSignal::default()]).poll_once(&mut context);
        }
        for call in &mut running {
            assert!(call.end_unless(&[&signal, &other]).poll_once(&mut context).is_pending());
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        signal.cancel();
        assert_eq!(woken.0.load(Ordering::Relaxed), 3);
        for call in &mut running {
            assert!(matches!(call.end_unless(&[&other, &signal]).poll_once(&mut context), Poll::Ready(None)));
        }
        let mut late = calls.begin(9, 0).unwrap();
        assert!(matches!(late.end_unless(&[&signal]).poll_once(&mut context), Poll::Ready(None)));
        calls.finish(late.id, done());
        let end = late.end_unless(&[&signal]).poll_once(&mut context);
        assert_eq!(end, Poll::Ready(Some(done())), "an end comes before a signal");
    }

    trait PollOnce: Future + Sized {
        fn poll_once(self, context: &mut Context<'_>) -> Poll<Self::Output> {
            std::pin::pin!(self).poll(context)
        }
    }

    impl<F: Future> PollOnce for F {}
}
