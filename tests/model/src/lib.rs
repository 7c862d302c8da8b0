//! A model of how hosts and Postgres agree on who has a job: the claim, both lanes, takeover and fencing. A checker visits every
//! state that it can come to.
//!
//! Nothing here is the code. Each step names the function that it stands for, and does what that one does, no more; whoever
//! changes one changes the other. What a host does by itself may happen at any time or not for long, so that a host that stands
//! still needs no step of its own. Time is left out: whatever waits for some seconds may have waited long enough at any moment.
//!
//! What is broken on purpose, by [`Setup`], is what the checker must find: see `tests`.

mod changes;
mod checks;
mod host;
mod server;
mod steps;
#[cfg(test)]
mod tests;

pub use self::{
    host::{Batch, Claim, End, Host, Stage, Stop},
    server::{Job, Late, Owner, Row, Server, Settlement, Takeover, Transaction, Wrong},
    steps::Step,
};

/// How large the world is, and what is broken in it.
#[derive(Debug, Clone)]
pub struct Setup {
    pub hosts: u8,
    pub jobs: u8,
    /// `max_attempts` of each job.
    pub attempts: u8,
    /// So many bad things happen in one history.
    pub faults: u8,
    /// Hosts may claim by the express lane.
    pub express: bool,
    /// The answer to a claim of the marked lane can be lost while its host lives on.
    pub claims_get_lost: bool,
    /// Once nothing bad happens any more, all hosts are restarted.
    pub hosts_are_restarted: bool,
    /// The answer to a return can be lost.
    pub returns_get_lost: bool,
    /// A result names the claim that it belongs to, by its time.
    pub fenced_by_time: bool,
    /// What is locked in a host's name and unknown to it goes back.
    pub looks_for_unheard: bool,
    /// A host whose word comes too late, or that has recovered a batch, looks for what had been hidden behind those.
    pub looks_after_late_words: bool,
    /// Locks are renewed.
    pub renewals: bool,
    /// A renewed lock still names its claim.
    pub renewals_name_claims: bool,
    /// Another server takes over that lags behind.
    pub failovers: bool,
    /// A host that has lost its connections looks for what is unheard.
    pub looks_after_reconnects: bool,
    /// The first host counts the looks in which each owner was missing, and nobody else takes over. Otherwise, whoever is missing was
    /// so for long enough.
    pub watches: bool,
    /// It judges each owner by its own looks.
    pub judges_each_owner: bool,
    /// After an outage, it waits until those who live have come back.
    pub waits_after_outages: bool,
    /// It hears of an outage that was before its start.
    pub hears_of_outages: bool,
    /// Hosts are told to stop.
    pub stops: bool,
    /// A host that stops looks for what is unheard once more before it ends.
    pub looks_before_it_ends: bool,
    /// A result names the attempt that it belongs to, and not only the owner.
    pub fenced_by_attempt: bool,
    /// Whoever takes over holds the dead owner's lock meanwhile.
    pub takeover_holds_lock: bool,
    /// A job that turns out to be somebody else's while it runs has no result that could be stored.
    pub disowns: bool,
    /// A batch refuses to the other claimer of its host only the attempts that it has itself.
    pub refuses_by_attempt: bool,
    /// After a commit of which nobody knows, the jobs are locked again before anything is stored.
    pub locks_again: bool,
}

impl Setup {
    /// As the code is.
    pub fn of_the_code() -> Self {
        Self {
            hosts: 2,
            jobs: 2,
            attempts: 2,
            faults: 1,
            express: true,
            claims_get_lost: false,
            hosts_are_restarted: false,
            returns_get_lost: false,
            fenced_by_time: true,
            looks_for_unheard: true,
            looks_after_late_words: true,
            renewals: false,
            renewals_name_claims: true,
            failovers: false,
            looks_after_reconnects: true,
            watches: false,
            judges_each_owner: true,
            waits_after_outages: true,
            hears_of_outages: true,
            stops: false,
            looks_before_it_ends: true,
            fenced_by_attempt: true,
            takeover_holds_lock: true,
            disowns: true,
            refuses_by_attempt: true,
            locks_again: true,
        }
    }
}

impl Setup {
    /// Where no server takes over that lags behind, there is nothing to be found.
    pub(crate) fn may_find_after_reconnects(&self) -> bool {
        self.failovers && self.looks_after_reconnects
    }
}

/// Everything that is anywhere at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub server: Server,
    pub hosts: Vec<Host>,
    /// So many bad things can still happen.
    pub faults: u8,
}

impl World {
    /// All hosts live, and no job is claimed.
    pub fn first(setup: &Setup) -> Self {
        let (hosts, jobs) = (usize::from(setup.hosts), usize::from(setup.jobs));
        Self { server: Server::new(jobs, hosts), hosts: vec![Host::new(); hosts], faults: setup.faults }
    }

    /// A number for a claim that nothing else in this world has for this job.
    ///
    /// The database has no such number. By it, the checker knows two claims apart that look the same to the statements.
    pub fn fresh_number(&self, job: u8) -> u8 {
        let used = |number: u8| self.server.names(job, number) || self.hosts.iter().any(|host| host.names(job, number));
        (0..u8::MAX).find(|number| !used(*number)).expect("there are few claims")
    }
}
