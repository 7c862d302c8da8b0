//! Jobs that the database does not let be claimed: claims leave them out.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    set_aside::{RefusedClaim, Wait},
    unless_refused,
};
use crate::{
    events::{Event, Refusal},
    queue::{QueueError, Session},
    work::{demand::Lane, pool::Pool},
};

/// So many jobs are left out at most: each claim names them all.
const MOST: usize = 1_000;

/// A job that may be claimed again is forgotten if nothing was heard of it for so long.
const FORGOTTEN: Duration = Duration::from_secs(10 * 60);

impl Pool {
    /// The jobs that no claim is to bring now. Those whose wait is over are only for claims that mark them, which are refused before
    /// the job runs.
    pub(in crate::work) fn left_out(&self, lane: Lane) -> Vec<i64> {
        let claims = &self.refused().claims;
        if !claims.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let now = Instant::now();
        let stays = |refused: &RefusedClaim| lane == Lane::Express || refused.wait.until > now;
        claims.held().jobs.iter().filter(|(_, refused)| stays(refused)).map(|(id, _)| *id).collect()
    }

    /// These could be claimed.
    pub(in crate::work) fn are_claimed(&self, ids: impl Iterator<Item = i64>) {
        let claims = &self.refused().claims;
        if claims.any.load(Ordering::Acquire) {
            let mut held = claims.held();
            for id in ids {
                held.jobs.remove(&id);
            }
            claims.any.store(!held.jobs.is_empty(), Ordering::Release);
        }
    }

    /// A job cannot be claimed. The task is not known of one that runs already.
    pub(in crate::work) fn hold_claim(&self, id: i64, task: Option<Arc<str>>, error: &QueueError) {
        let claims = &self.refused().claims;
        let mut held = claims.held();
        held.jobs.retain(|_, refused| !refused.let_in || refused.wait.until.elapsed() < FORGOTTEN);
        let known = held.jobs.get(&id).map(|refused| refused.wait);
        if known.is_none() && held.jobs.len() >= MOST {
            return;
        }
        let wait = known.map_or_else(Wait::first, Wait::again);
        held.jobs.insert(id, RefusedClaim { wait, let_in: false });
        if known.is_none() {
            held.to_note.push((id, format!("this job cannot be claimed: {}", error.reason())));
        }
        claims.any.store(true, Ordering::Release);
        drop(held);
        let (error, retry_in, repeated) = (error.reason(), wait.length, known.is_some());
        self.events().emit(Event::Refused(Refusal::Claim { id, task, error, retry_in, repeated }));
        self.refused().added.notify_one();
    }

    /// Lets claims bring those again whose wait is over.
    pub(super) fn let_claims_in(&self) {
        let now = Instant::now();
        let mut let_in = false;
        for refused in self.refused().claims.held().jobs.values_mut().filter(|refused| refused.wait.until <= now) {
            let_in |= !mem::replace(&mut refused.let_in, true);
        }
        if let_in {
            // They stand where they stood, which claims have passed.
            self.database().reset_cursors();
            self.nudge_for_marked();
        }
    }

    /// Writes the reasons to the jobs, as far as the database allows that.
    pub(super) async fn note_refused_claims(&self, session: &Session) -> Result<(), QueueError> {
        let notes = mem::take(&mut self.refused().claims.held().to_note);
        for (id, reason) in notes {
            unless_refused(session.note_refused_claim(id, &reason).await)?;
        }
        Ok(())
    }
}
