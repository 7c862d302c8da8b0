//! Claims jobs page by page, when the statement that scans for them is cut off: see [`super::claim`].

use std::{
    sync::Mutex,
    time::{Instant, SystemTime},
};

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{
    Conditions, Job, QueueError, Session, TaskIds,
    claim::{
        Answer, Candidate, Next, Page, ScanState, Seen, claim_picked_statement, lock, page_statement,
        priorities_statement,
    },
};

const WHAT: &str = "look for jobs";

impl Session {
    /// The next jobs of a full scan by pages. None if it has ended, or if a page had no candidates: then a scan from the cursors
    /// looks for jobs that became due in the meantime.
    pub(super) async fn get_jobs_by_pages(
        &self,
        owner: &str,
        tasks: &TaskIds,
        limit: usize,
        state: &Mutex<ScanState>,
        conditions: Conditions<'_>,
    ) -> Result<Vec<Job>, QueueError> {
        let mut empty = false;
        loop {
            let next = lock(state).next(limit, Instant::now());
            let sent = Instant::now();
            match next {
                Next::Scan => return Ok(Vec::new()),
                Next::Read(_) if empty && !lock(state).is_without_scans() => return Ok(Vec::new()),
                Next::Begin => {
                    let (priorities, due) = self.look_for_priorities(tasks, conditions).await?;
                    lock(state).full_scan_begins(&priorities, due, Instant::now());
                }
                Next::Read(page) => match self.read_page(tasks, page, conditions).await {
                    _ if tasks.are_outdated() => return Ok(Vec::new()),
                    Ok(seen) => {
                        empty = seen.candidates.is_empty();
                        lock(state).page_read(page, seen, sent.elapsed());
                    }
                    Err(error) if error.cuts_off() && lock(state).page_was_cut(page.size) => goes_on(error)?,
                    Err(error) => return Err(error),
                },
                Next::Claim(picked) => match self.claim_picked(false, owner, tasks, &picked, conditions).await {
                    Ok(answer) => {
                        self.learn(&answer, tasks).await;
                        lock(state).picked_are_claimed(&picked, &answer.jobs, sent.elapsed());
                        if !answer.jobs.is_empty() || tasks.are_outdated() {
                            return Ok(answer.jobs);
                        }
                    }
                    Err(error) => {
                        let number = picked.len();
                        let mut state = lock(state);
                        state.put_back(picked);
                        if !(error.cuts_off() && state.picked_were_cut(number)) {
                            return Err(error);
                        }
                        goes_on(error)?;
                    }
                },
            }
        }
    }

    /// Claims those of the candidates that can be claimed, or `in_parts` only locks them, in a transaction that is open.
    pub(super) async fn claim_picked(
        &self,
        in_parts: bool,
        owner: &str,
        tasks: &TaskIds,
        picked: &[Candidate],
        conditions: Conditions<'_>,
    ) -> Result<Answer, QueueError> {
        let picked: Vec<i64> = picked.iter().map(|candidate| candidate.id).collect();
        let [ids, names] = tasks.parameters();
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(7);
        parameters.extend([(&owner as &(dyn ToSql + Sync), Type::TEXT), ids, (&picked, Type::INT8_ARRAY), names]);
        parameters.extend(conditions.parameters());
        self.ask_for_jobs(in_parts, claim_picked_statement(in_parts, conditions), &parameters).await
    }

    /// Existing priorities, and the time.
    async fn look_for_priorities(
        &self,
        tasks: &TaskIds,
        conditions: Conditions<'_>,
    ) -> Result<(Vec<i16>, SystemTime), QueueError> {
        let parameters: Vec<_> = tasks.parameters().into_iter().chain(conditions.parameters()).collect();
        let rows = self.query_in_order(priorities_statement(conditions), &parameters).await?;
        let read = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.first().map_or(Ok((Vec::new(), SystemTime::UNIX_EPOCH)), read).map_err(unreadable)
    }

    async fn read_page(&self, tasks: &TaskIds, page: Page, conditions: Conditions<'_>) -> Result<Seen, QueueError> {
        let [ids, names] = tasks.parameters();
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![
            ids,
            (&page.at.priority, Type::INT2),
            (&page.at.run_at, Type::TIMESTAMPTZ),
            (&page.at.id, Type::INT8),
            (&page.due, Type::TIMESTAMPTZ),
            (&page.size, Type::INT8),
            names,
        ];
        parameters.extend(conditions.parameters());
        let rows = self.query_in_order(page_statement(page.at.id.is_some(), conditions), &parameters).await?;
        let (seen, right_ids) = read(&rows).map_err(unreadable)?;
        tasks.confirmed(right_ids);
        Ok(seen)
    }

    /// Queries in one trip, in a read-only transaction with plans that read along an index.
    async fn query_in_order(
        &self,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, QueueError> {
        let begin = self.begin_in_order();
        let text = self.database().render(sql);
        let asked = async {
            let (begun, rows, ended) = tokio::join!(
                biased;
                self.client().batch_execute(begin),
                self.client().query_typed(&text, parameters),
                self.client().batch_execute("commit"),
            );
            begun?;
            let rows = rows?;
            ended.map(|()| rows)
        };
        self.database().health().answer(WHAT, asked).await
    }
}

/// Tries again with less after a cancelled statement. A lost session cannot be used again.
fn goes_on(error: QueueError) -> Result<(), QueueError> {
    if error.is_cancelled() { Ok(()) } else { Err(error) }
}

/// The page, and the number of tasks that have the ids given.
fn read(rows: &[Row]) -> Result<(Seen, usize), tokio_postgres::Error> {
    let Some((facts, candidates)) = rows.split_last() else { return Ok((Seen::default(), 0)) };
    let candidate = |row: &Row| {
        let spot = (row.try_get("priority")?, row.try_get("run_at")?);
        Ok(Candidate { id: row.try_get("id")?, queue: row.try_get("job_queue_id")?, spot })
    };
    let mut candidates: Vec<Candidate> = candidates.iter().map(candidate).collect::<Result<_, _>>()?;
    candidates.sort_by_key(|candidate| (candidate.spot, candidate.id));
    let seen = Seen {
        candidates,
        entries: facts.try_get("entries")?,
        priority: facts.try_get("page_priority")?,
        run_at: facts.try_get("last_run_at")?,
        id: facts.try_get("highest_id")?,
    };
    Ok((seen, usize::try_from(facts.try_get::<_, i32>("known_tasks")?).unwrap_or_default()))
}

fn unreadable(error: tokio_postgres::Error) -> QueueError {
    QueueError::statement(WHAT, &error)
}
