//! Runs a plugin: its private runtime, its state and its calls, from start-up to shutdown.
//!
//! Does not know the binary interface, which is in [`ffi`](crate::ffi).

use std::{
    any::Any,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::Poll,
    time::{Duration, Instant},
};

use taskbay_abi::{INIT_CALL, LEVEL_ERROR};
use tokio::runtime::{self, Handle, Runtime};

use crate::{
    Setup, TaskError,
    calls::{Calls, Refused},
    current::{Current, Guarded, TaskFuture, guard},
    host_link::{self, Ended, HostLink, Line},
    job::{Call, Job, Stop},
    logging, panics,
    run_queue::{RunQueue, Worker},
    runs::{run_async, run_blocking},
    watch::{SPARE_THREADS, Watch, Watched},
};

/// A plugin's state; only the plugin's own code knows its type.
pub(crate) type AnyState = Arc<dyn Any + Send + Sync>;

/// The result of a plugin's state function.
pub struct Built {
    pub state: AnyState,
    pub teardown: Teardown,
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Built")
    }
}

/// A future that never changes threads.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Tears down a plugin's state.
pub(crate) type Teardown = Box<dyn FnOnce() -> LocalFuture<Result<(), TaskError>> + Send>;

/// A plugin as declared by `plugin!`.
#[derive(Debug)]
pub struct Definition {
    pub name: &'static str,
    pub tasks: &'static [&'static str],
    pub runs: &'static [fn(JobCall) -> Work],
    pub build: fn(Setup) -> LocalFuture<Result<Built, TaskError>>,
    pub worker_threads: usize,
}

/// The inputs of a task's run.
#[derive(Debug)]
pub struct JobCall {
    pub(crate) call: Arc<Call>,
    pub(crate) state: AnyState,
}

/// A task ready to run.
pub enum Work {
    Async(TaskFuture),
    Blocking(Box<dyn FnOnce() -> Result<(), TaskError> + Send>),
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Async(_)) { "Async" } else { "Blocking" })
    }
}

/// A plugin's one instance in this process; lives in a `static`.
#[derive(Debug)]
pub struct Dispatcher {
    definition: Definition,
    running: OnceLock<Running>,
}

#[derive(Debug)]
struct Running {
    definition: &'static Definition,
    link: Arc<dyn HostLink>,
    calls: Calls,
    run_queue: RunQueue<Waiting>,
    built: Mutex<Option<Built>>,
    handle: Handle,
    runtime: Mutex<Option<Runtime>>,
    threads: Arc<AtomicUsize>,
    watch: Watch,
}

/// A job that has not started.
struct Waiting {
    task: usize,
    call: Arc<Call>,
    report: Report,
}

impl Dispatcher {
    pub const fn new(definition: Definition) -> Self {
        Self { definition, running: OnceLock::new() }
    }

    /// Starts the plugin and returns; the result is reported for [`INIT_CALL`].
    pub(crate) fn init(&'static self, link: &Arc<dyn HostLink>, settings: String) {
        host_link::remember(link);
        panics::install_hook();
        logging::install(link);
        let running = match Running::new(&self.definition, Arc::clone(link)) {
            Ok(running) => running,
            Err(error) => {
                let reason = TaskError::new(format!("cannot start the plugin's threads: {error}"));
                return link.finish(INIT_CALL, &Ended::Failed(reason));
            }
        };
        if self.running.set(running).is_err() {
            return link.finish(INIT_CALL, &Ended::Failed(TaskError::new("the plugin has been started before")));
        }
        let setup = Setup { plugin: self.definition.name, settings };
        if let Some(running) = self.running.get() {
            running.start_up(setup);
        }
    }

    /// The host that started the plugin.
    pub(crate) fn link(&self) -> Option<&Arc<dyn HostLink>> {
        self.running.get().map(|running| &running.link)
    }

