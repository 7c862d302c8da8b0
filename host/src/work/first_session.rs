//! The session of the first claim, connected and with that claim planned while the tasks are still being loaded: both take the
//! database several milliseconds.

use tokio_util::task::AbortOnDropHandle;

use super::pool::Pool;
use crate::{
    config::{Clock, ForbiddenFlags},
    queue::{Conditions, QueueError, Session},
};

/// Dropping it ends the preparation.
pub(super) type FirstSession = AbortOnDropHandle<Option<Session>>;

/// `None` if the pool closes before, or if that fails: whatever goes wrong here goes wrong again at the first claim, which tells of it.
pub(super) async fn prepare_session(pool: &Pool) -> Option<Session> {
    let session = pool.identity().closing().run_until_cancelled(pool.database().session()).await?.ok()?;
    match pool.identity().closing().run_until_cancelled(prepare(pool, &session)).await {
        Some(Ok(())) => Some(session),
        Some(Err(_)) | None => {
            session.discard();
            None
        }
    }
}

async fn prepare(pool: &Pool, session: &Session) -> Result<(), QueueError> {
    session.fit_out().await?;
    let settings = pool.settings();
    // Which plan the others need is known when they have been asked for.
    let ForbiddenFlags::Fixed(forbidden_flags) = &settings.forbidden_flags else { return Ok(()) };
    let now = (settings.clock == Clock::Process).then(|| settings.time.now());
    session.plan_claim(Conditions { forbidden_flags, now, left_out: &[] }).await
}
