//! What can happen, and when.

use stateright::{Model, Property};

use crate::{
    Setup, World, checks,
    host::{End, Stage, Stop},
    server::{Late, Transaction},
};

/// One step. The first field is the host, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `get_jobs` by the claimer that has no transaction, and `Claimer::end_claim`.
    Claim(u8, u8),
    /// The same, and the connection is lost before the answer: nobody hears of what it brings, if it brings anything.
    LoseClaim(u8, u8),
    /// `lock_jobs` of the jobs of this mask, and `Claimer::begun`.
    Lock(u8, u8),
    /// The connection of the claimer with the transaction is lost while its transaction is open; only the server knows.
    Cut(u8),
    /// A slot takes a job: `HeldJobs::take`. The place is among marked jobs, or in the batch.
    Begin(u8, Place),
    /// A job ends, and so.
    Finish(u8, Place, End),
    /// `Batch::store` and `Claimer::settled`.
    Store(u8, u8),
    /// The same, and the connection is lost before the answer: `Claimer::recover_marked`.
    LoseStore(u8, u8),
    /// `Pool::release_waiting`, of what has waited too long.
    GiveBack(u8, u8),
    /// `Claimer::settle_express`. If the connection was lost before, `Claimer::recover_express` begins.
    Settle(u8),
    /// The same, and the connection is lost between the commit and its answer.
    LoseSettle(u8),
    /// `Claimer::end_once_more`.
    Recover(u8),
    /// The same, and the connection is lost between the commit and its answer.
    LoseRecover(u8),
    /// The server ends a transaction whose connection is gone.
    RollBack(u8),
    /// It carries out the commit that had reached it.
    Commit(u8),
    /// A late statement is carried out.
    Deliver(u8),
    /// A late statement never arrived.
    Drop(u8),
    /// The connection is lost that holds the lock of the host.
    LoseLife(u8),
    /// `Watch::watch` finds that the lock is gone.
    Notice(u8),
    /// `show_life`, if nobody has the lock who takes over.
    ShowLife(u8),
    /// `release_dead` sees who is dead, and takes their locks.
    TakeOver(u8),
    /// It releases their jobs.
    Release,
    /// `LifeSign::look` and `Missing::look`.
    Watch(u8),
    /// So long after an outage, or after its own connection was lost, this host judges others again.
    Calm(u8),
    /// The server ends all connections that hold locks of hosts.
    Outage,
    /// The standby hears of nothing more.
    HoldBack,
    /// It takes over, and nobody hears of the server before again.
    FailOver,
    /// `release_orphans_once`.
    Look(u8),
    /// `refresh_locked` renews the lock of this job.
    Renew(u8),
    /// The host is told to stop: it claims no more, and gives back what waits.
    Stop(u8),
    /// The end of `PreparedPool::run`, with `release_last_orphans`, while the database answers: in an outage, what is locked is
    /// left to those who take over.
    End(u8),
    /// The process ends at once.
    Kill(u8),
    /// The same while a claim is under way.
    KillClaiming(u8, u8),
    /// The host is started again.
    Start(u8),
}

/// Where a host has a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Marked(u8),
    Batch(u8),
}

impl Step {
    /// Whether it is one of the bad things that happen so often and no more.
    pub fn is_fault(self) -> bool {
        matches!(
            self,
            Self::LoseClaim(..)
                | Self::Cut(_)
                | Self::LoseStore(..)
                | Self::LoseSettle(_)
                | Self::LoseRecover(_)
                | Self::LoseLife(_)
                | Self::Outage
                | Self::FailOver
                | Self::Renew(_)
                | Self::Stop(_)
                | Self::Kill(_)
                | Self::KillClaiming(..)
        )
    }
}

