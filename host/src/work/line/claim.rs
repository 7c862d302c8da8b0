//! The claim: which tasks, how many, by which lane, and what it teaches.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tracing::Level;

use super::{Lane, Line, Place};
use crate::{
    config::{Claim, Clock},
    events::Event,
    queue::{Conditions, Job, QueueError, Session},
    work::{
        claims::Claiming,
        held::HeldJob,
        pool::{Mode, Pool},
        registered::Registered,
    },
};

/// One claim of so many is marked although the express lane suits: it sees the jobs in queues, too. Where a task could end
/// this process, all of that claim's jobs are marked, so that a job that kills the process uses up its attempts. (A process that
/// was started anew marks its first jobs in any case.)
const MARKED_TURN: usize = 16;

/// This soon a pool that ends when nothing is left looks again if the other line may have had something.
const OTHER_LINE: Duration = Duration::from_millis(5);

impl Pool {
    /// How the next jobs are claimed: by express, unless that is switched off, or most of the jobs that were claimed last
    /// could not have taken it.
    pub(super) fn lane(&self) -> Lane {
        let express = self.suits_express() && !self.marked_next.load(Ordering::Acquire);
        let in_turn = self.turns.load(Ordering::Relaxed) >= MARKED_TURN - 1;
        if express && !in_turn { Lane::Express } else { Lane::Marked }
    }

    pub(super) fn suits_express(&self) -> bool {
        self.settings.claim == Claim::Express
            && self.settings.local_queue.is_none()
            && self.prefers_express.load(Ordering::Relaxed)
    }
}

impl Line {
    /// Claims up to `wanted` jobs. By the express lane, this leaves a transaction open on the session.
    pub(super) async fn claim(&self, session: &Session, lane: Lane, wanted: usize) -> Result<Vec<HeldJob>, QueueError> {
        let pool = &self.pool;
        if wanted == 0 {
            return Ok(Vec::new());
        }
        // Whoever wants the pool to look again from here on is heard.
        pool.look.store(false, Ordering::Release);
        let forbidden = tokio::select! {
            flags = pool.settings.forbidden_flags.at_this_moment() => flags,
            () = pool.closing.cancelled() => return Ok(Vec::new()),
        };
        let registered = self.registered(session).await?;
        if registered.tasks.is_empty() {
            return Ok(Vec::new());
        }
        pool.events.emit_if_heard(Level::TRACE, || Event::ClaimStarted { worker: pool.id(), wanted });
        if lane == Lane::Marked {
            pool.marked_next.store(false, Ordering::Release);
            if pool.mode == Mode::Once && pool.unsettled.load(Ordering::Acquire) == 0 {
                // If this claim finds nothing, there is nothing, and the pool ends.
                pool.database.reset_cursors();
            }
        }
        let _unknown = match lane {
            Lane::Marked => Some(pool.known.claiming().await),
            Lane::Express => None,
        };
        pool.asked.fetch_add(wanted, Ordering::AcqRel);
        let now = (pool.settings.clock == Clock::Process).then(|| pool.settings.time.now());
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
        pool.asked.fetch_sub(wanted, Ordering::AcqRel);
        match &jobs {
            Ok(jobs) if lane == Lane::Marked => pool.known.add(jobs),
            Ok(_) => {}
            Err(error) => {
                pool.known.failed(error);
                // Where claims are cut off, it is the marked lane that goes on where they ended.
                pool.marked_next.store(true, Ordering::Release);
            }
        }
        let jobs = jobs?;
        pool.are_claimed(jobs.iter().map(|job| job.id));
        let again = (lane == Lane::Marked && jobs.len() < wanted)
            .then(|| pool.database.next_full_scan(&registered.tasks, conditions))
            .flatten();
        pool.look_again_at(again.map(|rest| Instant::now() + rest));
        if registered.tasks.are_outdated() {
            pool.forget_task_ids();
        }
        pool.speed.weigh(&jobs);
        self.learn_lane(&jobs, registered.map);
        Ok(jobs.into_iter().map(|job| registered.held(job)).collect())
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
        let session = pool.database.session().await?;
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
        // It looked at few.
        pool.look.store(true, Ordering::Release);
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
        let (map, registered) = (self.pool.tasks.load(), self.pool.registered());
        if registered.map == map.epoch() || self.place == Place::Second {
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
        let short = self.pool.speed.short_tasks(map);
        let fit = jobs.iter().filter(|job| fits_express(job, &short)).count();
        self.pool.prefers_express.store(2 * fit >= jobs.len(), Ordering::Relaxed);
    }

    /// Hands out what a claim brought.
    pub(super) fn accept(&mut self, mut jobs: Vec<HeldJob>, lane: Lane, wanted: usize, claiming: &Claiming<'_>) {
        if wanted == 0 {
            return;
        }
        self.claim_backoff.succeeded();
        self.last_claim = Instant::now();
        let pool = Arc::clone(&self.pool);
        let claimed = jobs.len();
        pool.without_open(&mut jobs);
        pool.idle.store(claimed == 0, Ordering::Relaxed);
        pool.unsettled.fetch_add(jobs.len(), Ordering::AcqRel);
        if claimed == 0 {
            pool.events.emit_if_heard(Level::TRACE, || Event::ClaimEmpty(pool.id()));
            if pool.mode == Mode::Once && lane == Lane::Marked {
                if claiming.saw_everything() && pool.knows_task_ids() {
                    pool.closing.cancel();
                } else {
                    // Where jobs are unsettled, it looks again when they are settled. Where not, the other line is claiming, or this
                    // claim went by ids that were wrong.
                    pool.look_again_at(Some(Instant::now() + OTHER_LINE));
                }
            }
        }
        if let Some(settings) = pool.settings.refetch() {
            pool.refetch.claimed(claimed, claimed == wanted, settings);
        }
        match lane {
            Lane::Marked => pool.turns.store(0, Ordering::Relaxed),
            Lane::Express if claimed == wanted => drop(pool.turns.fetch_add(1, Ordering::Relaxed)),
            Lane::Express => {}
        }
        // Where both would look for the last jobs again and again, neither could say that there are none.
        self.helps = claimed == wanted;
        if claimed == wanted {
            // There are more.
            pool.look.store(true, Ordering::Release);
            pool.help.notify_one();
        } else if lane == Lane::Express {
            // There may be some in queues.
            pool.marked_next.store(true, Ordering::Release);
            pool.look.store(true, Ordering::Release);
        }
        if self.place == Place::Second && !self.helps {
            // From here on the front line looks alone, perhaps sooner than it meant to when it began to wait.
            pool.work.notify_one();
        }
        match lane {
            Lane::Marked => {
                pool.held.add(jobs, None);
                if !pool.alive.load(Ordering::Acquire) {
                    pool.give_back_what_waits();
                }
            }
            Lane::Express => self.begun(jobs),
        }
        pool.open_slots();
    }

    pub(super) async fn claim_failed(&mut self, error: &QueueError) {
        let pool = Arc::clone(&self.pool);
        pool.look.store(true, Ordering::Release);
        pool.events.emit_if_heard(Level::TRACE, || Event::ClaimFailed { worker: pool.id(), error: error.reason() });
        tokio::select! {
            () = pool.closing.cancelled() => {}
            () = self.claim_backoff.wait(error) => {}
        }
    }
}

/// Whether a job may be worked without being marked.
pub(super) fn fits_express(job: &Job, short_tasks: &[i32]) -> bool {
    job.key.is_none() && job.job_queue_id.is_none() && short_tasks.contains(&job.task_id)
}
