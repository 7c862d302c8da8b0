//! The input and output of a task's code.

use serde::{Deserialize, Serialize};

use super::stop_signal::StopSignal;

/// A job as received by a plugin. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct JobInput<'a> {
    pub id: i64,
    pub task: &'a str,
    pub attempt: u32,
    pub max_attempts: u32,
    pub priority: i32,
    pub revision: i32,
    pub run_at_us: i64,
    pub created_at_us: i64,
    pub updated_at_us: i64,
    /// JSON text.
    pub payload: &'a str,
    pub queue: Option<&'a str>,
    pub key: Option<&'a str>,
    pub last_error: Option<&'a str>,
    /// JSON text.
    pub flags: Option<&'a str>,
}

/// The signals that end running jobs.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    /// Asks the task to end, without a time limit.
    pub ask: StopSignal,
    /// Ends the job: the task is told, then dropped, then its process killed.
    pub force: StopSignal,
}

/// Called when a build has accepted a job, just before the task's code runs; not called for a refused job.
pub type Accepted<'a> = &'a (dyn Fn() + Sync);

/// The end of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The task succeeded.
    Done,
    /// The task failed; the message is for `last_error`.
    Failed { kind: FailureKind, message: String },
    /// The payload is an array, and some of its items failed; the message is for `last_error`.
    PartlyFailed { items: FailedItems, message: String },
    /// The job never reached the task's code, so it can be released.
    NotStarted,
}

/// The failed items of a payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedItems {
    /// The number of items in the payload, as counted by the task.
    items: usize,
    failed: Vec<FailedItem>,
}

/// An item of a payload that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedItem {
    /// Its index in the payload, from 0.
    pub index: usize,
    /// Whether a retry is pointless.
    #[serde(default)]
    pub discard: bool,
}

impl FailedItems {
    /// The failed ones of `items`, in ascending order; `None` if they are empty, out of order, or beyond the end.
    pub fn new(items: usize, failed: Vec<FailedItem>) -> Option<Self> {
        let in_order = failed.windows(2).all(|pair| pair[0].index < pair[1].index);
        let inside = failed.last().is_some_and(|last| last.index < items);
        (in_order && inside).then_some(Self { items, failed })
    }

    /// Reads the detail of [`taskbay_abi::STATUS_PARTLY_FAILED`].
    pub(super) fn from_detail(detail: &str) -> Option<Self> {
        let Self { items, failed } = serde_json::from_str(detail).ok()?;
        Self::new(items, failed)
    }

    /// The number of items.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The items to keep in the payload and, as `true`, that the job is retried. If no item can be retried or this was the
    /// last attempt, all failed items are kept.
    pub fn left(&self, last_attempt: bool) -> (Vec<usize>, bool) {
        let again = !last_attempt && self.failed.iter().any(|item| !item.discard);
        (self.failed.iter().filter(|item| !(again && item.discard)).map(|item| item.index).collect(), again)
    }
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The task returned an error.
    Error,
    /// The task returned an error that makes a retry pointless.
    Discard,
    /// The task panicked.
    Panic,
    /// The task exceeded its time limit.
    Timeout,
    /// The job was cancelled before it could succeed.
    Cancelled,
    /// The plugin's process ended during the job.
    Crash,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_a_plugin_is_believed_only_if_it_can_be_true() {
        for wrong in [
            r#"{"items":2,"failed":[]}"#,
            r#"{"items":2,"failed":[{"index":2}]}"#,
            r#"{"items":3,"failed":[{"index":1},{"index":0}]}"#,
            r#"{"items":3,"failed":[{"index":1},{"index":1}]}"#,
            r#"{"items":3,"failed":[{"index":-1}]}"#,
            r#"{"items":3}"#,
            "[0]",
            "what",
        ] {
            assert_eq!(FailedItems::from_detail(wrong), None, "{wrong}");
        }
        let right = FailedItems::from_detail(r#"{"items":3,"failed":[{"index":0},{"index":2,"discard":true}]}"#);
        assert_eq!(right.map(|items| (items.items(), items.left(false))), Some((3, (vec![0], true))));
    }

    #[test]
    fn items_that_failed_for_good_are_left_only_where_no_other_is() {
        let failed = |index, discard| FailedItem { index, discard };
        let all = FailedItems::new(3, vec![failed(0, true), failed(2, true)]).unwrap();
        assert_eq!(all.left(false), (vec![0, 2], false));
        let some = FailedItems::new(3, vec![failed(0, true), failed(2, false)]).unwrap();
        assert_eq!(some.left(false), (vec![2], true));
        assert_eq!(some.left(true), (vec![0, 2], false), "nothing is lost where nothing is tried again");
    }
}
