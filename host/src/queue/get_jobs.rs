//! Claims jobs: finds them, marks them and their queues with the owner's id, and counts the attempt.

use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::types::{ToSql, Type};

use super::{
    Database, Job, QueueError, Session, TaskIds,
    claim::{Answer, Begin, careful_claim_statement, claim_statement, lock},
};

const WHAT: &str = "claim jobs";

/// The most jobs that one statement claims. The number also stands in the statement.
const MOST: usize = 1000;

/// And the most that one claim marks part by part.
pub(super) const MOST_CAREFULLY: usize = 100;

/// Which of the jobs that wait are not to be claimed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// Jobs with any of these flags stay.
    pub forbidden_flags: &'a [String],
    /// What the time is; `None`: what the database's clock says. Locks have the database's time in any case, because
    /// other programs judge their age by it.
    pub now: Option<SystemTime>,
    /// Jobs with these ids stay. Each costs every claim something.
    pub left_out: &'a [i64],
}

impl<'a> Conditions<'a> {
    /// The parameters that the conditions add to a statement.
    pub(super) fn parameters(&'a self) -> impl Iterator<Item = (&'a (dyn ToSql + Sync), Type)> {
        let flags = (!self.forbidden_flags.is_empty())
            .then_some((&self.forbidden_flags as &'a (dyn ToSql + Sync), Type::TEXT_ARRAY));
        let now = self.now.as_ref().map(|now| (now as &'a (dyn ToSql + Sync), Type::TIMESTAMPTZ));
        let left_out =
            (!self.left_out.is_empty()).then_some((&self.left_out as &'a (dyn ToSql + Sync), Type::INT8_ARRAY));
        flags.into_iter().chain(now).chain(left_out)
    }
}

/// A job that can be claimed again, and where it stands.
#[derive(Debug)]
pub(crate) struct CameBack {
    pub(crate) id: i64,
    pub(crate) queue: Option<i32>,
    pub(crate) priority: i16,
    pub(crate) run_at: SystemTime,
}

impl CameBack {
    pub(crate) fn of(job: &Job) -> Self {
        Self { id: job.id, queue: job.job_queue_id, priority: job.priority, run_at: job.run_at }
    }
}

impl Database {
    /// Has the next claims begin at the beginning, as they do now and then: there may be jobs that they have passed already,
    /// and that can be claimed now.
    pub fn look_everywhere(&self) {
        self.memory().look_everywhere();
    }

    /// Jobs can be claimed again, which stand where they stood.
    pub(crate) fn came_back(&self, jobs: &[CameBack]) {
        self.memory().came_back(jobs);
    }

    /// In how long a further claim of these tasks could bring jobs although the last one brought fewer than wanted, and nothing
    /// has changed since: it began where the one before had ended. `None`: it has seen everything.
    pub fn look_again(&self, tasks: &TaskIds, conditions: Conditions<'_>) -> Option<Duration> {
        lock(&self.memory().of(tasks, conditions)).next_lap(Instant::now())
    }
}

impl Session {
    /// Claims up to `limit` jobs of the given tasks for `owner`, the most urgent first; at most 1,000 at a time. A queue
    /// gives at most one job, and none while another one of it is being worked by anyone. Where some of the tasks
    /// have other ids by now, it brings nothing: see [`TaskIds::are_outdated`].
    ///
    /// Fewer than `limit` means that there are no more at the moment, with two exceptions. It does not look through all of a long
    /// backlog of busy queues once it has found something. And where earlier claims of this process have passed already, it
    /// looks about once in a second at least, and more often if that costs little. [`Database::look_again`] tells.
    pub async fn get_jobs(
        &self,
        owner: &str,
        tasks: &TaskIds,
        limit: usize,
        conditions: Conditions<'_>,
    ) -> Result<Vec<Job>, QueueError> {
        let limit = limit.min(MOST);
        if limit == 0 || tasks.is_empty() {
            return Ok(Vec::new());
        }
        let frontiers = self.database().memory().of(tasks, conditions);
        loop {
            if lock(&frontiers).is_turn_of_pages(Instant::now()) {
                let jobs = self.get_jobs_by_pages(owner, tasks, limit, &frontiers, conditions).await?;
                if !jobs.is_empty() || tasks.are_outdated() {
                    return Ok(jobs);
                }
            }
            let begin = lock(&frontiers).begin(limit, Instant::now());
            let answer = self.claim(false, owner, tasks, limit, &begin, conditions).await;
            let answer = answer.inspect_err(|error| lock(&frontiers).failed(error, Instant::now()))?;
            self.learn(&answer, tasks).await;
            if tasks.are_outdated() {
                return Ok(answer.jobs);
            }
            let mut frontiers = lock(&frontiers);
            let goes_on =
                frontiers.ended(&begin, &answer, limit, Instant::now()) || frontiers.has_pages(Instant::now());
            if !goes_on || !answer.jobs.is_empty() {
                return Ok(answer.jobs);
            }
        }
    }

    /// Has the server plan the claim ahead, which takes it longer than most claims, by one that can bring nothing.
    pub(crate) async fn plan_claim(&self, conditions: Conditions<'_>) -> Result<(), QueueError> {
        if self.prepares_statements() {
            let nothing = TaskIds::default();
            let answer = self.claim(false, "", &nothing, 0, &Begin::default(), conditions).await?;
            self.learn(&answer, &nothing).await;
        }
        Ok(())
    }

    /// Takes note of what a claim has seen beside jobs.
    pub(super) async fn learn(&self, answer: &Answer, tasks: &TaskIds) {
        tasks.confirmed(answer.right_ids);
        self.plan_for(answer.pages).await;
    }

    /// Runs the statement that claims, or `in_parts` the one that only locks, in a transaction that is open.
    pub(super) async fn claim(
        &self,
        in_parts: bool,
        owner: &str,
        tasks: &TaskIds,
        limit: usize,
        begin: &Begin,
        conditions: Conditions<'_>,
    ) -> Result<Answer, QueueError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let [ids, names] = tasks.parameters();
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(16);
        parameters.extend([(&owner as &(dyn ToSql + Sync), Type::TEXT), ids, (&limit, Type::INT8)]);
        parameters.extend(begin.steps.parameters());
        parameters.push((&begin.width, Type::INT8));
        parameters.extend(begin.offer.parameters());
        parameters.push(names);
        parameters.extend(conditions.parameters());
        let sql = if in_parts { careful_claim_statement(conditions) } else { claim_statement(conditions) };
        self.ask_for_jobs(in_parts, sql, &parameters).await
    }

    /// Runs a statement that answers with jobs, `in_parts` in a transaction that is open.
    pub(super) async fn ask_for_jobs(
        &self,
        in_parts: bool,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Answer, QueueError> {
        let sent = Instant::now();
        let rows = if in_parts {
            self.query_as_part(WHAT, sql, parameters).await?
        } else {
            self.query(WHAT, sql, parameters).await?
        };
        Answer::read(WHAT, &rows, sent.elapsed())
    }
}
