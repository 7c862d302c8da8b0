//! Waiting for what sends no event: rows that disappear, files that grow, processes of others that end.

use std::{
    fmt::{Debug, Display},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::program::DEADLINE;

const BETWEEN: Duration = Duration::from_millis(5);
/// The bound for something that changes for ever and never comes to its end.
const AT_MOST: Duration = DEADLINE.saturating_mul(10);

/// Looks again and again until there is something to return. `Err` is what was seen instead.
///
/// The deadline starts anew whenever that changes: a slow machine may take as long as it likes, as long as it gets on.
#[track_caller]
pub fn until<T, S: PartialEq + Debug>(
    what: impl Display,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let began = Instant::now();
        let mut last: Option<(S, Instant)> = None;
        loop {
            let seen = match look().await {
                Ok(found) => return found,
                Err(seen) => seen,
            };
            match &last {
                Some((before, since)) if *before == seen => {
                    assert!(since.elapsed() < DEADLINE, "{what}, waited for at {place}: {seen:?} for {DEADLINE:?}");
                }
                _ => last = Some((seen, Instant::now())),
            }
            assert!(began.elapsed() < AT_MOST, "{what}, waited for at {place}: not within {AT_MOST:?}");
            sleep(BETWEEN).await;
        }
    }
}

/// The same for a condition that is true or not.
#[track_caller]
pub fn until_true(what: impl Display, mut look: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    until(what, async move || if look().await { Ok(()) } else { Err(false) })
}
