//! Claims jobs: finds them, marks them and their queues with the owner's id, and counts the attempt.

use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::types::{ToSql, Type};

use super::{
    Database, Job, QueueError, Session,
    claim::{Answer, Begin, claim_statement, lock},
};

const WHAT: &str = "claim jobs";

/// The most jobs that one statement claims. The number also stands in the statement.
const MOST: usize = 1000;

/// How many jobs in queues the first statement looks at, for each job that is wanted, and how many times as many each further
/// one: most of them may be of queues that are busy.
const WIDTH: usize = 4;
const WIDER: usize = 4;

/// Once there is something to do, further statements are left to the next call after this time.
const LONG_ENOUGH: Duration = Duration::from_millis(20);

/// Which of the jobs that wait are not to be claimed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// Jobs with any of these flags stay.
    pub forbidden_flags: &'a [String],
    /// What the time is; `None`: what the database's clock says. Locks have the database's time in any case, because
    /// other programs judge their age by it.
    pub now: Option<SystemTime>,
}

impl<'a> Conditions<'a> {
    /// The parameters that the conditions add to a statement.
    pub(super) fn parameters(&'a self) -> impl Iterator<Item = (&'a (dyn ToSql + Sync), Type)> {
        let flags = (!self.forbidden_flags.is_empty())
            .then_some((&self.forbidden_flags as &'a (dyn ToSql + Sync), Type::TEXT_ARRAY));
        let now = self.now.as_ref().map(|now| (now as &'a (dyn ToSql + Sync), Type::TIMESTAMPTZ));
        flags.into_iter().chain(now)
    }
}

impl Database {
    /// Has the next claims begin at the beginning, as they do now and then: there may be jobs that they have passed already,
    /// and that can be claimed now.
    pub fn look_everywhere(&self) {
        self.memory().look_everywhere();
    }

    /// In how long a further claim of these tasks could bring jobs although the last one brought fewer than wanted, and nothing
    /// has changed since: it began where the one before had ended. `None`: it has seen everything.
    pub fn look_again(&self, task_ids: &[i32], conditions: Conditions<'_>) -> Option<Duration> {
        lock(&self.memory().of(task_ids, conditions)).next_lap(Instant::now())
    }
}

impl Session {
    /// Claims up to `limit` jobs of the given tasks for `owner`, the most urgent first; at most 1,000 at a time. A queue
    /// gives at most one job, and none while another one of it is being worked by anyone.
    ///
    /// Fewer than `limit` means that there are no more at the moment, except behind what earlier claims of this process have
    /// passed: there, it looks about once in a second at least, and more often where that costs little. See
    /// [`Database::look_again`].
    pub async fn get_jobs(
        &self,
        owner: &str,
        task_ids: &[i32],
        limit: usize,
        conditions: Conditions<'_>,
    ) -> Result<Vec<Job>, QueueError> {
        let limit = limit.min(MOST);
        if limit == 0 || task_ids.is_empty() {
            return Ok(Vec::new());
        }
        let asked = Instant::now();
        let frontiers = self.database().memory().of(task_ids, conditions);
        let mut jobs = Vec::new();
        let mut width = WIDTH * limit;
        loop {
            let wanted = limit - jobs.len();
            let begin = lock(&frontiers).begin(Instant::now());
            let answer = match self.claim(owner, task_ids, wanted, width, &begin, conditions).await {
                Ok(answer) => answer,
                // What is claimed is claimed: it has to reach the caller. The next call meets the error again.
                Err(_) if !jobs.is_empty() => break,
                Err(error) => return Err(error),
            };
            let more = lock(&frontiers).ended(&begin, &answer, wanted, width, Instant::now());
            jobs.extend(answer.jobs);
            if !more || (!jobs.is_empty() && asked.elapsed() > LONG_ENOUGH) {
                break;
            }
            width = width.saturating_mul(WIDER);
        }
        jobs.sort_by_key(|job| (job.priority, job.run_at, job.id));
        Ok(jobs)
    }

    async fn claim(
        &self,
        owner: &str,
        task_ids: &[i32],
        limit: usize,
        width: usize,
        begin: &Begin,
        conditions: Conditions<'_>,
    ) -> Result<Answer, QueueError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let width = i64::try_from(width).unwrap_or(i64::MAX);
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(14);
        parameters.extend([
            (&owner as &(dyn ToSql + Sync), Type::TEXT),
            (&task_ids, Type::INT4_ARRAY),
            (&limit, Type::INT8),
        ]);
        parameters.extend(begin.steps.parameters());
        parameters.push((&width, Type::INT8));
        parameters.extend(begin.offer.parameters());
        parameters.extend(conditions.parameters());
        let rows = self.query(WHAT, claim_statement(conditions), &parameters).await?;
        Answer::read(&rows).map_err(|error| QueueError::statement(WHAT, &error))
    }
}
