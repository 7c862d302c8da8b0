//! What has to hold in every state.

use stateright::{Model, Property};

use crate::{
    Setup, World,
    host::{End, Stage, Stop},
    server::{Job, Transaction, Wrong},
    steps::Step,
};

/// No result changes a row that another claim has locked.
pub(crate) const OWN_ROWS: &str = "a late result changes nothing that somebody else has claimed";
/// The same of results that say that a job never began.
pub(crate) const OWN_RETURNS: &str = "a late return gives nothing back that was claimed since";
/// The same of the express lane.
pub(crate) const OWN_EXPRESS: &str = "a transaction of the express lane ends no job that somebody else has claimed";
/// Of all runs of a job, the database would take at most one result.
pub(crate) const ONE_RUN: &str = "no two runs of a job would be believed";
/// Takeover leaves alone who holds its lock.
pub(crate) const LIVING: &str = "the jobs of an owner that holds its lock are not released";
/// Takeover waits for hosts to come back.
pub(crate) const PATIENCE: &str =
    "only an owner that was missing in each look is released, and after an outage not before those who live are back";
/// No result is lost.
pub(crate) const KEPT: &str = "a result is stored if its claim still holds";
/// Attempts are within bounds.
pub(crate) const ATTEMPTS: &str = "no job has more attempts than it may have";
/// An orderly stop leaves nothing behind.
///
/// Any answers may have been lost before. One loss alone is allowed to leave something: a claim that was sent, went unheard, and
/// has not come through when the host looks for the last time. It can lock a job afterwards, for those who take over.
pub(crate) const LEFT: &str = "nothing is locked in the name of a host that has ended in an orderly way";
/// No job is lost.
pub(crate) const ENDS: &str = "once nothing bad happens any more, every job comes to an end";

pub(crate) fn properties() -> Vec<Property<Setup>> {
    vec![
        Property::always(OWN_ROWS, |_, world: &World| {
            !matches!(world.server.wrong, Some(Wrong::Foreign(End::Done | End::Failed)))
        }),
        Property::always(OWN_RETURNS, |_, world: &World| world.server.wrong != Some(Wrong::Foreign(End::Returned))),
        Property::always(OWN_EXPRESS, |_, world: &World| world.server.wrong != Some(Wrong::ForeignExpress)),
        Property::always(LIVING, |_, world: &World| world.server.wrong != Some(Wrong::ReleasedTheLiving)),
        Property::always(PATIENCE, |_, world: &World| world.server.wrong != Some(Wrong::Hasty)),
        Property::always(KEPT, |_, world: &World| world.server.wrong != Some(Wrong::Refused)),
        Property::always(ONE_RUN, |setup: &Setup, world: &World| {
            (0..setup.jobs).all(|job| world.believed_runs(job, setup) <= 1)
        }),
        Property::always(ATTEMPTS, |setup: &Setup, world: &World| {
            (0..setup.jobs).all(|job| world.server.row(job).is_none_or(|row| row.attempts <= setup.attempts))
        }),
        Property::always(LEFT, |_, world: &World| {
            (0..).zip(&world.hosts).all(|(number, host)| {
                host.stop != Stop::Ended || !world.server.jobs.iter().any(|job| job.is_locked_by(world.owner(number)))
            })
        }),
        // With faults left, more can be done than without, so that it is enough to look at worlds that have none left.
        Property::always(ENDS, |setup: &Setup, world: &World| {
            world.faults > 0 || world.server.wrong.is_some() || world.comes_to_an_end(setup)
        }),
    ]
}

impl World {
    /// How many runs of a job there are of which a result would be stored as things are.
    fn believed_runs(&self, job: u8, setup: &Setup) -> usize {
        let mut runs = 0;
        for (number, host) in (0..).zip(&self.hosts) {
            let owner = self.owner(number);
            let marked = host.claims.iter().filter(|claim| claim.job == job && claim.stage == Stage::Runs);
            runs += marked.filter(|claim| self.server.still_claimed(owner, claim, setup)).count();
            let holds = |one: &Transaction| matches!(one, Transaction::Open { host, jobs } if *host == number && jobs.contains(&job));
            if self.server.transactions.iter().any(holds) {
                let claims = host.batch.iter().flat_map(|batch| &batch.claims);
                runs += claims.filter(|claim| claim.job == job && claim.stage == Stage::Runs).count();
            }
        }
        runs
    }

    /// Lets everybody go on undisturbed, in some fair order, and says whether all jobs were done, or have failed for good.
    fn comes_to_an_end(&self, setup: &Setup) -> bool {
        let mut world = self.clone();
        if setup.hosts_are_restarted {
            (0..setup.hosts).for_each(|host| world.kill(host));
        }
        // Nobody has more to do than this.
        for _ in 0..200 {
            let steps = setup.steps(&world);
            let Some(step) = steps.into_iter().filter(|step| goes_on(*step)).min_by_key(|step| urgency(*step)) else {
                break;
            };
            world = world.after(step, setup);
        }
        world.server.jobs.iter().all(|job| match job {
            Job::Gone => true,
            Job::Row(row) => row.locked_by.is_none() && row.attempts == setup.attempts,
        })
    }
}

impl Setup {
    fn steps(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        self.actions(world, &mut steps);
        steps
    }
}

/// Whether it leads somewhere. What is returned is claimed again, and so on for ever.
fn goes_on(step: Step) -> bool {
    !step.is_fault() && !matches!(step, Step::GiveBack(..) | Step::HoldBack)
}

/// What is to come first. New jobs come last, so that what is there comes to an end.
fn urgency(step: Step) -> u8 {
    match step {
        Step::Commit(_) | Step::RollBack(_) | Step::Deliver(_) | Step::Drop(_) | Step::Release => 0,
        Step::Look(_) | Step::Notice(_) | Step::ShowLife(_) | Step::Start(_) => 1,
        Step::Watch(_) | Step::Calm(_) | Step::TakeOver(_) => 1,
        Step::Begin(..) => 2,
        Step::Finish(..) => 3,
        Step::Store(..) | Step::End(_) | Step::Settle(_) | Step::Recover(_) => 4,
        _ => 5,
    }
}
