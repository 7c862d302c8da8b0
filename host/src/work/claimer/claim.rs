//! The claim: which tasks, how many, by which lane, and what it teaches.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::Level;

use super::{Claimer, express, marked};
use crate::{
    config::Clock,
    events::Event,
    queue::{Conditions, Job, QueueError, Session},
    work::{
        demand::{Claim, ClaimEnd, Claiming, Lane, Role},
        held_job::HeldJob,
        registered::Registered,
    },
};

/// What a claim has brought.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    jobs: Vec<HeldJob>,
    /// In how long a further claim could bring more.
    again: Option<Duration>,
}

impl Claimer {
    /// Claims up to `wanted` jobs. By the express lane, this leaves a transaction open on the session.
    pub(super) async fn claim(
        &self,
        session: &Session,
        claiming: Option<&Claiming<'_>>,
    ) -> Result<Claimed, QueueError> {
        let pool = &self.pool;
        let Some(Claim { lane, limit: wanted }) = claiming.map(Claiming::claim) else { return Ok(Claimed::default()) };
        let forbidden = tokio::select! {
            flags = pool.settings().forbidden_flags.at_this_moment() => flags,
            () = pool.identity().closing().cancelled() => return Ok(Claimed::default()),
        };
        let registered = self.registered(session).await?;
        if registered.tasks.is_empty() {
            return Ok(Claimed::default());
        }
        pool.events().emit_if_heard(Level::TRACE, || Event::ClaimStarted { worker: pool.id(), wanted });
        let now = (pool.settings().clock == Clock::Process).then(|| pool.settings().time.now());
        let left_out = pool.left_out(lane);
        let conditions = Conditions { forbidden_flags: &forbidden, now, left_out: &left_out };
        let (jobs, again) = match lane {
            Lane::Marked => marked::claim(pool, session, &registered, wanted, conditions).await?,
            Lane::Express => (express::claim(pool, session, &registered, wanted, conditions).await?, None),
        };
        pool.are_claimed(jobs.iter().map(|job| job.id));
        if registered.tasks.are_outdated() {
            pool.forget_task_ids();
        }
        pool.speed().weigh(&jobs);
        self.learn_lane(&jobs, registered.map);
        Ok(Claimed { jobs: jobs.into_iter().map(|job| registered.held(job)).collect(), again })
    }

    /// The ids of the tasks of the current map; the primary claimer asks for them when it has changed, and when they have.
    async fn registered(&self, session: &Session) -> Result<Arc<Registered>, QueueError> {
        let (map, registered) = (self.pool.tasks().load(), self.pool.registered());
        if registered.map == map.epoch() || self.role == Role::Overflow {
            return Ok(registered);
        }
        let registered = if map.identifiers().len() == 0 {
            Registered::nothing(map.epoch())
        } else {
            Registered::register(session, &map).await?
        };
        Ok(self.pool.register(registered))
    }

    fn learn_lane(&self, jobs: &[Job], map: u64) {
        if jobs.is_empty() {
            return;
        }
        let short = self.pool.speed().short_tasks(map);
        let fit = jobs.iter().filter(|job| express::fits_express(job, &short)).count();
        self.pool.demand().jobs_claimed(jobs.len(), fit);
    }

    /// Hands out what a claim brought. Gives the error of one that failed, which stays under way until `claiming` is dropped.
    pub(super) fn end_claim(
        &mut self,
        claimed: Result<Claimed, QueueError>,
        claiming: &mut Option<Claiming<'_>>,
    ) -> Option<QueueError> {
        // By the express lane, what it has locked is free again with the connection.
        let is_void = |claiming: &Claiming<'_>| claiming.claim().lane == Lane::Express && self.session.is_none();
        match (claimed, claiming) {
            (Ok(claimed), place) if !place.as_ref().is_some_and(is_void) => {
                if let Some(claiming) = place.take() {
                    self.accept(claimed, claiming);
                }
                None
            }
            (claimed, place) => {
                place.iter_mut().for_each(Claiming::failed);
                claimed.err()
            }
        }
    }

    fn accept(&mut self, claimed: Claimed, claiming: Claiming<'_>) {
        let Claim { lane, limit } = claiming.claim();
        self.claim_backoff.succeeded();
        let pool = Arc::clone(&self.pool);
        let Claimed { mut jobs, again } = claimed;
        let found = jobs.len();
        pool.running().without_those_in_transactions(&mut jobs);
        pool.running().claimed(jobs.len());
        if found == 0 {
            pool.events().emit_if_heard(Level::TRACE, || Event::ClaimEmpty(pool.id()));
        }
        let end = ClaimEnd { jobs: found, again, knows_task_ids: pool.registered().are_known() };
        if claiming.ended(self.role, end, Instant::now()) {
            pool.identity().close();
        }
        if found == limit {
            pool.wakes().call_overflow();
        } else if self.role == Role::Overflow {
            // From here on the primary claimer polls alone, perhaps sooner than it meant to when it began to wait.
            pool.wakes().wake_primary();
        }
        match lane {
            Lane::Marked => marked::hold(&pool, jobs),
            Lane::Express => self.begun(jobs),
        }
        pool.open_slots();
    }

    pub(super) async fn claim_failed(&mut self, error: &QueueError) {
        let pool = Arc::clone(&self.pool);
        pool.events().emit_if_heard(Level::TRACE, || Event::ClaimFailed { worker: pool.id(), error: error.reason() });
        tokio::select! {
            () = pool.identity().closing().cancelled() => {}
            () = self.claim_backoff.wait(error) => {}
        }
    }
}
