//! The items of a batch at the same time.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use crate::{TaskError, TaskResult, error::BoxError};

/// Runs the futures of a batch's items, at most `limit` of them at once (and at least one), and gives their results in
/// order: for [`BatchResult`](crate::BatchResult).
///
/// They run as one, on one thread: what computes for long belongs into a plain task.
///
/// ```
/// use taskbay_plugin::prelude::*;
/// # async fn connect() -> Result<(), std::io::Error> { Ok(()) }
/// # async fn send(_: &(), to: String) -> TaskResult { Ok(()) }
///
/// #[task]
/// async fn send_all(addresses: Vec<String>) -> BatchResult {
///     let server = connect().await.or_fail("no mail server")?;
///     Ok(concurrently(10, addresses.into_iter().map(|to| send(&server, to))).await)
/// }
/// ```
pub async fn concurrently<T, E: Into<BoxError>>(
    limit: usize,
    items: impl IntoIterator<Item = impl Future<Output = Result<T, E>>>,
) -> Vec<TaskResult> {
    let mut waiting = items.into_iter().fuse();
    let mut running: Vec<(usize, Pin<Box<_>>)> = Vec::new();
    let mut results: Vec<Option<TaskResult>> = Vec::new();
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
            if before == 0 {
                return Poll::Ready(std::mem::take(&mut results).into_iter().flatten().collect());
            }
            // Those that have ended make room for others, which must be polled before this can wait.
            if running.len() == before {
                return Poll::Pending;
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Ready, ready},
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::testing::block_on;

    #[test]
    fn results_keep_their_order_and_the_limit_is_kept() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let item = async |number: u64| {
            most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20 - number)).await;
            running.fetch_sub(1, Ordering::Relaxed);
            if number.is_multiple_of(3) { Err(TaskError::new(number)) } else { Ok(number) }
        };
        let results = block_on(concurrently(4, (0..20).map(&item)));
        let told: Vec<_> = results.iter().map(|result| result.as_ref().err().map(ToString::to_string)).collect();
        let expected: Vec<_> = (0..20_u64).map(|n| n.is_multiple_of(3).then(|| n.to_string())).collect();
        assert_eq!((told, most.into_inner()), (expected, 4));
    }

    #[test]
    fn no_items_and_a_limit_of_zero_come_to_an_end() {
        assert!(block_on(concurrently(3, Vec::<Ready<TaskResult>>::new())).is_empty());
        let at_once = (0..1000).map(|_| ready(Ok::<_, TaskError>(())));
        assert_eq!(block_on(concurrently(0, at_once)).len(), 1000);
    }
}
