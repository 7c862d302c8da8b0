//! Concurrent processing of a batch's items.

use std::{
    fmt,
    future::Future,
    iter::Fuse,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{TaskError, TaskResult, error::BoxError};

/// Runs the futures of a batch's items concurrently, at most `limit` at once (and at least one), and returns their results
/// in order, for [`BatchResult`](crate::BatchResult).
///
/// All of them run on one thread; long computations belong in a plain task. Each item's future is created when its turn
/// comes, and may borrow from anything that outlives the batch:
///
/// ```
/// use taskbay_plugin::prelude::*;
/// # #[derive(Deserialize)]
/// # struct Order { customer: String }
/// # struct Shop;
/// # impl Shop { async fn write_to(&self, customer: &str) -> Result<(), std::io::Error> { Ok(()) } }
///
/// #[task]
/// async fn notify_all(ctx: Context<Shop>, orders: Vec<Order>) -> BatchResult {
///     Ok(concurrently(4, orders.iter().map(|order| notify(&ctx, order))).await)
/// }
///
/// async fn notify(ctx: &Context<Shop>, order: &Order) -> TaskResult {
///     ctx.state().write_to(&order.customer).await.or_fail("cannot write")
/// }
/// # fn open(_: &Setup) -> Result<Shop, TaskError> { Ok(Shop) }
/// # plugin! { state: open, tasks: [notify_all] }
/// # fn main() {}
/// ```
pub fn concurrently<'a, T: 'a, E, F, I>(limit: usize, items: I) -> Concurrently<'a>
where
    E: Into<BoxError> + 'a,
    F: Future<Output = Result<T, E>> + Send + 'a,
    I: IntoIterator<Item = F, IntoIter: Send + 'a>,
{
    // Erases the types of the iterator and its futures. Inside a task's future, closures and borrows in these types would
    // need higher-ranked bounds that the compiler cannot infer.
    let items: Box<dyn Iterator<Item = Item<'a>> + Send + 'a> =
        Box::new(items.into_iter().map(|future| -> Item<'a> { Box::pin(told(future)) }));
    Concurrently { limit: limit.max(1), waiting: items.fuse(), running: Vec::new(), results: Vec::new() }
}

/// The future of [`concurrently`].
#[must_use = "items run only by `.await`"]
pub struct Concurrently<'a> {
    limit: usize,
    waiting: Fuse<Box<dyn Iterator<Item = Item<'a>> + Send + 'a>>,
    running: Vec<(usize, Item<'a>)>,
    results: Vec<Option<TaskResult>>,
}

type Item<'a> = Pin<Box<dyn Future<Output = TaskResult> + Send + 'a>>;

async fn told<T, E: Into<BoxError>>(item: impl Future<Output = Result<T, E>>) -> TaskResult {
    item.await.map(drop).map_err(TaskError::from_any)
}

impl Future for Concurrently<'_> {
    type Output = Vec<TaskResult>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<TaskResult>> {
        let Self { limit, waiting, running, results } = &mut *self;
        loop {
            while running.len() < *limit {
                let Some(item) = waiting.next() else { break };
                running.push((results.len(), item));
                results.push(None);
            }
            let before = running.len();
            running.retain_mut(|(index, item)| match item.as_mut().poll(cx) {
                Poll::Ready(result) => {
                    results[*index] = Some(result);
                    false
                }
                Poll::Pending => true,
            });
            if before == 0 {
                return Poll::Ready(std::mem::take(results).into_iter().flatten().collect());
            }
            // Finished items make room for new ones, which must be polled before this returns `Pending`.
            if running.len() == before {
                return Poll::Pending;
            }
        }
    }
}

impl fmt::Debug for Concurrently<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Concurrently").field("limit", &self.limit).field("running", &self.running.len()).finish()
    }
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
