//! What a batch task returns: how each item of its payload ended.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use serde::Serialize;

use crate::{TaskError, error::BoxError};

/// How each item of a job's payload ended, in the order of the items.
///
/// A task whose payload is an array returns this instead of [`TaskResult`](crate::TaskResult). The job is done when all
/// items are. Otherwise it fails, with the errors in its `last_error`, and its payload shrinks to the items that failed:
/// the next attempt gets only those. Attempts and waiting times are those of any job.
///
/// ```
/// use taskbay_plugin::prelude::*;
///
/// # fn send(to: &str) -> TaskResult { Ok(()) }
/// #[task]
/// fn send_all(addresses: Vec<String>) -> BatchResult {
///     addresses.iter().map(|to| send(to)).collect()
/// }
/// ```
///
/// An error of the job as a whole is possible, too: every item is tried again.
///
/// ```
/// # use taskbay_plugin::prelude::*;
/// # async fn connect() -> Result<(), std::io::Error> { Ok(()) }
/// # async fn send(_: &(), to: String) -> TaskResult { Ok(()) }
/// #[task]
/// async fn send_all(addresses: Vec<String>) -> Result<BatchResult, TaskError> {
///     let server = connect().await.or_fail("no mail server")?;
///     Ok(BatchResult::concurrently(10, addresses.into_iter().map(|to| send(&server, to))).await)
/// }
/// ```
///
/// * An item that failed with [`TaskError::discard`] is not tried again: it is named in `last_error`, and the next attempt
///   gets the other failed items. When no other is left, the job fails for good. A job that has failed for good, for this
///   reason or for want of attempts, keeps all items that failed in its last attempt.
/// * There is one result for each item. If there are more or fewer, or if the payload is no array, the host cannot tell
///   which belongs to which: it writes a warning and takes the job for done.
/// * A panic, a timeout or a crash fails the job as a whole.
#[derive(Debug, Default)]
#[must_use = "a batch task returns it"]
pub struct BatchResult {
    results: Vec<Result<(), TaskError>>,
}

impl BatchResult {
    /// Runs the items' futures, at most `limit` of them at once (and at least one).
    ///
    /// They run as one, on one thread: what computes for long belongs into a plain task.
    pub async fn concurrently<T, E: Into<BoxError>>(
        limit: usize,
        items: impl IntoIterator<Item = impl Future<Output = Result<T, E>>>,
    ) -> Self {
        let mut waiting = items.into_iter().fuse();
        let mut running: Vec<(usize, Pin<Box<_>>)> = Vec::new();
        let mut results: Vec<Option<Result<(), TaskError>>> = Vec::new();
        poll_fn(move |cx| {
            loop {
                while running.len() < limit.max(1) {
                    let Some(item) = waiting.next() else { break };
                    running.push((results.len(), Box::pin(item)));
                    results.push(None);
                }
                let before = running.len();
                running.retain_mut(|(index, item)| match item.as_mut().poll(cx) {
                    Poll::Ready(result) => {
                        results[*index] = Some(result.map(drop).map_err(TaskError::from_any));
                        false
                    }
                    Poll::Pending => true,
                });
                if running.is_empty() && before == 0 {
                    return Poll::Ready(Self { results: std::mem::take(&mut results).into_iter().flatten().collect() });
                }
                // Those that have ended make room for others, which must be polled before this can wait.
                if running.len() == before {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// One result for each item.
    pub fn results(&self) -> &[Result<(), TaskError>] {
        &self.results
    }

    /// The items that failed, by their places from 0.
    pub fn failed(&self) -> impl Iterator<Item = (usize, &TaskError)> {
        self.results.iter().enumerate().filter_map(|(index, result)| Some((index, result.as_ref().err()?)))
    }

    /// The JSON of `taskbay_abi::ITEM_RESULTS`.
    pub(crate) fn to_json(&self) -> String {
        let failed = self.failed().enumerate().map(|(place, (index, error))| FailedItem {
            index,
            message: (place < TOLD).then(|| shortened(error.to_string())),
            discard: error.is_discard(),
        });
        let detail = Detail { items: self.results.len(), failed: failed.collect() };
        serde_json::to_string(&detail).expect("numbers and texts are always JSON")
    }
}

impl<T, E: Into<BoxError>> FromIterator<Result<T, E>> for BatchResult {
    fn from_iter<I: IntoIterator<Item = Result<T, E>>>(items: I) -> Self {
        Self { results: items.into_iter().map(|result| result.map(drop).map_err(TaskError::from_any)).collect() }
    }
}

/// The host writes no more messages than this into the job's error.
const TOLD: usize = 100;
/// Nor more of each, in bytes.
const LONGEST_MESSAGE: usize = 1000;

#[derive(Serialize)]
struct Detail {
    items: usize,
    failed: Vec<FailedItem>,
}

#[derive(Serialize)]
struct FailedItem {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    discard: bool,
}

fn shortened(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let end = (0..=LONGEST_MESSAGE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::testing::block_on;

    #[test]
    fn results_of_any_kind_of_error_are_gathered_in_order() {
        let batch: BatchResult = ["1", "x", "3", ""].iter().map(|text| text.parse::<u8>()).collect();
        let failed: Vec<(usize, String)> = batch.failed().map(|(index, error)| (index, error.to_string())).collect();
        assert_eq!(batch.results().len(), 4);
        assert_eq!(
            failed,
            [(1, "invalid digit found in string".to_owned()), (3, "cannot parse integer from empty string".to_owned())]
        );
    }

    #[test]
    fn concurrent_items_keep_their_order_and_the_limit() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let item = async |number: u64| {
            most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20 - number)).await;
            running.fetch_sub(1, Ordering::Relaxed);
            if number.is_multiple_of(3) { Err(TaskError::new(number)) } else { Ok(number) }
        };
        let batch = block_on(BatchResult::concurrently(4, (0..20).map(&item)));
        let failed: Vec<(usize, String)> = batch.failed().map(|(index, error)| (index, error.to_string())).collect();
        assert_eq!(failed, (0..20).step_by(3).map(|n| (n, n.to_string())).collect::<Vec<_>>());
        assert_eq!((batch.results().len(), most.into_inner()), (20, 4));
    }

    #[test]
    fn no_items_and_a_limit_of_zero_come_to_an_end() {
        let none = block_on(BatchResult::concurrently(3, Vec::<std::future::Ready<Result<(), TaskError>>>::new()));
        assert!(none.results().is_empty());
        let ready = (0..1000).map(|_| std::future::ready(Ok::<_, TaskError>(())));
        assert_eq!(block_on(BatchResult::concurrently(0, ready)).results().len(), 1000);
    }

    #[test]
    fn the_detail_names_what_failed_and_stays_short() {
        let results = [Ok(()), Err(TaskError::new("no \"route\"")), Err(TaskError::discard("gone"))];
        assert_eq!(
            results.into_iter().collect::<BatchResult>().to_json(),
            r#"{"items":3,"failed":[{"index":1,"message":"no \"route\""},{"index":2,"message":"gone","discard":true}]}"#
        );
        let long =
            (0..100_000).map(|_| Err::<(), _>(TaskError::new("ä".repeat(5000)))).collect::<BatchResult>().to_json();
        assert!(long.len() < 2_000_000, "{}", long.len());
    }
}
