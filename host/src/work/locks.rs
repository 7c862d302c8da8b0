//! Looks after locks by the hour: keeps those of this pool young, and takes away those that nobody lifted.

use std::{sync::Arc, time::Duration};

use rand::Rng;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{backoff::Backoff, pool::Pool};
use crate::{
    events::{Event, Refusal},
    queue::{QueueError, Unlocked},
};

/// The first look comes within this, so that many hosts that start together do not all look at once.
const FIRST_LOOK_WITHIN: Duration = Duration::from_secs(60);

/// Works until `stop` fires, which has to be after the last job's end: until then locks have to be renewed.
pub(super) async fn look_after_locks(pool: Arc<Pool>, stop: CancellationToken) {
    let refreshing = refresh(&pool);
    let resetting = async {
        if !pool.identity().works_once() {
            reset(&pool).await;
        }
    };
    let both = async { tokio::join!(refreshing, resetting) };
    // Each statement is whole by itself, so leaving at any point loses nothing.
    let _ = stop.run_until_cancelled(both).await;
}

async fn refresh(pool: &Pool) {
    let every = pool.settings().refresh_locked;
    let mut backoff = Backoff::new("renew the locks of running jobs", pool.database().clone(), pool.events().clone());
    loop {
        tokio::time::sleep(every).await;
        while let Err(error) = refresh_once(pool, every / 2).await {
            backoff.wait(&error).await;
        }
        backoff.succeeded();
    }
}

async fn refresh_once(pool: &Pool, age: Duration) -> Result<(), QueueError> {
    let (jobs, refused) = pool.database().session().await?.refresh_locked_around(pool.owner(), age).await?;
    for (id, error) in refused {
        pool.events().emit(Event::Refused(Refusal::Lock { what: "renew", id, error: error.reason() }));
    }
    if jobs > 0 {
        pool.events().emit(Event::LocksRenewed { jobs });
    }
    Ok(())
}

/// Ends with the first stop signal: what is freed then, another host would have to run.
async fn reset(pool: &Pool) {
    let (shortest, longest) = pool.settings().reset_locked;
    let mut next = Instant::now() + between(Duration::ZERO, FIRST_LOOK_WITHIN.min(longest));
    loop {
        tokio::select! {
            () = pool.identity().stop().graceful.cancelled() => return,
            () = sleep_until(next) => {}
        }
        pool.events().emit(Event::ResetLockedStarted);
        let result = reset_once(pool).await;
        let delay = between(shortest, longest);
        next = Instant::now() + delay;
        match result {
            Ok(unlocked) => {
                if unlocked != Unlocked::default() {
                    // Nobody is told of jobs that become free in this way.
                    pool.database().reset_cursors();
                    pool.nudge();
                }
                pool.events().emit(Event::ResetLockedSucceeded { unlocked, delay });
            }
            Err(error) => pool.events().emit(Event::ResetLockedFailed { error: error.to_string(), delay }),
        }
    }
}

async fn reset_once(pool: &Pool) -> Result<Unlocked, QueueError> {
    let (unlocked, refused) = pool.database().session().await?.reset_locked_around().await?;
    for (id, error) in refused {
        pool.events().emit(Event::Refused(Refusal::Lock { what: "release", id, error: error.reason() }));
    }
    Ok(unlocked)
}

/// A time by chance from `shortest` to `longest`; the longer one is never the shorter.
fn between(shortest: Duration, longest: Duration) -> Duration {
    shortest + longest.saturating_sub(shortest).mul_f64(rand::rng().random())
}
