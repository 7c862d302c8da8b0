//! What goes into a task's code and what comes out of it.

use serde::{Deserialize, Serialize};

use super::stop_signal::StopSignal;

/// One job as a plugin gets it. Times are microseconds since the Unix epoch.
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

/// How running jobs are brought to their end from outside.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    /// Tells the task, which may go on for as long as it needs.
    pub ask: StopSignal,
    /// Ends the job: the task is told, then dropped, then its process killed.
    pub force: StopSignal,
}

/// Hears that a build has accepted a job, just before the task's code runs. A build that refuses a job does not call it.
pub type Accepted<'a> = &'a (dyn Fn() + Sync);

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The task succeeded.
    Done,
    /// The task failed; the message is for `last_error`.
    Failed { kind: FailureKind, message: String },
    /// The payload is an array, and some of its items failed; the message is for `last_error`.
    PartlyFailed { items: FailedItems, message: String },
    /// The job never reached the task's code, so it may go back unharmed.
    NotStarted,
}

/// Which items of a payload failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedItems {
    /// How many items the task saw.
    items: usize,
    failed: Vec<FailedItem>,
}

/// An item of a payload that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedItem {
    /// Its place in the payload, from 0.
    pub index: usize,
    /// Trying it again is pointless.
    #[serde(default)]
    pub discard: bool,
}

impl FailedItems {
    /// The failed ones of `items`, in ascending order; `None` if they cannot be that: none, out of order, or beyond the end.
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

    /// How many items there were.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The items that are worth another attempt and, with `true`, that there is one. If none is worth it or this attempt was
    /// the last, nothing is tried again by itself, and all that failed are left.
    pub fn left(&self, last_attempt: bool) -> (Vec<usize>, bool) {
        let again = !last_attempt && self.failed.iter().any(|item| !item.discard);
        (self.failed.iter().filter(|item| !(again && item.discard)).map(|item| item.index).collect(), again)
    }
}

/// Why a job failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The task returned an error.
    Error,
    /// The task returned an error which says that trying again is pointless.
    Discard,
    /// The task panicked.
    Panic,
    /// The task ran longer than it may.
    Timeout,
    /// The job was cancelled before it could succeed.
    Cancelled,
    /// The plugin's process ended under the job.
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
