//! What each step changes.

use std::mem;

use crate::{
    Setup, World,
    host::{Batch, Claim, DEAD, End, NOBODYS, Stage, Stop},
    server::{Job, Late, Owner, Settlement, Takeover, Transaction, Wrong},
    steps::{Place, Step},
};

impl World {
    pub(crate) fn owner(&self, host: u8) -> Owner {
        Owner { host, start: self.hosts[usize::from(host)].start }
    }

    /// Whether this owner holds its lock.
    pub(crate) fn shows_life(&self, owner: Owner) -> bool {
        self.owner(owner.host) == owner && self.server.shows_life[usize::from(owner.host)]
    }

    pub(crate) fn open(&self, host: u8) -> Option<usize> {
        let of_host = |one: &Transaction| matches!(one, Transaction::Open { host: of, .. } if *of == host);
        self.server.transactions.iter().position(of_host)
    }

    fn claim(&mut self, host: u8, place: Place) -> &mut Claim {
        let host = &mut self.hosts[usize::from(host)];
        match place {
            Place::Marked(index) => &mut host.claims[usize::from(index)],
            Place::Batch(index) => &mut host.batch.as_mut().expect("it has one").claims[usize::from(index)],
        }
    }

    /// `Account::settlement`: those that have not ended are marked.
    fn settlement(&self, host: u8, claims: &[Claim]) -> Settlement {
        let of = |stage: Stage| claims.iter().filter(move |claim| claim.stage == stage);
        Settlement {
            owner: self.owner(host),
            done: of(Stage::Ended(End::Done)).map(|claim| claim.job).collect(),
            failed: of(Stage::Ended(End::Failed)).map(|claim| claim.job).collect(),
            marked: of(Stage::Runs).map(|claim| (claim.job, claim.number)).collect(),
        }
    }

    fn batch_claims(&self, host: u8) -> Vec<Claim> {
        self.hosts[usize::from(host)].batch.as_ref().map(|batch| batch.claims.clone()).unwrap_or_default()
    }

    /// `lock_again`, and what is to be stored after it: those that are as they were, of these the settlement, and those that
    /// are marked, with the numbers of the claims that did it.
    fn lock_again(&self, host: u8, setup: &Setup) -> (Settlement, Vec<(u8, u8)>) {
        let owner = self.owner(host);
        let (mut available, mut marked) = (Vec::new(), Vec::new());
        for claim in self.batch_claims(host) {
            let Some(row) = self.server.row(claim.job) else { continue };
            if !setup.locks_again || (row.is_available(setup) && row.attempts + 1 == claim.attempt) {
                available.push(claim);
            } else if row.locked_by == Some(owner) && row.attempts == claim.attempt {
                marked.push((claim.job, row.number));
            }
        }
        (self.settlement(host, &available), marked)
    }

    /// `Claimer::committed` after `Claimer::end_once_more`: completions of marked jobs go to those of the marked lane, and what still
    /// runs is marked, or somebody else's, which its completion will find out.
    fn recovered(&mut self, host: u8, settlement: &Settlement, marked: &[(u8, u8)], setup: &Setup) {
        let claims = self.batch_claims(host);
        self.suspects_what_was_hidden(host, setup);
        let host = &mut self.hosts[usize::from(host)];
        host.batch = None;
        for claim in claims {
            let before = marked.iter().find(|(job, _)| *job == claim.job);
            let number = before.map_or(claim.number, |(_, number)| *number);
            let is_marked = before.is_some() || settlement.marked.iter().any(|(job, _)| *job == claim.job);
            let attempt = if is_marked || !setup.disowns { claim.attempt } else { NOBODYS };
            if claim.stage == Stage::Runs || before.is_some() {
                host.claims.push(Claim { number, attempt, timed: is_marked, ..claim });
            }
        }
    }

    pub(crate) fn kill(&mut self, host: u8) {
        let owner = self.owner(host);
        self.server.returning.retain(|returning| *returning != owner);
        if let Some(open) = self.open(host) {
            let Transaction::Open { jobs, .. } = self.server.transactions.swap_remove(open) else { return };
            self.server.transactions.push(Transaction::Cut { jobs });
        }
        self.server.shows_life[usize::from(host)] = false;
        let host = &mut self.hosts[usize::from(host)];
        (host.is_up, host.believes, host.batch) = (false, false, None);
        (host.suspects, host.stop) = (false, Stop::No);
        host.claims.clear();
        host.missing.clear();
    }

