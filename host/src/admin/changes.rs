//! Changes any number of jobs, in batches that bound the memory and the length of transactions.

use std::collections::{HashSet, VecDeque};

use super::action::{Action, Applied, Left, Selection};
use crate::queue::{FoundJob, JobFilter, JobOrder, QueueError, Session, StoredJob};

/// How many jobs one statement changes.
const BATCH: usize = 1_000;
/// How many jobs are searched at once. Only the ids of those that match are in memory.
const WINDOW: usize = 20_000;
/// How much text the jobs of one statement have, because it returns them. A single job may have more.
const BATCH_BYTES: usize = 8 << 20;

/// What became of some of the jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChangedBatch {
    /// As they are stored now, or were last.
    pub changed: Vec<StoredJob>,
    /// The jobs that stay as they are, by their ids.
    pub left: Vec<(i64, Left)>,
}

/// Jobs that are to be changed: none of those that are added later.
#[derive(Debug)]
pub struct Selected<'a> {
    session: &'a Session,
    selection: Selection,
    /// The largest id among them.
    last: i64,
}

impl<'a> Selected<'a> {
    pub(super) async fn of(session: &'a Session, selection: Selection) -> Result<Self, QueueError> {
        Ok(Self { session, selection, last: session.last_job_id().await? })
    }

    /// How many jobs that may be now. Reads each job, unless they are selected by ids.
    pub async fn count(&self) -> Result<i64, QueueError> {
        match &self.selection {
            Selection::Ids(ids) => Ok(i64::try_from(ids.len()).unwrap_or(i64::MAX)),
            Selection::Matching(filter) => {
                Ok(self.session.count_jobs(filter).await?.iter().map(|count| count.jobs).sum())
            }
        }
    }

    /// The change, which begins with the first call of [`Changes::next`].
    pub fn change(self, action: Action) -> Changes<'a> {
        let Self { session, selection, last } = self;
        let search = match selection {
            Selection::Ids(ids) => Search::Ids { ids, asked: 0, seen: HashSet::new() },
            Selection::Matching(filter) => Search::Matching { filter, after: i64::MIN },
        };
        Changes {
            session,
            action,
            last,
            search,
            batches: VecDeque::new(),
            unexplained: Vec::new(),
            ended: None,
            is_over: false,
        }
    }
}

/// A change that is under way, batch by batch. It goes no further than it is asked to.
#[derive(Debug)]
pub struct Changes<'a> {
    session: &'a Session,
    action: Action,
    /// The largest id that is to be changed.
    last: i64,
    search: Search,
    /// Found, and not changed yet.
    batches: VecDeque<Vec<i64>>,
    /// Not changed by the last statement, for a reason that is to be found.
    unexplained: Vec<i64>,
    /// The error that comes after what was changed before it.
    ended: Option<QueueError>,
    /// All are done, or an error was returned.
    is_over: bool,
}

/// Where the next jobs are found.
#[derive(Debug)]
enum Search {
    /// `asked` is the number of ids that were looked up; `seen` has those that were found.
    Ids { ids: Vec<i64>, asked: usize, seen: HashSet<i64> },
    /// Each job once, in the order of the ids.
    Matching { filter: JobFilter, after: i64 },
}

