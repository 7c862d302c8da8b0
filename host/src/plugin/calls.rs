//! The calls that a started plugin has not ended yet. An end that comes late, twice, or for no call finds nothing here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallEnd {
    /// The plugin reported it, by a `STATUS_*` value.
    Reported { status: u32, message: Option<String>, detail: Option<String> },
    /// The plugin's process is gone.
    Crashed(String),
}

/// The calls of one mapped plugin.
#[derive(Debug, Default)]
pub(super) struct Calls {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// Why no call can begin any more.
    closed: bool,
    running: HashMap<u64, Running>,
}

#[derive(Debug)]
struct Running {
    job: i64,
    task: u32,
    end: oneshot::Sender<CallEnd>,
}

/// A call under way. Dropping it means that nobody waits for its end any more.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: u64,
    /// Where its end arrives.
    pub(super) end: oneshot::Receiver<CallEnd>,
    calls: Arc<Calls>,
}

impl Calls {
    /// Registers a call of a task, by its index, for a job; `None` once the plugin is gone.
    pub(super) fn begin(self: &Arc<Self>, job: i64, task: u32) -> Option<Call> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        state.last += 1;
        let id = state.last;
        let (sender, end) = oneshot::channel();
        state.running.insert(id, Running { job, task, end: sender });
        Some(Call { id, end, calls: Arc::clone(self) })
    }

    /// Ends a call; `false` if there is none.
    pub(super) fn finish(&self, call: u64, end: CallEnd) -> bool {
        let running = self.lock().running.remove(&call);
        running.is_some_and(|running| running.end.send(end).is_ok())
    }

    /// The job and the task's index of a call under way.
    pub(super) fn describe(&self, call: u64) -> Option<(i64, u32)> {
        self.lock().running.get(&call).map(|running| (running.job, running.task))
    }

    /// Lets no call begin any more, ends those under way, and tells how many they were.
    pub(super) fn close(&self, reason: &str) -> usize {
        let running = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.running)
        };
        let count = running.len();
        for call in running.into_values() {
            let _ = call.end.send(CallEnd::Crashed(reason.to_owned()));
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.lock().running.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done() -> CallEnd {
        CallEnd::Reported { status: 0, message: None, detail: None }
    }

    #[test]
    fn the_first_end_counts_and_later_ones_find_nothing() {
        let calls = Arc::new(Calls::default());
        let mut call = calls.begin(42, 3).unwrap();
        assert_eq!(calls.describe(call.id), Some((42, 3)));
        assert!(calls.finish(call.id, done()));
        assert!(!calls.finish(call.id, CallEnd::Crashed("late".into())));
        assert!(!calls.finish(999, done()));
        assert_eq!(call.end.try_recv().unwrap(), done());
        assert_eq!(calls.describe(call.id), None);
    }

    #[test]
    fn an_end_for_a_call_that_was_given_up_is_harmless() {
        let calls = Arc::new(Calls::default());
        let call = calls.begin(1, 0).unwrap();
        let id = call.id;
        drop(call);
        assert!(!calls.finish(id, done()));
        assert_ne!(calls.begin(2, 0).unwrap().id, id, "an id is never used again");
    }

    #[test]
    fn closing_fails_what_runs_and_lets_nothing_begin() {
        let calls = Arc::new(Calls::default());
        let mut call = calls.begin(1, 0).unwrap();
        assert_eq!(calls.close("gone"), 1);
        assert_eq!(call.end.try_recv().unwrap(), CallEnd::Crashed("gone".into()));
        assert!(calls.begin(2, 0).is_none());
        assert_eq!(calls.close("again"), 0);
    }
}
