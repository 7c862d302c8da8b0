//! Stores the jobs that tasks add while they run.

use std::{borrow::Cow, future::Future, pin::Pin, time::SystemTime};

use crate::{
    config::{Clock, TimeSource, WorkerSettings},
    plugin::AddJob,
    queue::{AddedJob, Database, NewJob, QueueError},
};

/// Adds jobs by the clock of a host: by the process's, a job for which no time was asked for is due at that clock's moment.
#[derive(Debug, Clone)]
pub struct JobAdder {
    database: Database,
    /// `None`: the database's own clock.
    clock: Option<TimeSource>,
}

impl JobAdder {
    pub fn new(database: Database, settings: &WorkerSettings) -> Self {
        Self { database, clock: (settings.clock == Clock::Process).then(|| settings.time.clone()) }
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// As [`Database::add_job`].
    pub async fn add_job(&self, new: &NewJob) -> Result<AddedJob, QueueError> {
        match self.now() {
            Some(now) => self.database.add_job(&due(new, now)).await,
            None => self.database.add_job(new).await,
        }
    }

    /// As [`Database::add_jobs`].
    pub async fn add_jobs(&self, new: &[NewJob]) -> Result<Vec<AddedJob>, QueueError> {
        match self.now() {
            Some(now) => {
                let new: Vec<NewJob> = new.iter().map(|job| due(job, now).into_owned()).collect();
                self.database.add_jobs(&new).await
            }
            None => self.database.add_jobs(new).await,
        }
    }

    fn now(&self) -> Option<SystemTime> {
        self.clock.as_ref().map(TimeSource::now)
    }
}

fn due(new: &NewJob, now: SystemTime) -> Cow<'_, NewJob> {
    if new.run_at.is_some() { Cow::Borrowed(new) } else { Cow::Owned(new.clone().run_at(now)) }
}

/// Adds jobs on behalf of plugins, each request in its own statement.
#[derive(Debug)]
pub struct PluginJobs {
    jobs: JobAdder,
}

impl PluginJobs {
    pub fn new(jobs: JobAdder) -> Self {
        Self { jobs }
    }
}

impl AddJob for PluginJobs {
    fn add_job(&self, spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>> {
        Box::pin(async move {
            let job = NewJob::from_spec(&spec).map_err(|error| error.to_string())?;
            let added = self.jobs.add_job(&job).await.map_err(|error| error.to_string())?;
            Ok(added.id)
        })
    }

    fn add_jobs(&self, specs: String) -> Pin<Box<dyn Future<Output = Result<Vec<i64>, String>> + Send + '_>> {
        Box::pin(async move {
            let jobs = NewJob::from_specs(&specs).map_err(|error| error.to_string())?;
            let added = self.jobs.add_jobs(&jobs).await.map_err(|error| error.to_string())?;
            Ok(added.iter().map(|job| job.id).collect())
        })
    }
}
