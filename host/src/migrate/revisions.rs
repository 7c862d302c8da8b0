//! The revisions of the schema, as graphile-worker counts them.

/// The newest revision that is known here, and the one that databases get unless told otherwise.
pub const NEWEST: i32 = 20;

/// The oldest revision whose tables are those of the newest.
pub const OLDEST: i32 = 18;

/// One revision: what a database gains by it.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub number: i32,
    /// Programs that do not know it cannot work on a database that has it.
    pub breaking: bool,
    /// What it does, for people.
    pub what: &'static str,
}

static STEPS: [Step; NEWEST as usize] = [
    breaking(1, "jobs and queues, and functions to add and take jobs"),
    compatible(2, "keys of jobs, locks on jobs, remove_job"),
    breaking(3, "jobs without a queue"),
    compatible(4, "the priority of add_job; complete_jobs, permanently_fail_jobs, reschedule_jobs"),
    compatible(5, "flags, and the count of a job's changes"),
    compatible(6, "a smaller index of the jobs in order"),
    compatible(7, "the modes of keys"),
    compatible(8, "the table of schedules"),
    compatible(9, "taking jobs by the worker's clock"),
    compatible(10, "no default queue"),
    breaking(
        11,
        "moves all jobs to new tables, with tasks and queues by number; add_jobs; workers take jobs by themselves",
    ),
    compatible(12, "joins the payloads of jobs with one key if they are lists"),
    breaking(13, "smaller numbers for priorities and attempts in job_spec"),
    breaking(14, "plain integers as arguments again"),
    compatible(15, "force_unlock_workers"),
    breaking(16, "the tables get names that begin with _private_"),
    compatible(17, "the view of jobs"),
    compatible(18, "notifications that say how many jobs were added"),
    breaking(19, "nothing but the mark that locks are of pools of workers, as in graphile-worker 0.17 and newer"),
    compatible(20, "adding jobs no longer uses up the numbers of tasks and queues"),
];

const fn breaking(number: i32, what: &'static str) -> Step {
    Step { number, breaking: true, what }
}

const fn compatible(number: i32, what: &'static str) -> Step {
    Step { number, breaking: false, what }
}

/// The steps on the way from one revision, or from 0 for none, to a later one.
pub(super) fn steps(from: i32, to: i32) -> impl Iterator<Item = &'static Step> {
    STEPS.iter().filter(move |step| step.number > from && step.number <= to)
}

/// The numbers of all breaking revisions.
pub(super) fn all_breaking() -> Vec<i32> {
    STEPS.iter().filter(|step| step.breaking).map(|step| step.number).collect()
}

/// What becomes of workers that are at work while a database goes from one revision to another, for those releases of
/// graphile-worker that do not live through it.
pub(super) fn consequence(from: i32, to: i32) -> Option<&'static str> {
    match from {
        ..=0 => None,
        1..=10 => Some(
            "workers of graphile-worker 0.13 and older cannot work on it afterwards: stop them first, and start a version \
             that knows the new revision",
        ),
        11..=15 => Some(
            "workers of graphile-worker 0.14 and 0.15 cannot work on it afterwards: stop them first; a job that they run \
             meanwhile cannot be completed by them, and runs again when its lock is four hours old",
        ),
        16..=18 if to >= 19 => Some(
            "workers of graphile-worker 0.16 finish their running jobs and end with exit status 57, and none starts on it \
             afterwards: replace them by 0.17 or newer, or stay at revision 18 (taskbay migrate --to 18)",
        ),
        _ => None,
    }
}
