//! Completions of marked jobs that no claimer has taken yet.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Completion, End};

#[derive(Debug)]
pub(in crate::work) struct PendingCompletions {
    complete_delay: Duration,
    fail_delay: Duration,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    completions: Vec<Completion>,
    /// When the first of them is to be stored.
    due: Option<Instant>,
}

impl PendingCompletions {
    /// Those that are done, and those that failed, wait so long for others.
    pub(in crate::work) fn new(complete_delay: Duration, fail_delay: Duration) -> Self {
        Self { complete_delay, fail_delay, waiting: Mutex::default() }
    }

    pub(in crate::work) fn add(&self, completion: Completion) {
        self.add_all([completion]);
    }

    pub(in crate::work) fn add_all(&self, completions: impl IntoIterator<Item = Completion>) {
        let mut waiting = self.waiting();
        for completion in completions {
            let delay = match completion.end {
                End::Complete => self.complete_delay,
                End::Fail { .. } => self.fail_delay,
                End::Release { .. } => Duration::ZERO,
            };
            if !delay.is_zero() || waiting.due.is_some() {
                let due = Instant::now() + delay;
                waiting.due = Some(waiting.due.map_or(due, |sooner| sooner.min(due)));
            }
            waiting.completions.push(completion);
        }
    }

    /// Those that were sent, and of which it is not known whether they arrived.
    pub(in crate::work) fn add_again(&self, mut completions: Vec<Completion>) {
        completions.iter_mut().for_each(|completion| completion.repeated = true);
        self.add_all(completions);
    }

    /// The first ones, at most `most`, if they need not wait. With `all`, nothing waits any more.
    pub(in crate::work) fn take(&self, most: usize, all: bool) -> Vec<Completion> {
        let mut waiting = self.waiting();
        if !all && waiting.due.is_some_and(|due| due > Instant::now()) {
            return Vec::new();
        }
        if waiting.completions.len() > most {
            return waiting.completions.drain(..most).collect();
        }
        waiting.due = None;
        mem::take(&mut waiting.completions)
    }

    /// When those that wait for others are to be stored.
    pub(in crate::work) fn due(&self) -> Option<Instant> {
        self.waiting().due
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
