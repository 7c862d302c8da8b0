//! The runner for jobs that were running when their process crashed. Each is retried in a process of its own: a crash then
//! affects no other job, and identifies the job that causes it.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{
    Accepted, FailureKind, HostServices, Image, JobInput, LaunchError, Outcome, PluginSettings, StopSignal,
    connection::{Connection, Start},
    execution::{Execution, Line},
    process::{Process, SHUTDOWN_LIMIT},
};
use crate::{events::PluginBuild, sync::TaskTrackerToken};

/// The maximum number of such processes of a build at once. Other jobs wait.
const ROOM: usize = 8;

/// Starts a process for each job.
#[derive(Debug)]
pub(super) struct Alone {
    build: PluginBuild,
    image: Arc<Image>,
    settings: PluginSettings,
    services: HostServices,
    room: Arc<Semaphore>,
}

impl Alone {
    pub(super) fn new(image: Arc<Image>, settings: &PluginSettings, services: &HostServices) -> Self {
        Self {
            build: PluginBuild { plugin: image.plugin.clone(), build: image.build },
            image,
            settings: settings.clone(),
            services: services.clone(),
            room: Arc::new(Semaphore::new(ROOM)),
        }
    }

    pub(super) fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Starts a process, runs the job in it with `execution`, and ends the process in the background, holding `running` until
    /// then. `stops` cancel the wait for a turn and for the process.
    pub(super) async fn run<'a>(
        &self,
        (task, job, limit): (u32, &JobInput<'_>, Option<Duration>),
        accepted: Accepted<'_>,
        execution: impl FnOnce(super::calls::Call, Line<'a>) -> Execution<'a>,
        stops: [&StopSignal; 3],
        running: TaskTrackerToken,
    ) -> Outcome {
        let [first, second, third] = stops;
        let started = tokio::select! {
            started = self.start() => started,
            () = first.cancelled() => return Outcome::NotStarted,
            () = second.cancelled() => return Outcome::NotStarted,
            () = third.cancelled() => return Outcome::NotStarted,
        };
        let failed = |message| Outcome::Failed { kind: FailureKind::Error, message };
        let (mut process, room) = match started {
            Ok(started) => started,
            Err(error) => {
                return failed(format!(
                    "it was to be tried again in a process of its own, which did not start: {error}"
                ));
            }
        };
        let connection = Arc::clone(&process.connection);
        let call = match connection.start(task, job, limit, accepted) {
            Ok(Start::Begun(call)) => call,
            // The connection is new, so it cannot be full.
            Ok(Start::Gone | Start::Full) => return failed("its process ended before the job could begin".to_owned()),
            Err(message) => return failed(message),
        };
        let outcome = {
            let mut outcome = std::pin::pin!(execution(call, Line::Child(Arc::clone(&connection))).outcome());
            tokio::select! {
                biased;
                outcome = &mut outcome => outcome,
                ending = process.ended() => {
                    connection.fail_calls(&ending.under_a_job(&self.build));
                    outcome.await
                }
            }
        };
        self.services.events.parts().spawn("end of a job's own process", async move {
            end(&mut process, &connection).await;
            drop((room, running));
        });
        outcome
    }

    async fn start(&self) -> Result<(Process, tokio::sync::OwnedSemaphorePermit), LaunchError> {
        let room = Arc::clone(&self.room).acquire_owned().await.expect("nobody closes it");
        let (process, _) = Process::start(&self.image, &self.settings, &self.services).await?;
        Ok((process, room))
    }
}

/// A terminated process cannot be asked to shut down.
async fn end(process: &mut Process, connection: &Connection) {
    match connection.verdict() {
        Some(_) => process.kill().await,
        None => process.shut_down(SHUTDOWN_LIMIT).await,
    }
}
