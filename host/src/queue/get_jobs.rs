//! Claims jobs: finds them, marks them and their queues with the owner's id, and counts the attempt.

use std::time::{Duration, Instant};

use tokio_postgres::types::{ToSql, Type};

use super::{
    Conditions, Database, Job, QueueError, ReleasedJob, Session, TaskIds,
    claim::{Answer, Begin, careful_claim_statement, claim_statement, lock},
    placeholders::BATCH_LIMIT,
};

const WHAT: &str = "claim jobs";

/// The most jobs that one claim marks part by part.
pub(super) const MOST_CAREFULLY: usize = 100;

impl Database {
    /// Makes the next claims scan from the beginning, because jobs behind the cursors may have become available.
    pub fn reset_cursors(&self) {
        self.memory().reset_cursors();
    }

    /// Moves the cursors back to jobs that were released.
    pub(crate) fn released(&self, jobs: &[ReleasedJob]) {
        self.memory().released(jobs);
    }

    /// The time until the next full scan, which can bring jobs although the last claim, from the cursors, brought fewer than its
    /// limit. `None` if that claim has seen everything.
    pub fn next_full_scan(&self, tasks: &TaskIds, conditions: Conditions<'_>) -> Option<Duration> {
        lock(&self.memory().of(tasks.ids(), conditions)).next_full_scan(Instant::now())
    }
}

impl Session {
    /// Claims up to `limit` jobs of the given tasks for `owner`, the most urgent first; at most 1,000 at a time. A queue
    /// gives at most one job, and none while another one of it is being worked by anyone. Where some of the tasks
    /// have other ids by now, it brings nothing: see [`TaskIds::are_outdated`].
    ///
    /// Fewer than `limit` means that no more are available, with two exceptions. A claim that has found something does not read the
    /// rest of a long backlog of busy queues. And it starts from the cursors of earlier claims: a full scan happens about once a
    /// second, and more often if it is cheap. [`Database::next_full_scan`] tells when.
    pub async fn get_jobs(
        &self,
        owner: &str,
        tasks: &TaskIds,
        limit: usize,
        conditions: Conditions<'_>,
    ) -> Result<Vec<Job>, QueueError> {
        let limit = limit.min(BATCH_LIMIT);
        if limit == 0 || tasks.is_empty() {
            return Ok(Vec::new());
        }
        let state = self.database().memory().of(tasks.ids(), conditions);
        loop {
            if lock(&state).is_turn_of_pages(Instant::now()) {
                let jobs = self.get_jobs_by_pages(owner, tasks, limit, &state, conditions).await?;
                if !jobs.is_empty() || tasks.are_outdated() {
                    return Ok(jobs);
                }
            }
            let begin = lock(&state).begin(limit, Instant::now());
            let answer = self.claim(false, owner, tasks, limit, &begin, conditions).await;
            let answer = answer.inspect_err(|error| lock(&state).failed(error, Instant::now()))?;
            self.learn(&answer, tasks).await;
            if tasks.are_outdated() {
                return Ok(answer.jobs);
            }
            let mut state = lock(&state);
            let goes_on = state.ended(&begin, &answer, limit, Instant::now()) || state.has_pages(Instant::now());
            if !goes_on || !answer.jobs.is_empty() {
                return Ok(answer.jobs);
            }
        }
    }

    /// Makes the server plan the claim ahead by a claim of nothing. Planning takes longer than most claims.
    pub(crate) async fn plan_claim(&self, conditions: Conditions<'_>) -> Result<(), QueueError> {
        if self.prepares_statements() {
            let nothing = TaskIds::default();
            let answer = self.claim(false, "", &nothing, 0, &Begin::default(), conditions).await?;
            self.learn(&answer, &nothing).await;
        }
        Ok(())
    }

    /// Records the facts of a claim about tasks and the table.
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
        parameters.extend(begin.ranges.parameters());
        parameters.push((&begin.width, Type::INT8));
        parameters.extend(begin.offer.parameters());
        parameters.push(names);
        parameters.extend(conditions.parameters());
        let sql = if in_parts { careful_claim_statement(conditions) } else { claim_statement(conditions) };
        self.ask_for_jobs(in_parts, sql, &parameters).await
    }

    /// Runs a statement that claims, `in_parts` in a transaction that is open.
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
