//! Postgres: the rows, the locks, and what is on its way to it. Each statement is atomic, as it is there.

use crate::{
    Setup,
    host::{Claim, End, NOBODYS},
};

/// What `locked_by` says: a host has another name with each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    pub host: u8,
    pub start: u8,
}

/// A job, as far as the database knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Job {
    Row(Row),
    /// It was done.
    Gone,
}

impl Job {
    pub(crate) fn is_locked_by(&self, owner: Owner) -> bool {
        matches!(self, Self::Row(row) if row.locked_by == Some(owner))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Row {
    pub attempts: u8,
    pub locked_by: Option<Owner>,
    /// Which claim locked it; nobody but the checker knows.
    pub number: u8,
    /// `locked_at` was moved since. How often makes no difference.
    pub renewed: bool,
}

impl Row {
    /// The generated column of that name.
    pub fn is_available(&self, setup: &Setup) -> bool {
        self.locked_by.is_none() && self.attempts < setup.attempts
    }

    fn unlocked(self) -> Self {
        Self { locked_by: None, number: 0, renewed: false, ..self }
    }
}

/// A transaction that holds rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transaction {
    /// Of an express batch that is open.
    Open { host: u8, jobs: Vec<u8> },
    /// The connection is gone, which the server is about to notice.
    Cut { jobs: Vec<u8> },
    /// The commit was sent on a connection that is gone. It may have come through.
    Ending { jobs: Vec<u8>, settlement: Settlement },
}

impl Transaction {
    fn jobs(&self) -> &[u8] {
        let (Self::Open { jobs, .. } | Self::Cut { jobs } | Self::Ending { jobs, .. }) = self;
        jobs
    }
}

/// `queue::Settlement`: what a transaction of the express lane stores.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Settlement {
    pub owner: Owner,
    pub done: Vec<u8>,
    pub failed: Vec<u8>,
    /// With the numbers of the claims.
    pub marked: Vec<(u8, u8)>,
}

/// A statement of which its sender will never hear: it arrives later, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Late {
    Claim { owner: Owner, job: u8 },
    Result { owner: Owner, claim: Claim, end: End },
}

/// `release_dead` between the look at the locks and the release of the jobs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Takeover {
    pub dead: Vec<Owner>,
}

/// What must never happen, as soon as it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// A result, of which this is the kind, changed a row that another claim had locked.
    Foreign(End),
    /// The jobs of an owner were released that held its lock.
    ReleasedTheLiving,
    /// A transaction of the express lane changed a row that somebody else had claimed.
    ForeignExpress,
    /// A result was refused though its claim still held.
    Refused,
    /// An owner was released that was not missing for long enough, or had not had the time to come back after an outage.
    Hasty,
}

/// The database server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    pub jobs: Vec<Job>,
    pub transactions: Vec<Transaction>,
    /// Of each host: whether the process that lives now has its advisory lock.
    pub shows_life: Vec<bool>,
    pub takeover: Option<Takeover>,
    pub late: Vec<Late>,
    /// The rows as far as the standby has heard of them, once it hears of nothing more.
    pub standby: Option<Vec<Job>>,
    /// Owners that live and have not come back since an outage.
    pub returning: Vec<Owner>,
    pub wrong: Option<Wrong>,
}

impl Server {
    pub(crate) fn new(jobs: usize, hosts: usize) -> Self {
        Self {
            jobs: vec![Job::Row(Row::default()); jobs],
            transactions: Vec::new(),
            shows_life: vec![true; hosts],
            takeover: None,
            late: Vec::new(),
            standby: None,
            returning: Vec::new(),
            wrong: None,
        }
    }

    pub fn row(&self, job: u8) -> Option<&Row> {
        match &self.jobs[usize::from(job)] {
            Job::Row(row) => Some(row),
            Job::Gone => None,
        }
    }

    fn set(&mut self, job: u8, row: Row) {
        self.jobs[usize::from(job)] = Job::Row(row);
    }

    /// Whether statements wait for this row, or pass it over.
    pub fn is_held(&self, job: u8) -> bool {
        self.transactions.iter().any(|transaction| transaction.jobs().contains(&job))
    }

    /// Whether a claim can bring this job.
    pub fn can_be_claimed(&self, job: u8, setup: &Setup) -> bool {
        self.row(job).is_some_and(|row| row.is_available(setup)) && !self.is_held(job)
    }

    pub(crate) fn names(&self, job: u8, number: u8) -> bool {
        let late = |late: &Late| matches!(late, Late::Result { claim, .. } if claim.is(job, number));
        let ending = |transaction: &Transaction| matches!(transaction, Transaction::Ending { settlement, .. } if settlement.marked.contains(&(job, number)));
        let in_row = |row: &Job| matches!(row, Job::Row(row) if row.locked_by.is_some() && row.number == number);
        in_row(&self.jobs[usize::from(job)])
            || self.standby.iter().any(|rows| in_row(&rows[usize::from(job)]))
            || self.late.iter().any(late)
            || self.transactions.iter().any(ending)
    }

