//! Stores the jobs that plugins add.

use std::{future::Future, pin::Pin};

use crate::{
    plugin::AddJob,
    queue::{Database, NewJob},
};

/// Adds jobs on behalf of plugins, each request in its own statement.
#[derive(Debug)]
pub struct PluginJobs {
    database: Database,
}

impl PluginJobs {
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

impl AddJob for PluginJobs {
    fn add_job(&self, spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>> {
        Box::pin(async move {
            let job = NewJob::from_spec(&spec).map_err(|error| error.to_string())?;
            let session = self.database.session().await.map_err(|error| error.to_string())?;
            let job = session.add_job(&job).await.map_err(|error| error.to_string())?;
            Ok(job.id)
        })
    }

    fn add_jobs(&self, specs: String) -> Pin<Box<dyn Future<Output = Result<Vec<i64>, String>> + Send + '_>> {
        Box::pin(async move {
            let jobs = NewJob::from_specs(&specs).map_err(|error| error.to_string())?;
            let session = self.database.session().await.map_err(|error| error.to_string())?;
            let added = session.add_jobs(&jobs).await.map_err(|error| error.to_string())?;
            Ok(added.iter().map(|job| job.id).collect())
        })
    }
}
