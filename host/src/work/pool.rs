//! The pool: what fetching, running and completing share, and the order in which they start and stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::Rng;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Level;

use super::{completion::Completer, fetcher::Fetcher, locks::look_after_locks};
use crate::{
    config::WorkerSettings,
    events::{Event, Events},
    plugin::Cancel,
    queue::{Database, Notification},
    tasks::LiveTaskMap,
};

/// On the second stop signal, how long verdicts that the database does not take are tried again.
const LAST_TRIES: Duration = Duration::from_secs(5);

/// When a pool ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Never.
    Continuous,
    /// When no job is left that can run now.
    Once,
}

/// The two stop signals.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Claim no more, let running jobs finish.
    pub graceful: CancellationToken,
    /// Cancel what still runs.
    pub now: CancellationToken,
}

/// Works jobs under one owner id.
#[derive(Debug)]
pub struct Pool {
    /// What `locked_by` says.
    pub(super) owner: String,
    /// The same, to be shared with each job's events.
    pub(super) id: Arc<str>,
    pub(super) mode: Mode,
    pub(super) settings: WorkerSettings,
    pub(super) database: Database,
    pub(super) tasks: Arc<LiveTaskMap>,
    pub(super) events: Events,
    /// Wakes the fetcher: there may be jobs that it has not seen.
    pub(super) nudge: Notify,
    /// One permit for each job that may run.
    pub(super) slots: Arc<Semaphore>,
    /// Jobs that were claimed and whose verdict is not stored yet.
    pub(super) unsettled: AtomicUsize,
    /// Tells running jobs to end.
    pub(super) cancel: Cancel,
    pub(super) stop: Stop,
}

impl Pool {
    /// A pool with an owner id of its own: `taskbay-` and 18 hex digits, never seen before.
    pub fn new(
        settings: WorkerSettings,
        mode: Mode,
        database: Database,
        tasks: Arc<LiveTaskMap>,
        events: Events,
        stop: Stop,
    ) -> Arc<Self> {
        let random: [u8; 9] = rand::rng().random();
        let owner = random.iter().fold(String::from("taskbay-"), |id, byte| format!("{id}{byte:02x}"));
        let id: Arc<str> = Arc::from(owner.as_str());
        events.emit_if_heard(Level::TRACE, || Event::PoolCreated { pool: Arc::clone(&id) });
        Arc::new(Self {
            owner,
            id,
            mode,
            slots: Arc::new(Semaphore::new(settings.concurrency)),
            settings,
            database,
            tasks,
            events,
            nudge: Notify::new(),
            unsettled: AtomicUsize::new(0),
            cancel: Cancel::default(),
            stop,
        })
    }

    /// What `locked_by` says of the jobs that it holds.
    pub fn id(&self) -> Arc<str> {
        Arc::clone(&self.id)
    }

    /// The same, borrowed.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Looks for jobs now.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Works jobs until told to stop, or in [`Mode::Once`] until none is left. When it returns, every job that it claimed
    /// has been completed, failed or given back in the database.
    pub async fn run(self: Arc<Self>, mut notifications: mpsc::Receiver<Notification>) {
        let (completions, completer) = Completer::start(Arc::clone(&self));
        let executions = TaskTracker::new();
        let settled = CancellationToken::new();
        let locks = tokio::spawn(look_after_locks(Arc::clone(&self), settled.clone()));

        self.events.emit(Event::WorkerReady { owner: self.owner.clone(), concurrency: self.settings.concurrency });
        {
            let fetcher = Fetcher::new(Arc::clone(&self), completions.clone(), executions.clone());
            let listening = async {
                while let Some(notification) = notifications.recv().await {
                    self.heard(&notification);
                }
                std::future::pending().await
            };
            // Dropping `listening` loses nothing but nudges that nobody needs any more.
            tokio::select! {
                () = fetcher.run() => {}
                () = listening => {}
            }
        }

        self.events.emit_if_heard(Level::TRACE, || Event::WorkerStopped { worker: self.id() });
        executions.close();
        drop(completions);
        if self.mode == Mode::Continuous {
            self.events.emit(Event::Stopping { running: executions.len(), forceful: false });
        }
        self.wait_for_running(&executions).await;
        self.wait_for_completer(completer).await;
        settled.cancel();
        let _ = locks.await;
        self.say_that_it_ended();
    }

    fn say_that_it_ended(&self) {
        if !self.events.is_heard(Level::TRACE) {
            return;
        }
        self.events.emit(Event::WorkerReleased { worker: self.id() });
        if self.mode == Mode::Continuous {
            self.events.emit(Event::StopCompleted { pool: self.id(), forceful: self.stop.now.is_cancelled() });
        }
        self.events.emit(Event::PoolReleased { pool: self.id() });
    }

    fn heard(&self, notification: &Notification) {
        match notification {
            Notification::JobsAdded(count) if *count == 0 => {}
            // Jobs may have been added while nobody listened.
            Notification::JobsAdded(_) | Notification::Connected => self.nudge.notify_one(),
            // Whether that concerns this program is judged before it comes here.
            Notification::Migrated { .. } => {}
        }
    }

    /// Running jobs go on for as long as they need; after a while they are asked to end, and at the second signal made to.
    async fn wait_for_running(&self, executions: &TaskTracker) {
        let escalate = async {
            tokio::select! {
                () = tokio::time::sleep(self.settings.abort_timeout) => self.cancel.ask.cancel(),
                () = self.stop.now.cancelled() => {}
            }
            self.stop.now.cancelled().await;
            self.events.emit(Event::Stopping { running: executions.len(), forceful: true });
            self.cancel.force.cancel();
            std::future::pending().await
        };
        tokio::select! {
            () = executions.wait() => {}
            () = escalate => {}
        }
    }

    async fn wait_for_completer(&self, mut completer: tokio::task::JoinHandle<()>) {
        let out_of_patience = async {
            self.stop.now.cancelled().await;
            tokio::time::sleep(LAST_TRIES).await;
        };
        tokio::select! {
            _ended = &mut completer => {}
            () = out_of_patience => {
                completer.abort();
                self.events.emit(Event::VerdictsLost { jobs: self.unsettled.load(Ordering::Relaxed), owner: self.owner.clone() });
            }
        }
    }
}
