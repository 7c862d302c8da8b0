//! Jobs that the database refuses, by a trigger or a constraint: results that it does not store, and jobs that it does not let be
//! claimed. Each is held back by itself, named, and tried again after a growing wait. All others go on.

mod claims;
mod results;
mod set_aside;

use std::{sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;

pub(super) use self::set_aside::Refused;
use self::set_aside::SHORTEST;
use super::pool::Pool;
use crate::queue::QueueError;

/// Works until `stop` fires.
pub(super) async fn try_refused_again(pool: Arc<Pool>, stop: CancellationToken) {
    let trying = async {
        loop {
            let due = async {
                match pool.refused().claims.next().into_iter().chain(pool.refused().results.next()).min() {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pool.refused().added.notified() => {}
                () = due => {}
            }
            pool.let_claims_in();
            // What else goes wrong is said by those who work at the same time.
            if try_once(&pool).await.is_err() {
                tokio::time::sleep(SHORTEST).await;
            }
        }
    };
    // What is tried stays among what is held back until the answer has come.
    stop.run_until_cancelled(trying).await;
}

async fn try_once(pool: &Pool) -> Result<(), QueueError> {
    if pool.refused().results.is_empty() && !pool.refused().claims.are_to_be_noted() {
        return Ok(());
    }
    let session = pool.database().session().await?;
    pool.note_refused_claims(&session).await?;
    pool.note_refused_results(&session).await?;
    let now = Instant::now();
    pool.store_refused_results(&session, |wait| wait.until <= now).await
}

/// A database that refuses this as well leaves it to the log.
fn unless_refused(result: Result<(), QueueError>) -> Result<(), QueueError> {
    result.or_else(|error| if error.is_refusal() { Ok(()) } else { Err(error) })
}