impl World {
    /// All steps that can be taken.
    pub(crate) fn steps(&self, setup: &Setup) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.server.wrong.is_some() {
            return steps;
        }
        for host in 0..setup.hosts {
            if self.hosts[usize::from(host)].is_up {
                self.steps_of(host, setup, &mut steps);
            } else {
                steps.push(Step::Start(host));
            }
        }
        for (index, transaction) in (0..).zip(&self.server.transactions) {
            match transaction {
                Transaction::Open { .. } => {}
                Transaction::Cut { .. } => steps.push(Step::RollBack(index)),
                Transaction::Ending { .. } => steps.extend([Step::Commit(index), Step::RollBack(index)]),
            }
        }
        for (index, late) in (0..).zip(&self.server.late) {
            let arrives = match late {
                Late::Claim { job, .. } => self.server.can_be_claimed(*job, setup),
                Late::Result { claim, .. } => !self.server.is_held(claim.job),
            };
            steps.extend(arrives.then_some(Step::Deliver(index)));
            steps.push(Step::Drop(index));
        }
        if self.server.takeover.is_some() && !(0..setup.jobs).any(|job| self.server.is_held(job)) {
            steps.push(Step::Release);
        }
        if setup.watches && self.server.shows_life.contains(&true) {
            steps.push(Step::Outage);
        }
        if setup.failovers {
            let holds_back = self.server.standby.is_some();
            steps.extend((!holds_back && self.faults > 0).then_some(Step::HoldBack));
            steps.extend(holds_back.then_some(Step::FailOver));
        }
        if self.faults == 0 {
            steps.retain(|step| !step.is_fault());
        }
        steps
    }

    fn steps_of(&self, host: u8, setup: &Setup, steps: &mut Vec<Step>) {
        let state = &self.hosts[usize::from(host)];
        let owner = self.owner(host);
        let free: Vec<u8> = (0..setup.jobs).filter(|job| self.server.can_be_claimed(*job, setup)).collect();
        let stops = state.stop != Stop::No;
        if state.believes && !stops {
            for job in &free {
                steps.push(Step::Claim(host, *job));
                steps.push(Step::KillClaiming(host, *job));
                steps.extend(setup.claims_get_lost.then_some(Step::LoseClaim(host, *job)));
            }
            let all = free.iter().fold(0, |mask, job| mask | 1 << job);
            if setup.express && state.batch.is_none() {
                steps.extend((1..=all).filter(|mask| mask & !all == 0).map(|mask| Step::Lock(host, mask)));
            }
        }
        for (index, claim) in (0..).zip(&state.claims) {
            let place = Place::Marked(index);
            match claim.stage {
                Stage::Waits => steps.extend([Step::Begin(host, place), Step::GiveBack(host, index)]),
                Stage::Runs => steps.extend(ends(stops).iter().map(|end| Step::Finish(host, place, *end))),
                Stage::Ended(end) => {
                    let waits = self.server.is_held(claim.job);
                    steps.extend((!waits).then_some(Step::Store(host, index)));
                    let lost = end != End::Returned || setup.returns_get_lost;
                    steps.extend(lost.then_some(Step::LoseStore(host, index)));
                }
            }
        }
        if let Some(batch) = &state.batch {
            for (index, claim) in (0..).zip(&batch.claims) {
                let place = Place::Batch(index);
                match claim.stage {
                    Stage::Waits => steps.extend((!stops).then_some(Step::Begin(host, place))),
                    Stage::Runs => steps.extend(ends(stops).iter().map(|end| Step::Finish(host, place, *end))),
                    Stage::Ended(_) => {}
                }
            }
            if !batch.recovers {
                steps.push(Step::Settle(host));
                steps.extend(self.open(host).map(|_| Step::LoseSettle(host)));
                steps.extend(self.open(host).map(|_| Step::Cut(host)));
            } else if !batch.claims.iter().any(|claim| self.server.is_held(claim.job)) {
                // Its `for update` waits for whoever holds one of the rows.
                steps.extend([Step::Recover(host), Step::LoseRecover(host)]);
            }
        }
        let finds = || !self.unheard(host).is_empty() || self.may_be_last_look(host);
        if setup.looks_for_unheard && state.suspects && finds() {
            steps.push(Step::Look(host));
        }
        if setup.renewals {
            let renewable = |job: &u8| {
                let row = self.server.row(*job);
                row.is_some_and(|row| row.locked_by == Some(owner) && !row.renewed) && !self.server.is_held(*job)
            };
            steps.extend((0..setup.jobs).filter(renewable).map(Step::Renew));
        }
        if stops && state.claims.is_empty() && state.batch.is_none() {
            steps.push(Step::End(host));
        } else if !stops && setup.stops {
            steps.push(Step::Stop(host));
        }
        let shows = self.shows_life(owner);
        match (shows, state.believes) {
            (true, true) => {
                steps.push(Step::LoseLife(host));
                if self.server.takeover.is_none() && !self.taken_for_dead(host, setup).is_empty() {
                    steps.push(Step::TakeOver(host));
                }
                if setup.watches && host == 0 {
                    steps.extend((self.look_at_others(host) != state.missing).then_some(Step::Watch(host)));
                    let calm = state.waits && self.server.returning.is_empty();
                    steps.extend(calm.then_some(Step::Calm(host)));
                }
            }
            (true, false) => {}
            (false, true) => steps.push(Step::Notice(host)),
            (false, false) if self.server.is_being_released(owner, setup) => {}
            (false, false) => steps.push(Step::ShowLife(host)),
        }
        steps.push(Step::Kill(host));
    }
}

/// How a running job can end. One that is asked to end may be given back.
fn ends(stops: bool) -> &'static [End] {
    if stops { &[End::Done, End::Failed, End::Returned] } else { &[End::Done, End::Failed] }
}

impl Model for Setup {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::first(self)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps.extend(world.steps(self));
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        Some(world.after(step, self))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        checks::properties()
    }
}