    /// `ClaimedSet::searched`: a host looks several times, and by the last time, what was under way has come or gone.
    ///
    /// A look passes over what an older claim hides that the host still has of the same job, or a batch that is to be recovered. It
    /// looks again when that has come to its end, which is too late.
    pub(crate) fn may_be_last_look(&self, host: u8) -> bool {
        !self.server.may_mark(self.owner(host))
    }

    /// `release_orphans_once`.
    fn look(&mut self, host: u8, setup: &Setup) {
        let owner = self.owner(host);
        for (job, number) in self.unheard(host) {
            let row = self.server.row(job).copied().unwrap_or_default();
            let claim = Claim { job, attempt: row.attempts, number, timed: true, stage: Stage::Waits };
            self.server.store(owner, &claim, End::Returned, setup);
        }
        self.hosts[usize::from(host)].suspects = !self.may_be_last_look(host);
    }

    /// Where no claims go unheard and no server lags behind, there is nothing to be found.
    fn suspects_what_was_hidden(&mut self, host: u8, setup: &Setup) {
        let may_find = setup.looks_after_late_words && (setup.claims_get_lost || setup.failovers);
        self.hosts[usize::from(host)].suspects |= may_find;
    }

    /// The world after a step that can be taken.
    pub(crate) fn after(&self, step: Step, setup: &Setup) -> World {
        let mut world = self.clone();
        world.faults -= u8::from(step.is_fault());
        world.take(step, setup);
        // Where the order means nothing, there is to be only one.
        world.server.transactions.sort_unstable();
        world.server.late.sort_unstable();
        world.hosts.iter_mut().for_each(|host| host.claims.sort_unstable());
        world
    }

