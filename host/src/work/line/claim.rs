//! The claim: which tasks, how many, by which lane, and what it teaches.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::Level;

use super::Line;
use crate::{
    config::Clock,
    events::Event,
    queue::{Conditions, Job, QueueError, Session},
    work::{
        demand::{Claim, ClaimEnd, Claiming, Lane, Role},
        held::HeldJob,
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

impl Line {
    /// Claims up to `wanted` jobs. By the express lane, this leaves a transaction open on the session.
    pub(super) async fn claim(&self, session: &Session, claim: Option<Claim>) -> Result<Claimed, QueueError> {
        let pool = &self.pool;
        let Some(Claim { lane, limit: wanted }) = claim else { return Ok(Claimed::default()) };
        let forbidden = tokio::select! {
            flags = pool.settings().forbidden_flags.at_this_moment() => flags,
            () = pool.identity().closing().cancelled() => return Ok(Claimed::default()),
        };
        let registered = self.registered(session).await?;
        if registered.tasks.is_empty() {
            return Ok(Claimed::default());
        }
        pool.events().emit_if_heard(Level::TRACE, || Event::ClaimStarted { worker: pool.id(), wanted });
        if lane == Lane::Marked && pool.identity().works_once() && pool.running().unsettled() == 0 {
            // If this claim finds nothing, there is nothing, and the pool ends.
            pool.database().look_everywhere();
        }
        let _unknown = match lane {
            Lane::Marked => Some(pool.known().claiming().await),
            Lane::Express => None,
        };
        let now = (pool.settings().clock == Clock::Process).then(|| pool.settings().time.now());
        let left_out = pool.left_out(lane);
        let conditions = Conditions { forbidden_flags: &forbidden, now, left_out: &left_out };
        let jobs = async {
            match lane {
                Lane::Marked => session.get_jobs(pool.owner(), &registered.tasks, wanted, conditions).await,
                Lane::Express => session.lock_jobs(&registered.tasks, wanted, conditions).await,
            }
        };
        let mut jobs = jobs.await;
        if let Err(error) = &jobs
            && error.is_refusal()
            && lane == Lane::Marked
        {
            jobs = self.claim_apart(&registered, wanted, conditions).await;
        }
        match &jobs {
            Ok(jobs) if lane == Lane::Marked => pool.known().add(jobs),
            Ok(_) => {}
            Err(error) => pool.known().failed(error),
        }
        let jobs = jobs?;
        pool.are_claimed(jobs.iter().map(|job| job.id));
        let again = (lane == Lane::Marked && jobs.len() < wanted)
            .then(|| pool.database().look_again(&registered.tasks, conditions))
            .flatten();
        if registered.tasks.are_outdated() {
            pool.forget_task_ids();
        }
        pool.speed().weigh(&jobs);
        self.learn_lane(&jobs, registered.map);
        Ok(Claimed { jobs: jobs.into_iter().map(|job| registered.held(job)).collect(), again })
    }

    /// The database refuses to let some of the jobs be claimed: finds out which, leaves them out from now on, and claims others. On a
    /// session of its own, because results may be being stored on the line's.
    async fn claim_apart(
        &self,
        registered: &Registered,
        wanted: usize,
        conditions: Conditions<'_>,
    ) -> Result<Vec<Job>, QueueError> {
        let pool = &self.pool;
        let session = pool.database().session().await?;
        let claimed = session.get_jobs_apart(pool.owner(), &registered.tasks, wanted, conditions).await;
        let claim = match claimed {
            Ok(claim) => claim,
            Err(error) => {
                session.discard();
                return Err(error);
            }
        };
        for (job, error) in &claim.refused {
            pool.hold_claim(job.id, registered.name(job.task_id), error);
        }
        pool.demand().claim_was_partial();
        if !claim.jobs.is_empty() {
            return Ok(claim.jobs);
        }
        // Where as many are refused as it looks at, this fails again, and the line waits before it tries the next ones.
        let left_out = pool.left_out(Lane::Marked);
        let conditions = Conditions { left_out: &left_out, ..conditions };
        session.get_jobs(pool.owner(), &registered.tasks, wanted, conditions).await
    }

    /// The ids of the tasks of the current map; the front line asks for them when it has changed, and when they have.
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
        let fit = jobs.iter().filter(|job| fits_express(job, &short)).count();
        self.pool.demand().jobs_claimed(jobs.len(), fit);
    }

    /// Hands out what a claim brought.
    pub(super) fn accept(&mut self, claimed: Claimed, claim: Option<(Claim, Claiming<'_>)>) {
        let Some((Claim { lane, limit }, claiming)) = claim else { return };
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
            // From here on the front line looks alone, perhaps sooner than it meant to when it began to wait.
            pool.wakes().wake_primary();
        }
        match lane {
            Lane::Marked => {
                pool.running().held().add(jobs, None);
                if !pool.identity().is_alive() {
                    pool.give_back_what_waits();
                }
            }
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

/// Whether a job may be worked without being marked.
pub(super) fn fits_express(job: &Job, short_tasks: &[i32]) -> bool {
    job.key.is_none() && job.job_queue_id.is_none() && short_tasks.contains(&job.task_id)
}