impl Changes<'_> {
    /// Changes the next jobs; `None` when all are done. What was changed is returned before anything else can fail. After an error
    /// the rest stays as it is.
    pub async fn next(&mut self) -> Result<Option<ChangedBatch>, QueueError> {
        if self.is_over {
            return Ok(None);
        }
        let step = self.step().await;
        self.is_over = !matches!(step, Ok(Some(_)));
        step
    }

    async fn step(&mut self) -> Result<Option<ChangedBatch>, QueueError> {
        loop {
            if let Some(error) = self.ended.take() {
                return Err(error);
            }
            if !self.unexplained.is_empty() {
                return self.explain().await.map(Some);
            }
            if let Some(batch) = self.batches.pop_front() {
                return self.change(&batch).await.map(Some);
            }
            match &self.search {
                Search::Ids { ids, asked, .. } if *asked == ids.len() => return Ok(self.missing()),
                Search::Ids { .. } => self.find_ids().await?,
                Search::Matching { .. } => {
                    if !self.find_matching().await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    async fn change(&mut self, ids: &[i64]) -> Result<ChangedBatch, QueueError> {
        let Applied { changed, refused, ended } = self.action.apply_around(self.session, ids).await?;
        if ended.is_none() {
            let done: HashSet<i64> =
                changed.iter().map(|job| job.id).chain(refused.iter().map(|(id, _)| *id)).collect();
            self.unexplained = ids.iter().copied().filter(|id| !done.contains(id)).collect();
        }
        self.ended = ended;
        let left = refused.into_iter().map(|(id, error)| (id, Left::Refused(error.reason()))).collect();
        Ok(ChangedBatch { changed, left })
    }

    async fn explain(&mut self) -> Result<ChangedBatch, QueueError> {
        let left = std::mem::take(&mut self.unexplained);
        let found = self.session.list_jobs(&JobFilter::ids(&left), JobOrder::Oldest, left.len()).await?;
        let reason = |id| found.iter().find(|job| job.id == id).map_or(Left::Gone, |job| self.action.reason(job));
        let left = left.into_iter().map(|id| (id, reason(id))).collect();
        Ok(ChangedBatch { changed: Vec::new(), left })
    }

    /// Looks up the next ids.
    async fn find_ids(&mut self) -> Result<(), QueueError> {
        let Search::Ids { ids, asked, seen } = &mut self.search else { return Ok(()) };
        let next = &ids[*asked..ids.len().min(*asked + BATCH)];
        *asked += next.len();
        let found = self.session.find_jobs(&JobFilter::ids(next), i64::MIN, self.last, WINDOW).await?;
        // Each job once, although its id may be given twice.
        let found: Vec<FoundJob> = found.into_iter().filter(|job| seen.insert(job.id)).collect();
        self.batches.extend(batches(&found));
        Ok(())
    }

    /// The ids that were not found, once.
    fn missing(&mut self) -> Option<ChangedBatch> {
        let Search::Ids { ids, asked, seen } = &mut self.search else { return None };
        *asked = 0;
        let missing = std::mem::take(ids).into_iter().filter(|id| seen.insert(*id));
        let left: Vec<(i64, Left)> = missing.map(|id| (id, Left::Gone)).collect();
        (!left.is_empty()).then(|| ChangedBatch { changed: Vec::new(), left })
    }

    /// Searches the next window; `false` if there is none.
    async fn find_matching(&mut self) -> Result<bool, QueueError> {
        let Search::Matching { filter, after } = &mut self.search else { return Ok(false) };
        let Some(end) = self.session.end_of_window(*after, self.last, WINDOW).await? else { return Ok(false) };
        let found = self.session.find_jobs(filter, *after, end, WINDOW).await?;
        *after = end;
        self.batches.extend(batches(&found));
        Ok(true)
    }
}

/// The ids, in parts whose jobs do not fill the memory.
fn batches(found: &[FoundJob]) -> Vec<Vec<i64>> {
    let mut batches: Vec<Vec<i64>> = Vec::new();
    let mut bytes = 0;
    for job in found {
        let size = usize::try_from(job.bytes).unwrap_or_default();
        match batches.last_mut().filter(|batch| batch.len() < BATCH && bytes + size <= BATCH_BYTES) {
            Some(batch) => batch.push(job.id),
            None => {
                batches.push(vec![job.id]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_by_their_text_and_hold_at_least_one_job() {
        let job = |(id, bytes): (i64, i32)| FoundJob { id, bytes };
        let large = i32::try_from(BATCH_BYTES).unwrap();
        let found: Vec<FoundJob> = [(1, 5), (2, large - 5), (3, 1), (4, large + 1), (5, 0)].map(job).into();
        assert_eq!(batches(&found), [vec![1, 2], vec![3], vec![4], vec![5]]);
        assert!(batches(&[]).is_empty());
    }
}