    fn take(&mut self, step: Step, setup: &Setup) {
        match step {
            Step::Claim(host, job) => {
                let (owner, number) = (self.owner(host), self.fresh_number(job));
                self.server.mark(job, owner, number);
                let attempt = self.server.row(job).map_or(0, |row| row.attempts);
                let claim = Claim { job, attempt, number, timed: true, stage: Stage::Waits };
                let host = &mut self.hosts[usize::from(host)];
                if !host.refuses(&claim, setup) {
                    host.claims.push(claim);
                }
            }
            Step::LoseClaim(host, job) => {
                let owner = self.owner(host);
                self.server.late.push(Late::Claim { owner, job });
                self.hosts[usize::from(host)].suspects = true;
            }
            Step::Lock(host, mask) => {
                let jobs: Vec<u8> = (0..setup.jobs).filter(|job| mask & (1 << job) != 0).collect();
                let claim = |job: &u8| {
                    let attempt = self.server.row(*job).map_or(0, |row| row.attempts + 1);
                    let number = self.fresh_number(*job);
                    Claim { job: *job, attempt, number, timed: false, stage: Stage::Waits }
                };
                let claims = jobs.iter().map(claim).collect();
                self.hosts[usize::from(host)].batch = Some(Batch { claims, refused: Vec::new(), recovers: false });
                self.server.transactions.push(Transaction::Open { host, jobs });
            }
            Step::Cut(host) => {
                let open = self.open(host).expect("it is open");
                if let Transaction::Open { jobs, .. } = self.server.transactions.swap_remove(open) {
                    self.server.transactions.push(Transaction::Cut { jobs });
                }
            }
            Step::Begin(host, place) => self.claim(host, place).stage = Stage::Runs,
            Step::Finish(host, place, end) => self.claim(host, place).stage = Stage::Ended(end),
            Step::Store(host, index) => {
                let (owner, claim) =
                    (self.owner(host), self.hosts[usize::from(host)].claims.remove(usize::from(index)));
                let Stage::Ended(end) = claim.stage else { return };
                if !self.server.store(owner, &claim, end, setup) {
                    self.suspects_what_was_hidden(host, setup);
                }
            }
            Step::LoseStore(host, index) => {
                let (owner, claim) = (self.owner(host), self.hosts[usize::from(host)].claims[usize::from(index)]);
                let Stage::Ended(end) = claim.stage else { return };
                self.server.late.push(Late::Result { owner, claim, end });
                // That one is not sent again.
                if end == End::Returned && setup.looks_for_unheard {
                    let host = &mut self.hosts[usize::from(host)];
                    host.claims.remove(usize::from(index));
                    host.suspects = true;
                }
            }
            Step::GiveBack(host, index) => {
                self.claim(host, Place::Marked(index)).stage = Stage::Ended(End::Returned);
            }
            Step::Settle(host) => {
                self.hosts[usize::from(host)].withdraw();
                let claims = self.batch_claims(host);
                match self.open(host) {
                    Some(open) => {
                        self.server.transactions.swap_remove(open);
                        let settlement = self.settlement(host, &claims);
                        self.server.settle(&settlement);
                        let host = &mut self.hosts[usize::from(host)];
                        host.batch = None;
                        let runs = claims.into_iter().filter(|claim| claim.stage == Stage::Runs);
                        host.claims.extend(runs.map(|claim| Claim { timed: true, ..claim }));
                    }
                    None => self.recovers(host),
                }
            }
            Step::LoseSettle(host) => {
                self.hosts[usize::from(host)].withdraw();
                let settlement = self.settlement(host, &self.batch_claims(host));
                let open = self.open(host).expect("it is open");
                if let Transaction::Open { jobs, .. } = self.server.transactions.swap_remove(open) {
                    self.server.transactions.push(Transaction::Ending { jobs, settlement });
                }
                self.recovers(host);
            }
            Step::Recover(host) => {
                let (settlement, marked) = self.lock_again(host, setup);
                self.server.settle(&settlement);
                self.recovered(host, &settlement, &marked, setup);
            }
            Step::LoseRecover(host) => {
                let (settlement, marked) = self.lock_again(host, setup);
                let Settlement { done, failed, marked: to_mark, .. } = &settlement;
                let both = to_mark.iter().chain(&marked).map(|(job, _)| job);
                let jobs = done.iter().chain(failed).chain(both).copied().collect();
                self.server.transactions.push(Transaction::Ending { jobs, settlement });
            }
            Step::RollBack(index) => drop(self.server.transactions.remove(usize::from(index))),
            Step::Commit(index) => {
                if let Transaction::Ending { settlement, .. } = self.server.transactions.remove(usize::from(index)) {
                    self.server.settle(&settlement);
                }
            }
            Step::Deliver(index) => match self.server.late.remove(usize::from(index)) {
                Late::Claim { owner, job } => {
                    let number = self.fresh_number(job);
                    self.server.mark(job, owner, number);
                }
                Late::Result { owner, claim, end } => drop(self.server.store(owner, &claim, end, setup)),
            },
            Step::Drop(index) => drop(self.server.late.remove(usize::from(index))),
            Step::LoseLife(host) => self.server.shows_life[usize::from(host)] = false,
            Step::Notice(host) => {
                let host = &mut self.hosts[usize::from(host)];
                host.lose_life();
                host.suspects |= setup.may_find_after_reconnects();
            }
            Step::ShowLife(host) => self.show_life(host, setup),
            Step::TakeOver(host) => {
                let dead = self.taken_for_dead(host, setup);
                let long_missing = |owner: &Owner| self.hosts[usize::from(host)].missing.contains(&(*owner, DEAD));
                let hasty = |owner: &Owner| !long_missing(owner) || self.server.returning.contains(owner);
                if setup.watches && dead.iter().any(hasty) {
                    self.server.wrong = Some(Wrong::Hasty);
                }
                self.server.takeover = Some(Takeover { dead });
            }
            Step::Watch(host) => self.hosts[usize::from(host)].missing = self.look_at_others(host),
            Step::Calm(host) => self.hosts[usize::from(host)].waits = false,
            Step::Outage => self.outage(),
            Step::HoldBack => self.server.standby = Some(self.server.jobs.clone()),
            Step::FailOver => {
                self.outage();
                self.server.jobs = self.server.standby.take().expect("it was held back");
                self.server.transactions.clear();
                self.server.late.clear();
                self.server.takeover = None;
                // Whatever they left behind is there again.
                let ended = self.hosts.iter_mut().filter(|host| host.stop == Stop::Ended);
                ended.for_each(|host| host.stop = Stop::No);
            }
            Step::Release => {
                let Some(takeover) = self.server.takeover.take() else { return };
                let before = self.clone();
                self.server.release(&takeover, |owner| before.shows_life(owner));
            }
            Step::Look(host) => self.look(host, setup),
            Step::Renew(job) => self.server.renew(job),
            Step::Stop(host) => self.hosts[usize::from(host)].stop(),
            Step::End(host) => {
                if setup.looks_before_it_ends {
                    self.look(host, setup);
                }
                let may_mark = self.server.may_mark(self.owner(host));
                self.kill(host);
                if !may_mark {
                    self.hosts[usize::from(host)].stop = Stop::Ended;
                }
            }
            Step::Kill(host) => self.kill(host),
            Step::KillClaiming(host, job) => {
                let owner = self.owner(host);
                self.server.late.push(Late::Claim { owner, job });
                self.kill(host);
            }
            Step::Start(host) => {
                let host = &mut self.hosts[usize::from(host)];
                (host.is_up, host.start, host.stop) = (true, host.start + 1, Stop::No);
                (host.waits, host.has_lived) = (false, false);
            }
        }
    }