    /// Starts a job and returns. On success, the job's end is reported to the host later.
    pub(crate) fn start(&'static self, task: u32, job: Job, number: u64) -> Result<(), TaskError> {
        let running = self.running.get().ok_or_else(|| TaskError::new("the plugin has not been started"))?;
        running.start(task as usize, job, number);
        Ok(())
    }

    pub(crate) fn cancel(&self, number: u64, stop: Stop) {
        if let Some(running) = self.running.get() {
            running.calls.stop(number, stop);
        }
    }

    /// Shuts the plugin down; `true` if all its threads have ended.
    pub(crate) fn shutdown(&self, timeout: Duration) -> bool {
        self.running.get().is_none_or(|running| running.shutdown(timeout))
    }
}

impl Running {
    fn new(definition: &'static Definition, link: Arc<dyn HostLink>) -> std::io::Result<Self> {
        let threads = Arc::new(AtomicUsize::new(0));
        let (started, stopped) = (Arc::clone(&threads), Arc::clone(&threads));
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(definition.worker_threads + SPARE_THREADS)
            .thread_name(format!("tb:{}", definition.name))
            .enable_all()
            .on_thread_start(move || {
                started.fetch_add(1, Ordering::Relaxed);
            })
            .on_thread_stop(move || {
                stopped.fetch_sub(1, Ordering::Relaxed);
            })
            .build()?;
        Ok(Self {
            definition,
            link,
            calls: Calls::default(),
            run_queue: RunQueue::new(definition.worker_threads),
            built: Mutex::new(None),
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            threads,
            watch: Watch::default(),
        })
    }

    /// Runs the state function on a thread of the blocking pool, because it may block.
    fn start_up(&'static self, setup: Setup) {
        let call = Arc::new(Call::new(INIT_CALL, "", Job::default(), Arc::clone(&self.link)));
        if self.calls.begin(&call).is_err() {
            return;
        }
        for _ in 0..SPARE_THREADS {
            self.watch.keep_spare(&self.handle);
        }
        self.handle.spawn_blocking(|| {
            let watched = Watched { watch: &self.watch, calls: &self.calls, handle: &self.handle, link: &*self.link };
            let wake = || self.run_queue.call_another().into_iter().for_each(|worker| self.run_worker(worker));
            watched.run(|| self.run_queue.taken_while_others_wait(), wake);
        });
        let report = Report { running: self, number: INIT_CALL };
        self.handle.spawn_blocking(move || {
            let ended = guard(self.current(), || {
                self.handle.block_on(async {
                    tokio::select! {
                        biased;
                        _ = call.stopped(Stop::Aborted("")) => Ended::Cancelled("shut down while starting"),
                        built = (self.definition.build)(setup) => built.map(|built| drop(self.set_built(Some(built)))).into(),
                    }
                })
            });
            report.send(&ended);
        });
    }

    fn start(&'static self, task: usize, job: Job, number: u64) {
        let name = self.definition.tasks.get(task).copied().unwrap_or_default();
        let call = Arc::new(Call::new(number, name, job, Arc::clone(&self.link)));
        match self.calls.begin(&call) {
            Ok(()) => {}
            Err(Refused::Closed(reason)) => return self.link.finish(number, &Ended::Cancelled(reason)),
            Err(Refused::Running) => return self.complain(&format!("call {number} was started twice")),
        }
        self.watch.call_began();
        let report = Report { running: self, number };
        if let Some(worker) = self.run_queue.offer(Waiting { task, call, report }) {
            self.run_worker(worker);
        }
    }

    fn run_worker(&'static self, mut worker: Worker) {
        self.handle.spawn(async move {
            loop {
                let (job, another) = self.run_queue.next(&mut worker).await;
                if let Some(another) = another {
                    self.run_worker(another);
                }
                if self.begin(job).await {
                    self.run_queue.has_called(&mut worker);
                }
            }
        });
    }

