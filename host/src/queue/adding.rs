//! The ways to add jobs: through the pool of connections, or on a connection or in a transaction of the caller's own.

use tokio_postgres::GenericClient;

use super::{AddedJob, Database, Job, NewJob, QueueError, Session, add_statements::Within};

/// Adds a job, or changes the one under its key, on a connection or in a transaction of the caller's own: nobody sees the
/// job before the transaction is committed, and if it is rolled back, there is no job.
///
/// Whatever the database would refuse is refused before it is asked, so that the transaction goes on.
///
/// ```no_run
/// use taskbay::queue::{self, NewJob};
///
/// # async fn example(client: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let transaction = client.transaction().await?;
/// transaction.execute("insert into accounts (name) values ($1)", &[&"ada"]).await?;
/// let welcome = NewJob::with_payload("send_welcome", &serde_json::json!({"name": "ada"}))?;
/// queue::add_job(&transaction, "graphile_worker", &welcome).await?;
/// transaction.commit().await?;
/// # Ok(())
/// # }
/// ```
pub async fn add_job<C: GenericClient + Sync>(client: &C, schema: &str, new: &NewJob) -> Result<AddedJob, QueueError> {
    super::add_job::run(&Within { client, schema }, new).await
}

/// Adds many jobs with one statement, on a connection or in a transaction of the caller's own, and returns them in the order
/// of `new`. See [`Database::add_jobs`].
pub async fn add_jobs<C: GenericClient + Sync>(
    client: &C,
    schema: &str,
    new: &[NewJob],
) -> Result<Vec<AddedJob>, QueueError> {
    super::add_jobs::run(&Within { client, schema }, new).await
}

/// As [`add_jobs`], for those who do not need the rows. See [`Database::add_jobs_unread`].
pub async fn add_jobs_unread<C: GenericClient + Sync>(
    client: &C,
    schema: &str,
    new: &[NewJob],
) -> Result<u64, QueueError> {
    super::add_jobs::run_unread(&Within { client, schema }, new).await
}

impl Database {
    /// Adds a job, or changes the one under its key, and returns it as it is stored.
    pub async fn add_job(&self, new: &NewJob) -> Result<AddedJob, QueueError> {
        super::add_job::run(&self.session().await?, new).await
    }

    /// Adds many jobs with one statement: all of them or, on an error, none. Returns them in the order of `new`; a hundred
    /// thousand at once are fine.
    ///
    /// Two jobs of one call may not have the same key. Where a worker takes the job under a key in the very moment in which
    /// it is about to be changed, that job is added again by itself.
    pub async fn add_jobs(&self, new: &[NewJob]) -> Result<Vec<AddedJob>, QueueError> {
        super::add_jobs::run(&self.session().await?, new).await
    }

    /// As [`Database::add_jobs`], for those who do not need the rows: returns how many there are. With a hundred thousand
    /// jobs this is the faster way, because the rows do not travel.
    pub async fn add_jobs_unread(&self, new: &[NewJob]) -> Result<u64, QueueError> {
        super::add_jobs::run_unread(&self.session().await?, new).await
    }
}

impl Session {
    /// Adds a job, or changes the one under its key, and returns it as it is stored.
    pub async fn add_job(&self, new: &NewJob) -> Result<Job, QueueError> {
        super::add_job::run(self, new).await.map(|added| added.job)
    }

    /// As [`Database::add_jobs`].
    pub async fn add_jobs(&self, new: &[NewJob]) -> Result<Vec<Job>, QueueError> {
        let added = super::add_jobs::run(self, new).await?;
        Ok(added.into_iter().map(|added| added.job).collect())
    }
}
