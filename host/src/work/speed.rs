//! How fast jobs end and how large they are: how many may be claimed ahead, and whose are short enough for the express lane.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::completion::Completion;
use crate::queue::Job;

/// How much work is claimed ahead, as time.
pub(super) const AHEAD: Duration = Duration::from_millis(100);
/// How much work one express transaction takes on.
const IN_ONE_TRANSACTION: Duration = Duration::from_millis(10);
/// How many bytes of payload that may take.
const AHEAD_BYTES: usize = 32 << 20;
/// A job that takes longer than this speaks against the express lane.
const SHORT: Duration = Duration::from_millis(10);
/// A task is short when the balance of its jobs reaches this: each short one counts one for it …
const PROVEN: i32 = 16;
const MOST: i32 = 64;
/// … and each long one this many against it.
const SETBACK: i32 = 32;
/// After this many jobs, what was before has little weight in the average.
const MEMORY: f64 = 100.0;

/// What the pool has learned of its jobs.
#[derive(Debug, Default)]
pub(super) struct Speed {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pace: Pace,
    /// The task map that the balances hold for: another build may be another matter.
    map: u64,
    balances: HashMap<i32, i32>,
}

/// How fast jobs end and how large they are, as far as that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Pace {
    /// How long a job takes a slot, in seconds; `None` before the first has ended.
    average: Option<f64>,
    /// How large payloads are: grows with the largest mean of a claim, and shrinks slowly.
    bytes: usize,
}

impl Pace {
    /// Of jobs without a payload that take this long.
    #[cfg(test)]
    pub(super) fn of(average: Duration) -> Self {
        Self { average: Some(average.as_secs_f64()), bytes: 0 }
    }

    /// How many jobs this many slots end in the time that is worked ahead; none before anything is known.
    pub(super) fn ahead(self, slots: usize) -> usize {
        self.within(AHEAD, slots)
    }

    /// How many jobs one express transaction takes on.
    pub(super) fn in_one_transaction(self, slots: usize) -> usize {
        self.within(IN_ONE_TRANSACTION, slots).max(slots)
    }

    fn within(self, span: Duration, slots: usize) -> usize {
        match self.average {
            Some(average) if average > 0.0 => {
                let in_time = (span.as_secs_f64() / average * slots as f64) as usize;
                in_time.min(AHEAD_BYTES / self.bytes.max(1))
            }
            _ => 0,
        }
    }
}

impl Speed {
    /// Learns from jobs that have ended.
    pub(super) fn learn(&self, completions: &[Completion]) {
        let mut state = self.state();
        let mut total = Duration::ZERO;
        let mut jobs = 0_u32;
        for completion in completions.iter().filter(|completion| !completion.is_release()) {
            total += completion.took;
            jobs += 1;
            if completion.map > state.map {
                state.map = completion.map;
                state.balances.clear();
            }
            if completion.map == state.map {
                let balance = state.balances.entry(completion.task_id).or_default();
                let step = if completion.took <= SHORT { 1 } else { -SETBACK };
                *balance = (*balance + step).clamp(-MOST, MOST);
            }
        }
        if jobs > 0 {
            let mean = total.as_secs_f64() / f64::from(jobs);
            let weight = (f64::from(jobs) / MEMORY).min(1.0);
            state.pace.average = Some(state.pace.average.map_or(mean, |average| average + (mean - average) * weight));
        }
    }

    /// Learns from jobs that a claim brought.
    pub(super) fn weigh(&self, jobs: &[Job]) {
        if jobs.is_empty() {
            return;
        }
        let mean = jobs.iter().map(|job| job.payload.len()).sum::<usize>() / jobs.len();
        let mut state = self.state();
        state.pace.bytes = mean.max(state.pace.bytes - state.pace.bytes / 8);
    }

    /// Learns that jobs had to wait for longer than was thought, because those before them take long.
    pub(super) fn stalled(&self, waited: Duration) {
        let mut state = self.state();
        let average = state.pace.average.unwrap_or_default().max(waited.as_secs_f64());
        state.pace.average = Some(average);
    }

    /// The ids of tasks have changed. (What is learned late of a job with an old one leads to the wrong lane for a while, and to
    /// nothing worse.)
    pub(super) fn forget_tasks(&self) {
        self.state().balances.clear();
    }

    /// What has been learned so far.
    pub(super) fn pace(&self) -> Pace {
        self.state().pace
    }

    /// The tasks whose jobs have shown to be short, as claimed by this task map.
    pub(super) fn short_tasks(&self, map: u64) -> Vec<i32> {
        let state = self.state();
        if state.map != map {
            return Vec::new();
        }
        state.balances.iter().filter(|(_, balance)| **balance >= PROVEN).map(|(task, _)| *task).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::ClaimedJob;

    fn completions(jobs: usize, took: Duration, map: u64) -> Vec<Completion> {
        let claim = ClaimedJob::of(&Job::sample(1));
        let completion = |_| Completion::sample(claim, 7, map, took);
        (0..jobs).map(completion).collect()
    }

    const FAST: Duration = Duration::from_micros(100);
    const SLOW: Duration = Duration::from_secs(2);

    #[test]
    fn as_much_is_claimed_ahead_as_is_done_within_the_time() {
        let speed = Speed::default();
        assert_eq!(speed.pace().ahead(10), 0, "nothing before anything is known");
        speed.learn(&completions(200, FAST, 1));
        assert!((9_000..=10_000).contains(&speed.pace().ahead(10)), "{}", speed.pace().ahead(10));
        speed.learn(&completions(100, SLOW, 1));
        assert_eq!(speed.pace().ahead(10), 0, "slow jobs are claimed one by one");
    }

    #[test]
    fn large_payloads_are_claimed_few_at_a_time() {
        let speed = Speed::default();
        speed.learn(&completions(200, FAST, 1));
        let with = |bytes: usize| Job { payload: "x".repeat(bytes), ..Job::sample(1) };
        speed.weigh(&[with(1 << 20)]);
        assert_eq!(speed.pace().ahead(50), 32);
        for _ in 0..200 {
            speed.weigh(&[with(10)]);
        }
        assert!(speed.pace().ahead(50) > 1_000, "they are small again");
    }

    #[test]
    fn who_had_to_wait_makes_it_careful() {
        let speed = Speed::default();
        speed.learn(&completions(200, FAST, 1));
        speed.stalled(Duration::from_millis(500));
        assert_eq!(speed.pace().ahead(1), 0);
    }

    #[test]
    fn a_task_is_short_after_some_jobs_until_a_long_one_and_for_one_map() {
        let speed = Speed::default();
        speed.learn(&completions(15, FAST, 3));
        assert!(speed.short_tasks(3).is_empty());
        speed.learn(&completions(10, FAST, 3));
        assert_eq!(speed.short_tasks(3), [7]);
        assert!(speed.short_tasks(4).is_empty(), "another build may take longer");
        speed.learn(&completions(1, SLOW, 3));
        assert!(speed.short_tasks(3).is_empty());
        speed.learn(&completions(40, FAST, 3));
        assert_eq!(speed.short_tasks(3), [7]);
    }
}