    /// Runs a job until it ends or first waits. A waiting job continues as a task of its own, and this returns `true`.
    /// A job dropped before its end, for example at the runtime's shutdown, is reported as cancelled.
    async fn begin(&self, Waiting { task, call, report }: Waiting) -> bool {
        let ended = match (call.stop(), self.definition.runs.get(task), self.state()) {
            (Stop::Aborted(reason), ..) => Ended::Cancelled(reason),
            (_, None, _) => Ended::Failed(TaskError::new(format!("the plugin has no task number {task}"))),
            (.., None) => Ended::Failed(TaskError::new("the plugin has not finished starting")),
            (_, Some(run), Some(state)) => match run(JobCall { call: Arc::clone(&call), state }) {
                Work::Async(future) => {
                    let mut task = Guarded::new(&call, future);
                    match poll_fn(|context| Poll::Ready(Pin::new(&mut task).poll(context))).await {
                        Poll::Ready(ended) => ended,
                        Poll::Pending => {
                            self.handle.spawn(async move {
                                let ended = run_async(&call, task).await;
                                report.send(&ended);
                            });
                            return true;
                        }
                    }
                }
                Work::Blocking(code) => {
                    self.handle.spawn(async move {
                        let ended = run_blocking(&call, code).await;
                        report.send(&ended);
                    });
                    return true;
                }
            },
        };
        report.send(&ended);
        false
    }

    fn shutdown(&self, timeout: Duration) -> bool {
        let begun = Instant::now();
        self.calls.close("the plugin was shut down");
        // Half of the time is reserved for the teardown, which a stuck job must not prevent.
        for number in self.calls.wait_until_empty(begun + timeout / 2) {
            self.report(number, &Ended::Cancelled("the plugin was shut down, and the task did not stop"));
        }
        if let Some(built) = self.set_built(None) {
            self.tear_down(built, begun + timeout);
        }
        self.watch.close();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(timeout.saturating_sub(begun.elapsed()));
        }
        drop(self.run_queue.clear());
        self.threads.load(Ordering::Relaxed) == 0
    }

    /// Drops the state inside the runtime, which connections need until they are closed.
    fn tear_down(&self, built: Built, until: Instant) {
        let current = self.current();
        let link = Arc::clone(&self.link);
        let handle = self.handle.clone();
        let (done, ended) = mpsc::channel();
        self.handle.spawn_blocking(move || {
            let Built { state, teardown } = built;
            drop(state);
            let ended = guard(current, || handle.block_on(async move { teardown().await }).into());
            let reason = match ended {
                Ended::Failed(error) => Some(error.to_string()),
                Ended::Panicked(message) => Some(message),
                Ended::Done | Ended::Cancelled(_) => None,
            };
            if let Some(reason) = reason {
                complain(&*link, &format!("cannot tear down the plugin's state: {reason}"));
            }
            let _ = done.send(());
        });
        let _ = ended.recv_timeout(until.saturating_duration_since(Instant::now()));
    }

    fn state(&self) -> Option<AnyState> {
        let built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        built.as_ref().map(|built| Arc::clone(&built.state))
    }

    fn set_built(&self, built: Option<Built>) -> Option<Built> {
        std::mem::replace(&mut *self.built.lock().unwrap_or_else(PoisonError::into_inner), built)
    }

    fn current(&self) -> Current {
        Current { call: INIT_CALL, link: Arc::clone(&self.link), owns_panics: true }
    }

    fn report(&self, number: u64, ended: &Ended) {
        if self.calls.end(number) {
            self.link.finish(number, ended);
        }
    }

    fn complain(&self, message: &str) {
        complain(&*self.link, message);
    }
}

fn complain(link: &dyn HostLink, message: &str) {
    link.log(INIT_CALL, &Line { level: LEVEL_ERROR, target: "taskbay_plugin", message, fields: None });
}

/// The obligation to report a call's end. Dropping it reports the call as cancelled.
struct Report {
    running: &'static Running,
    number: u64,
}

impl Report {
    fn send(self, ended: &Ended) {
        self.running.report(self.number, ended);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.running.report(self.number, &Ended::Cancelled("the plugin was shut down"));
    }
}
