//! The mechanism of stages: started in order, stopped in reverse.

use std::{pin::Pin, time::Duration};

use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::HostError;
use crate::parts::{Part, Parts};

/// How long the run of a stage may take to end after the signal to stop. A run that takes longer is left behind.
const RUN_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// An essential part of the host that runs beside the pool.
pub(super) trait Stage: Sized + Send + 'static {
    /// The name in errors, in the log and for the watchdog.
    const NAME: &'static str;
    /// The remainder of the run, which the stop ends.
    type Rest: Send;

    /// The part of the host that the run is.
    fn part(&self, parts: &Parts) -> Part {
        parts.part(Self::NAME)
    }

    /// Works until `stop` fires. A run that ends before the host stops ends the host.
    fn run(self, stop: CancellationToken) -> impl Future<Output = Self::Rest> + Send;

    /// Ends the rest within limits of its own. An error becomes the error of the host.
    fn stop(_: Self::Rest) -> impl Future<Output = Result<(), HostError>> + Send {
        async { Ok(()) }
    }
}

/// The started stages. Dropping them ends their runs and drops their rests, without a stop.
pub(super) struct Stages {
    parts: Parts,
    /// Fires when stages may end.
    over: CancellationToken,
    started: Vec<Started>,
}

struct Started {
    name: &'static str,
    running: DropGuard,
    stopped: Pin<Box<dyn Future<Output = Result<(), HostError>> + Send>>,
}

impl Stages {
    /// No stages yet. From `stopping` on, stages may end.
    pub(super) fn new(parts: Parts, stopping: &CancellationToken) -> Self {
        Self { parts, over: stopping.child_token(), started: Vec::new() }
    }

    /// Starts a stage after those that it needs.
    pub(super) fn start<S: Stage>(&mut self, stage: S) {
        let (part, stop) = (stage.part(&self.parts), CancellationToken::new());
        let run = part.spawn(self.over.clone(), stage.run(stop.clone()));
        let stopped = async move {
            match timeout(RUN_ENDS_WITHIN, run).await {
                Ok(Ok(rest)) => S::stop(rest).await,
                // A panic is the failure of a part, which the host reports.
                Ok(Err(_)) | Err(_) => Ok(()),
            }
        };
        tracing::trace!(event = "stage_started", stage = S::NAME, "the {} started", S::NAME);
        self.started.push(Started { name: S::NAME, running: stop.drop_guard(), stopped: Box::pin(stopped) });
    }

    /// Stops the stages, the last one first. Of several errors, the first one counts.
    pub(super) async fn stop(mut self) -> Result<(), HostError> {
        self.over.cancel();
        let mut ended = Ok(());
        while let Some(Started { name, running, stopped }) = self.started.pop() {
            tracing::trace!(event = "stage_stopping", stage = name, "the {name} stops");
            drop(running);
            ended = ended.and(stopped.await);
        }
        ended
    }
}

impl std::fmt::Debug for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.started.iter().map(|stage| stage.name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::parts::PartFailure;

    type Log = mpsc::UnboundedSender<String>;

    /// Notes what becomes of it.
    struct Noted<const NUMBER: u8>(Log);

    impl<const NUMBER: u8> Stage for Noted<NUMBER> {
        const NAME: &'static str = "noted";
        type Rest = Log;

        async fn run(self, stop: CancellationToken) -> Log {
            let _ = self.0.send(format!("start {NUMBER}"));
            stop.cancelled().await;
            let _ = self.0.send(format!("end {NUMBER}"));
            self.0
        }

        async fn stop(log: Log) -> Result<(), HostError> {
            // The stages before it would have ended by then, had they been told.
            tokio::task::yield_now().await;
            let _ = log.send(format!("stop {NUMBER}"));
            if NUMBER == 2 { Ok(()) } else { Err(HostError::Tasks(NUMBER.to_string())) }
        }
    }

    /// Ends at once.
    struct Short;

    impl Stage for Short {
        const NAME: &'static str = "short stage";
        type Rest = ();

        async fn run(self, _: CancellationToken) {}
    }

    async fn three(parts: &Parts) -> (Stages, mpsc::UnboundedReceiver<String>) {
        let (log, mut noted) = mpsc::unbounded_channel();
        let mut stages = Stages::new(parts.clone(), &CancellationToken::new());
        stages.start(Noted::<1>(log.clone()));
        assert_eq!(noted.recv().await.as_deref(), Some("start 1"));
        stages.start(Noted::<2>(log.clone()));
        assert_eq!(noted.recv().await.as_deref(), Some("start 2"));
        stages.start(Noted::<3>(log));
        assert_eq!(noted.recv().await.as_deref(), Some("start 3"));
        (stages, noted)
    }

    async fn rest(mut noted: mpsc::UnboundedReceiver<String>) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(one) = noted.recv().await {
            all.push(one);
        }
        all
    }

    #[tokio::test]
    async fn stages_stop_one_by_one_in_reverse_and_the_first_error_counts() {
        let parts = Parts::default();
        let (stages, noted) = three(&parts).await;
        let error = stages.stop().await.expect_err("two stages have failed");
        assert_eq!(rest(noted).await, ["end 3", "stop 3", "end 2", "stop 2", "end 1", "stop 1"]);
        assert!(matches!(error, HostError::Tasks(which) if which == "3"));
        assert_eq!(parts.failure(), None);
    }

    #[tokio::test]
    async fn a_stage_that_has_not_run_yet_stops_as_well() {
        let (log, noted) = mpsc::unbounded_channel();
        let parts = Parts::default();
        let mut stages = Stages::new(parts.clone(), &CancellationToken::new());
        stages.start(Noted::<2>(log));
        stages.stop().await.expect("it has no error");
        assert_eq!(rest(noted).await, ["start 2", "end 2", "stop 2"]);
        assert_eq!(parts.failure(), None);
    }

    #[tokio::test]
    async fn dropped_stages_end_and_do_not_stop() {
        let (stages, noted) = three(&Parts::default()).await;
        drop(stages);
        let mut ended = rest(noted).await;
        ended.sort();
        assert_eq!(ended, ["end 1", "end 2", "end 3"]);
    }

    #[tokio::test]
    async fn a_stage_that_ends_by_itself_is_the_failure_of_its_host() {
        let parts = Parts::default();
        let mut stages = Stages::new(parts.clone(), &CancellationToken::new());
        stages.start(Short);
        let failure = parts.failed().await;
        assert_eq!(failure, PartFailure { part: "short stage", panic: None, location: None });
        assert_eq!(failure.to_string(), "the short stage ended although the host was not stopping");
    }

    #[tokio::test]
    async fn a_stage_may_end_by_itself_once_the_host_stops() {
        let (parts, stopping) = (Parts::default(), CancellationToken::new());
        stopping.cancel();
        let mut stages = Stages::new(parts.clone(), &stopping);
        stages.start(Short);
        stages.stop().await.expect("no stage has failed");
        assert_eq!(parts.failure(), None);
    }
}