    /// `Watch::watch`, once the lock is held: it forgets what it knew of others, and waits if there was an outage.
    fn show_life(&mut self, host: u8, setup: &Setup) {
        let owner = self.owner(host);
        self.server.shows_life[usize::from(host)] = true;
        self.server.returning.retain(|returning| *returning != owner);
        let heard = setup.hears_of_outages && !self.server.returning.is_empty();
        let host = &mut self.hosts[usize::from(host)];
        let comes_back = mem::replace(&mut host.has_lived, true);
        host.believes = true;
        host.waits = setup.watches && (comes_back || heard);
        host.suspects |= comes_back && setup.may_find_after_reconnects();
    }

    fn outage(&mut self) {
        for host in (0..).take(self.hosts.len()).filter(|host: &u8| self.hosts[usize::from(*host)].is_up) {
            let owner = self.owner(host);
            if self.server.shows_life[usize::from(host)] {
                self.server.returning.push(owner);
            }
        }
        self.server.shows_life.fill(false);
    }

    /// Who is missing now, and in how many looks of this host in a row.
    pub(crate) fn look_at_others(&self, host: u8) -> Vec<(Owner, u8)> {
        let known = &self.hosts[usize::from(host)].missing;
        let mut silent = self.server.silent(|owner| self.shows_life(owner));
        silent.extend(
            (0..).take(self.hosts.len()).map(|other| self.owner(other)).filter(|other| !self.shows_life(*other)),
        );
        silent.sort_unstable();
        silent.dedup();
        let looks = |owner: &Owner| known.iter().find(|(known, _)| known == owner).map_or(0, |(_, looks)| *looks);
        silent.into_iter().map(|owner| (owner, (looks(&owner) + 1).min(DEAD))).collect()
    }

    /// Whose jobs this host would release, if it did so now.
    pub(crate) fn taken_for_dead(&self, host: u8, setup: &Setup) -> Vec<Owner> {
        let mut silent = self.server.silent(|owner| self.shows_life(owner));
        let state = &self.hosts[usize::from(host)];
        if !setup.watches {
            return silent;
        }
        let is_dead = |owner: &Owner| state.missing.contains(&(*owner, DEAD));
        let somebody_is = state.missing.iter().any(|(_, looks)| *looks == DEAD);
        if host != 0 || (state.waits && setup.waits_after_outages) || !somebody_is {
            return Vec::new();
        }
        if setup.judges_each_owner {
            silent.retain(is_dead);
        }
        silent
    }

    /// What is locked in a host's name and unknown to it: jobs, and the numbers of the claims that did it. What a transaction that
    /// is open has, it knows. A run that was disowned is none of its jobs.
    pub(crate) fn unheard(&self, host: u8) -> Vec<(u8, u8)> {
        let (owner, knows) = (self.owner(host), &self.hosts[usize::from(host)]);
        let in_open = |job: u8| knows.batch.iter().flat_map(|batch| &batch.claims).any(|claim| claim.job == job);
        let known =
            |job: u8| in_open(job) || knows.claims.iter().any(|claim| claim.job == job && claim.attempt != NOBODYS);
        let rows = (0..).zip(&self.server.jobs).filter_map(|(job, row)| match row {
            Job::Row(row) if row.locked_by == Some(owner) => Some((job, row.number)),
            _ => None,
        });
        rows.filter(|(job, _)| !known(*job) && !self.server.is_held(*job)).collect()
    }

    fn recovers(&mut self, host: u8) {
        if let Some(batch) = self.hosts[usize::from(host)].batch.as_mut() {
            batch.recovers = true;
        }
    }
}
