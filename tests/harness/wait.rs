//! Waiting for what sends no event: rows that disappear, files that grow, processes of others that end.

use std::{
    fmt::{self, Debug, Display, Formatter},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::program::DEADLINE;

const BETWEEN: Duration = Duration::from_millis(5);
/// The bound for something that changes for ever and never comes to its end.
const AT_MOST: Duration = DEADLINE.saturating_mul(10);
/// The most that counts as waiting between two looks: a machine that stops all processes for minutes stops what is waited for, too.
pub const STEP: Duration = Duration::from_secs(1);

/// How much longer to wait for something. [`Self::is_over`] has to be asked after each [`STEP`] or more often.
pub struct Patience {
    /// The wait since the last change.
    unchanged: Duration,
    whole: Duration,
    asked: Instant,
}

impl Patience {
    pub fn new() -> Self {
        Self { unchanged: Duration::ZERO, whole: Duration::ZERO, asked: Instant::now() }
    }

    /// The deadline starts anew whenever something changes: a slow machine may take as long as it likes, as long as it gets on.
    pub fn is_over(&mut self, changed: bool) -> bool {
        let now = Instant::now();
        let step = (now - self.asked).min(STEP);
        self.asked = now;
        self.unchanged = if changed { Duration::ZERO } else { self.unchanged + step };
        self.whole += step;
        self.unchanged >= DEADLINE || self.whole >= AT_MOST
    }
}

impl Display for Patience {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "unchanged for {:?} of {:?}", self.unchanged, self.whole)
    }
}

/// Looks again and again until there is something to return. `Err` is what was seen instead. When that no longer changes, the
/// [`Patience`] ends.
#[track_caller]
pub fn until<T, S: PartialEq + Debug>(
    what: impl Display,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let mut patience = Patience::new();
        let mut last = None;
        loop {
            let seen = match look().await {
                Ok(found) => return found,
                Err(seen) => Some(seen),
            };
            let changed = last != seen;
            last = seen;
            assert!(!patience.is_over(changed), "{what}, waited for at {place}: {last:?}, {patience}");
            sleep(BETWEEN).await;
        }
    }
}

/// The same for a condition that is true or not.
#[track_caller]
pub fn until_true(what: impl Display, mut look: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    until(what, async move || if look().await { Ok(()) } else { Err(false) })
}