    /// `get_jobs`.
    pub(crate) fn mark(&mut self, job: u8, owner: Owner, number: u8) {
        if let Some(row) = self.row(job).copied() {
            self.set(job, Row { attempts: row.attempts + 1, locked_by: Some(owner), number, renewed: false });
        }
    }

    /// `refresh_locked`, of one job.
    pub(crate) fn renew(&mut self, job: u8) {
        if let Some(row) = self.row(job).copied() {
            self.set(job, Row { renewed: true, ..row });
        }
    }

    /// Whether a claim of this owner is under way that may still come through.
    pub(crate) fn may_mark(&self, owner: Owner) -> bool {
        self.late.iter().any(|late| matches!(late, Late::Claim { owner: of, .. } if *of == owner))
    }

    /// `STILL_CLAIMED`.
    pub fn still_claimed(&self, owner: Owner, claim: &Claim, setup: &Setup) -> bool {
        self.row(claim.job).is_some_and(|row| {
            // No two claims of a job lock it at the same time.
            let same_time = row.number == claim.number && (setup.renewals_name_claims || !row.renewed);
            row.locked_by == Some(owner)
                && (row.attempts == claim.attempt || !setup.fenced_by_attempt)
                && (same_time || !claim.timed || !setup.fenced_by_time)
        })
    }

    /// `complete_jobs`, `fail_jobs`, `return_jobs`. Says whether there was a row for it.
    pub(crate) fn store(&mut self, owner: Owner, claim: &Claim, end: End, setup: &Setup) -> bool {
        if !self.still_claimed(owner, claim, setup) {
            let holds = |row: &Row| (row.locked_by, row.number) == (Some(owner), claim.number);
            if claim.attempt != NOBODYS && self.row(claim.job).is_some_and(holds) {
                self.wrong = Some(Wrong::Refused);
            }
            return false;
        }
        let row = self.row(claim.job).copied().expect("it is still claimed");
        if row.number != claim.number {
            self.wrong = Some(Wrong::Foreign(end));
        }
        match end {
            End::Done => self.jobs[usize::from(claim.job)] = Job::Gone,
            End::Failed => self.set(claim.job, row.unlocked()),
            End::Returned => {
                self.set(claim.job, Row { attempts: row.attempts.saturating_sub(1), ..row.unlocked() });
            }
        }
        true
    }

    /// `settle`, as far as its commit: `DELETE`, `FAIL`, `MARK`.
    pub(crate) fn settle(&mut self, settlement: &Settlement) {
        let Settlement { owner, done, failed, marked } = settlement;
        let is_locked = |job: &u8| self.row(*job).is_some_and(|row| row.locked_by.is_some());
        if done.iter().chain(failed).chain(marked.iter().map(|(job, _)| job)).any(is_locked) {
            self.wrong = Some(Wrong::ForeignExpress);
        }
        for job in done {
            self.jobs[usize::from(*job)] = Job::Gone;
        }
        for job in failed {
            if let Some(row) = self.row(*job).copied() {
                self.set(*job, Row { attempts: row.attempts + 1, ..row });
            }
        }
        for (job, number) in marked {
            self.mark(*job, *owner, *number);
        }
    }

    /// The owners of `RELEASE` whose lock nobody holds. A process that has ended holds none.
    pub(crate) fn silent(&self, lives: impl Fn(Owner) -> bool) -> Vec<Owner> {
        let rows = self.jobs.iter().filter_map(|job| if let Job::Row(row) = job { row.locked_by } else { None });
        let mut silent: Vec<Owner> = rows.filter(|owner| !lives(*owner)).collect();
        silent.sort_unstable();
        silent.dedup();
        silent
    }

    /// Whether somebody who takes over has this owner's lock.
    pub(crate) fn is_being_released(&self, owner: Owner, setup: &Setup) -> bool {
        setup.takeover_holds_lock && self.takeover.as_ref().is_some_and(|takeover| takeover.dead.contains(&owner))
    }

    /// The rest of `RELEASE`.
    pub(crate) fn release(&mut self, takeover: &Takeover, lives: impl Fn(Owner) -> bool) {
        for job in 0..self.jobs.len() as u8 {
            let Some(row) = self.row(job).copied() else { continue };
            let Some(owner) = row.locked_by.filter(|owner| takeover.dead.contains(owner)) else { continue };
            if lives(owner) {
                self.wrong = Some(Wrong::ReleasedTheLiving);
            }
            self.set(job, row.unlocked());
        }
    }
}
