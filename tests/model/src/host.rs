//! A host: what it believes, and the jobs that it has in hand.

use crate::{Setup, server::Owner};

/// How a job ended, for the database: `End`. Whether a failure is for good makes no difference here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    Done,
    Failed,
    /// It never began.
    Returned,
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// For a slot: `HeldJobs`.
    Waits,
    Runs,
    /// Its completion is to be stored.
    Ended(End),
}

/// A claim of a job, as its host knows it: `ClaimedJob`, and the number of which only the checker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    pub job: u8,
    pub attempt: u8,
    pub number: u8,
    /// The host knows the time of the lock. It does not of a job of a batch that has not been committed.
    pub timed: bool,
    pub stage: Stage,
}

/// An attempt that no row has: `ClaimedJob::of_nobody`.
pub(crate) const NOBODYS: u8 = u8::MAX;

impl Claim {
    pub(crate) fn is(&self, job: u8, number: u8) -> bool {
        (self.job, self.number) == (job, number)
    }
}

/// `Transaction`, and `Open` with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Those that have not been withdrawn.
    pub claims: Vec<Claim>,
    /// Numbers of claims that the other claimer has marked and that were refused to it: `Transaction::refuses`.
    pub refused: Vec<(u8, u8)>,
    /// The connection was lost, and `Claimer::recover_express` is at work.
    pub recovers: bool,
}

/// How far an orderly stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    No,
    Told,
    /// The host has ended, and nothing was under way any more that locks jobs in its name.
    Ended,
}

/// One host. It has two lines to the database; one at a time works by the express lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// Each start makes a new owner.
    pub start: u8,
    pub is_up: bool,
    /// `Pool::alive`.
    pub believes: bool,
    /// Marked jobs.
    pub claims: Vec<Claim>,
    pub batch: Option<Batch>,
    /// There may be something to look for: `ClaimedSet::losses` and `ClaimedSet::searched` differ.
    pub suspects: bool,
    pub stop: Stop,
    /// `Missing`: owners without a lock, and in how many looks in a row.
    pub missing: Vec<(Owner, u8)>,
    /// `Watch::was_alive`.
    pub has_lived: bool,
    /// `Watch::not_before` is not over.
    pub waits: bool,
}

/// Who was missing in so many looks in a row is dead.
pub(crate) const DEAD: u8 = 2;

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            start: 0,
            is_up: true,
            believes: true,
            claims: Vec::new(),
            batch: None,
            suspects: false,
            stop: Stop::No,
            missing: Vec::new(),
            has_lived: true,
            waits: false,
        }
    }

    pub(crate) fn names(&self, job: u8, number: u8) -> bool {
        let in_batch = |batch: &Batch| {
            batch.claims.iter().any(|claim| claim.is(job, number)) || batch.refused.contains(&(job, number))
        };
        self.claims.iter().any(|claim| claim.is(job, number)) || self.batch.as_ref().is_some_and(in_batch)
    }

    /// `Running::without_those_in_transactions` of a job that the other claimer has marked: whether an open batch has it, which then keeps it.
    pub(crate) fn refuses(&mut self, marked: &Claim, setup: &Setup) -> bool {
        let same =
            |claim: &Claim| claim.job == marked.job && (claim.attempt == marked.attempt || !setup.refuses_by_attempt);
        let Some(batch) = self.batch.as_mut().filter(|batch| batch.claims.iter().any(same)) else { return false };
        batch.refused.push((marked.job, marked.number));
        true
    }

    /// `Claimer::bring_up_to_date`: takes those away that no slot has taken. A claim of them that was refused has marked them for
    /// nobody, so that they are returned.
    pub(crate) fn withdraw(&mut self) {
        let Some(batch) = self.batch.as_mut() else { return };
        let (waiting, kept): (Vec<Claim>, _) = batch.claims.iter().partition(|claim| claim.stage == Stage::Waits);
        batch.claims = kept;
        for claim in waiting {
            if let Some((_, number)) = batch.refused.iter().find(|(job, _)| *job == claim.job) {
                self.claims.push(Claim { number: *number, timed: true, stage: Stage::Ended(End::Returned), ..claim });
            }
        }
    }

    /// `Pool::lose_life`.
    pub(crate) fn lose_life(&mut self) {
        self.believes = false;
        self.missing.clear();
        self.give_back_what_waits();
    }

    /// `HeldJobs::close`: no slot takes a job any more.
    pub(crate) fn stop(&mut self) {
        self.stop = Stop::Told;
        self.give_back_what_waits();
    }

    fn give_back_what_waits(&mut self) {
        for claim in self.claims.iter_mut().filter(|claim| claim.stage == Stage::Waits) {
            claim.stage = Stage::Ended(End::Returned);
        }
    }
}
