//! Stores verdicts: whatever has come in since the last statement goes into the next, and is tried until it is stored.

use std::sync::{Arc, atomic::Ordering};

use tokio::{sync::mpsc, task::JoinHandle};
use tracing::Level;

use super::{
    backoff::Backoff,
    execution::{Verdict, VerdictKind},
    pool::{Mode, Pool},
};
use crate::{
    events::{Event, Events},
    queue::{CompletedJob, FailedJob, QueueError, ReturnedJob, Session},
};

/// The most verdicts in one statement.
const LARGEST_BATCH: usize = 1_000;

/// Where executions leave their verdicts. The completer ends when the last of these is dropped and all is stored.
#[derive(Debug, Clone)]
pub(super) struct Completions {
    verdicts: mpsc::Sender<Verdict>,
}

impl Completions {
    /// Hands a verdict over; waits while the database is that far behind.
    pub(super) async fn store(&self, verdict: Verdict) {
        // The receiver is gone only after the host gave up storing at its second stop signal, which was said then.
        let _ = self.verdicts.send(verdict).await;
    }
}

/// The one who stores.
#[derive(Debug)]
pub(super) struct Completer {
    pool: Arc<Pool>,
    verdicts: mpsc::Receiver<Verdict>,
    session: Option<Session>,
    backoff: Backoff,
}

/// One round of verdicts, as the statements take them.
#[derive(Debug, Default)]
struct Batch {
    completed: Vec<CompletedJob>,
    failed: Vec<FailedJob>,
    returned: Vec<ReturnedJob>,
    frees_a_queue: bool,
}

impl Completer {
    pub(super) fn start(pool: Arc<Pool>) -> (Completions, JoinHandle<()>) {
        // A slot is held until its verdict is in here, so that outcomes cannot pile up while the database is away.
        let (sender, verdicts) = mpsc::channel(pool.settings.concurrency.max(LARGEST_BATCH));
        let backoff = Backoff::new("store the results of jobs", pool.events.clone());
        let completer = Self { pool, verdicts, session: None, backoff };
        (Completions { verdicts: sender }, tokio::spawn(completer.run()))
    }

    async fn run(mut self) {
        let mut verdicts = Vec::new();
        while self.verdicts.recv_many(&mut verdicts, LARGEST_BATCH).await > 0 {
            let batch = Batch::of(&mut verdicts);
            while let Err(error) = self.store(&batch).await {
                self.session = None;
                self.backoff.wait(&error).await;
            }
            self.backoff.succeeded();
            self.settle(&mut verdicts, &batch);
        }
    }

    /// The three statements are independent of each other and sent together. Each may be repeated: it changes only what
    /// this pool still holds.
    async fn store(&mut self, batch: &Batch) -> Result<(), QueueError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.pool.database.session().await?,
        };
        let owner = &self.pool.owner;
        let (completed, failed, returned) = tokio::join!(
            async {
                if batch.completed.is_empty() {
                    Ok(())
                } else {
                    session.complete_jobs(owner, &batch.completed).await.map(drop)
                }
            },
            async {
                if batch.failed.is_empty() { Ok(()) } else { session.fail_jobs(owner, &batch.failed).await.map(drop) }
            },
            async {
                if batch.returned.is_empty() {
                    Ok(())
                } else {
                    session.return_jobs(owner, &batch.returned).await.map(drop)
                }
            },
        );
        completed?;
        failed?;
        returned?;
        self.session = Some(session);
        Ok(())
    }

    /// Announces what is now stored, and wakes the fetcher where that made a job runnable.
    fn settle(&self, verdicts: &mut Vec<Verdict>, batch: &Batch) {
        self.pool.unsettled.fetch_sub(verdicts.len(), Ordering::AcqRel);
        if batch.frees_a_queue || self.pool.mode == Mode::Once {
            self.pool.nudge.notify_one();
        }
        for verdict in verdicts.drain(..) {
            announce(verdict, &self.pool.events);
        }
    }
}

/// Says how a job ended.
fn announce(Verdict { run: job, took, kind, .. }: Verdict, events: &Events) {
    // Nothing is copied for events that nobody hears.
    let again = events.is_heard(Level::TRACE).then(|| job.clone());
    let error = match kind {
        VerdictKind::Complete => {
            events.emit(Event::JobDone { job, took });
            None
        }
        VerdictKind::Fail { message, permanent, .. } => {
            let retry = !permanent && job.attempt < job.max_attempts;
            let error = again.is_some().then(|| message.clone());
            events.emit(Event::JobFailed { job, message, retry, took });
            if let (false, Some(job), Some(message)) = (retry, &again, &error) {
                events.emit(Event::JobFailedForGood { job: job.clone(), message: message.clone() });
            }
            error
        }
        VerdictKind::Return { reason } => {
            return events.emit(Event::JobReturned { id: job.id, task: job.task, reason });
        }
    };
    if let Some(job) = again {
        events.emit(Event::JobCompleted { job, error });
    }
}

impl Batch {
    fn of(verdicts: &mut [Verdict]) -> Self {
        let mut batch = Self::default();
        for verdict in verdicts {
            let (id, job_queue_id) = (verdict.run.id, verdict.job_queue_id);
            batch.frees_a_queue |= job_queue_id.is_some();
            match &verdict.kind {
                VerdictKind::Complete => batch.completed.push(CompletedJob { id, job_queue_id }),
                VerdictKind::Fail { message, permanent, payload } => batch.failed.push(FailedJob {
                    id,
                    job_queue_id,
                    message: message.clone(),
                    permanent: *permanent,
                    payload: payload.clone(),
                }),
                VerdictKind::Return { .. } => batch.returned.push(ReturnedJob { id, job_queue_id }),
            }
        }
        batch
    }
}
