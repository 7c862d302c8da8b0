//! A list of jobs, read one by one.

use crate::queue::{JobFilter, JobOrder, JobStream, QueueError, Session, StoredJob};

/// Jobs as they are read, up to a limit.
#[derive(Debug)]
pub struct Listing<'a> {
    stream: JobStream<'a>,
    limit: Option<usize>,
    /// With the job beyond the limit, if it was read.
    read: usize,
}

impl<'a> Listing<'a> {
    pub(super) async fn open(
        session: &'a Session,
        filter: &JobFilter,
        order: JobOrder,
        limit: Option<usize>,
    ) -> Result<Self, QueueError> {
        // One job beyond the limit tells whether there are more.
        let stream = session.stream_jobs(filter, order, limit.map(|limit| limit.saturating_add(1))).await?;
        Ok(Self { stream, limit, read: 0 })
    }

    /// The next job, or `None` after the last one within the limit.
    pub async fn next(&mut self) -> Result<Option<StoredJob>, QueueError> {
        let job = self.stream.next().await?;
        self.read += usize::from(job.is_some());
        Ok(job.filter(|_| !self.has_more()))
    }

    /// Whether any job was read.
    pub fn is_empty(&self) -> bool {
        self.read == 0
    }

    /// Whether there are more jobs than the limit. Known once [`Listing::next`] has returned `None`.
    pub fn has_more(&self) -> bool {
        self.limit.is_some_and(|limit| self.read > limit)
    }
}
