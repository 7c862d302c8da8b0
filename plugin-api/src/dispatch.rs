//! The border to the host: its calls come in here, and what a plugin tells the host goes out here.
//!
//! The only unsafe code of this crate is here and in what `export.rs` reads back of its own statics. No panic leaves.

use std::{
    collections::HashMap,
    future::Future,
    marker::PhantomData,
    mem::size_of,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use taskbay_abi::{
    CANCEL_ABORT, Host, INIT_CALL, Job, Outcome, Reply, STATUS_CANCELLED, STATUS_DISCARD, STATUS_ERROR, STATUS_OK,
    STATUS_PANIC, Str, TaskDef,
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
    task::AbortHandle,
};

use crate::{
    context::{Call, CallState, JobFields},
    error::TaskResult,
    logs, panics,
    setup::{AnyState, Building, Setup, TearingDown},
};

/// A task as `#[task]` writes it.
#[doc(hidden)]
pub trait Task {
    const NAME: &'static str;
    const DEF: TaskDef;
    fn run(call: Call) -> Run;
}

/// Says that a task can run in a plugin whose state is `S`.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "task `{Self}` asks for another state than this plugin's, which is `{S}`",
    note = "the `S` of its `Context<S>` must be what the plugin's `state:` function builds"
)]
pub trait Needs<S> {}

#[doc(hidden)]
pub fn check_needs<T: Needs<S>, S>(_state: PhantomData<S>) {}

/// One run of a task, ready to be started.
#[doc(hidden)]
pub enum Run {
    Future(Pin<Box<dyn Future<Output = TaskResult> + Send>>),
    Blocking(Box<dyn FnOnce() -> TaskResult + Send>),
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Future(_) => "Run::Future",
            Self::Blocking(_) => "Run::Blocking",
        })
    }
}

impl Run {
    #[doc(hidden)]
    pub fn future(future: impl Future<Output = TaskResult> + Send + 'static) -> Self {
        Self::Future(Box::pin(future))
    }

    #[doc(hidden)]
    pub fn blocking(run: impl FnOnce() -> TaskResult + Send + 'static) -> Self {
        Self::Blocking(Box::new(run))
    }
}

/// A plugin as `plugin!` writes it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Plugin {
    pub name: &'static str,
    pub names: &'static [&'static str],
    pub worker_threads: usize,
    pub state: fn(Setup) -> Building,
    pub teardown: Option<fn(AnyState) -> TearingDown>,
    pub run: fn(u32, Call) -> Option<Run>,
}

/// The plugin of this library, from `init` on.
static RUNNING: OnceLock<Running> = OnceLock::new();

tokio::task_local! {
    static CURRENT: Arc<CallState>;
}

/// A started plugin.
struct Running {
    plugin: &'static Plugin,
    host: &'static Host,
    handle: Handle,
    /// Taken by `shutdown`.
    runtime: Mutex<Option<Runtime>>,
    /// Set when the start-up has succeeded, taken by `shutdown`.
    state: Mutex<Option<AnyState>>,
    calls: Mutex<HashMap<u64, (Arc<CallState>, AbortHandle)>>,
    /// Jobs that were asked to be added and have not been answered.
    requests: Mutex<HashMap<u64, oneshot::Sender<Result<i64, String>>>>,
    last_request: AtomicU64,
    threads: Arc<AtomicUsize>,
}

/// Poison only says that another job panicked; the tables are whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The call that the code around belongs to.
pub(crate) fn current_call() -> Option<Arc<CallState>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Begins the start-up.
///
/// # Safety
///
/// `host` is valid for the rest of the process and `settings` during the call, as the interface says.
#[doc(hidden)]
pub unsafe fn init(plugin: &'static Plugin, host: &'static Host, settings: Str<'_>) {
    // SAFETY: the caller vouches for `settings`.
    let settings = unsafe { settings.text() };
    let settings = settings.ok().flatten().filter(|text| !text.is_empty()).unwrap_or("{}").to_owned();
    let begun = panics::catch(|| {
        logs::install(host.max_level);
        panics::install_hook();
        begin(plugin, host, settings)
    });
    if let Err(message) = begun.and_then(|begun| begun) {
        finish(host, INIT_CALL, STATUS_ERROR, Some(&message));
    }
}

fn begin(plugin: &'static Plugin, host: &'static Host, settings: String) -> Result<(), String> {
    let threads = Arc::new(AtomicUsize::new(0));
    let (started, stopped) = (Arc::clone(&threads), Arc::clone(&threads));
    let runtime = Builder::new_multi_thread()
        .worker_threads(plugin.worker_threads)
        .thread_name(format!("tb:{}", plugin.name))
        .on_thread_start(move || _ = started.fetch_add(1, Ordering::Relaxed))
        .on_thread_stop(move || _ = stopped.fetch_sub(1, Ordering::Relaxed))
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start its threads: {error}"))?;
    let running = Running {
        plugin,
        host,
        handle: runtime.handle().clone(),
        runtime: Mutex::new(Some(runtime)),
        state: Mutex::default(),
        calls: Mutex::default(),
        requests: Mutex::default(),
        last_request: AtomicU64::new(0),
        threads,
    };
    RUNNING.set(running).map_err(|_| "it was started twice".to_owned())?;
    let running = RUNNING.get().expect("set just before");
    running.handle.spawn(running.start_up(settings));
    Ok(())
}

/// Begins a job.
///
/// # Safety
///
/// `job` is what the interface says, during the call.
pub(crate) unsafe extern "C" fn start(task: u32, job: &Job<'_>, call: u64) {
    let Some(running) = RUNNING.get() else { return };
    // SAFETY: the caller vouches for `job`.
    let started = panics::catch(|| unsafe { copy(job) }.and_then(|job| running.start(task, job, call)));
    if let Err(message) = started.and_then(|started| started) {
        finish(running.host, call, STATUS_ERROR, Some(&message));
    }
}

/// Cancels a job.
pub(crate) unsafe extern "C" fn cancel(call: u64, mode: u32) {
    let Some(running) = RUNNING.get() else { return };
    let found = lock(&running.calls).get(&call).map(|(state, abort)| (Arc::clone(state), abort.clone()));
    if let Some((state, abort)) = found {
        state.cancel();
        if mode == CANCEL_ABORT {
            abort.abort();
        }
    }
}

/// Ends the plugin.
pub(crate) unsafe extern "C" fn shutdown(timeout_ms: u64) -> u32 {
    let Some(running) = RUNNING.get() else { return 0 };
    let deadline = Instant::now() + Duration::from_millis(timeout_ms);
    match panics::catch(|| running.shut_down(deadline)) {
        Ok(()) if running.threads.load(Ordering::Relaxed) == 0 => 0,
        _ => 1,
    }
}

/// Copies a job out of the host's memory.
///
/// # Safety
///
/// As for [`start`].
unsafe fn copy(job: &Job<'_>) -> Result<JobFields, String> {
    let owned = |text: Str<'_>| {
        // SAFETY: the caller vouches for all texts of the job.
        let text = unsafe { text.text() };
        text.map(|text| text.map(ToOwned::to_owned))
            .map_err(|error| format!("the host sent text that is not UTF-8: {error}"))
    };
    Ok(JobFields {
        id: job.id,
        attempt: job.attempt,
        max_attempts: job.max_attempts,
        priority: job.priority,
        revision: job.revision,
        run_at_us: job.run_at_us,
        created_at_us: job.created_at_us,
        updated_at_us: job.updated_at_us,
        timeout_ms: job.timeout_ms,
        payload: owned(job.payload)?.unwrap_or_else(|| "null".to_owned()),
        queue: owned(job.queue)?,
        key: owned(job.key)?,
        last_error: owned(job.last_error)?,
        flags: owned(job.flags)?,
    })
}

impl Running {
    async fn start_up(&'static self, settings: String) {
        let built = panics::catch_future(async { (self.plugin.state)(Setup { settings }).await }).await;
        match built {
            Ok(Ok(state)) => {
                *lock(&self.state) = Some(state);
                finish(self.host, INIT_CALL, STATUS_OK, None);
            }
            Ok(Err(error)) => finish(self.host, INIT_CALL, STATUS_ERROR, Some(&error.to_string())),
            Err(panicked) => finish(self.host, INIT_CALL, STATUS_PANIC, Some(&panicked)),
        }
    }

    fn start(&'static self, task: u32, job: JobFields, call: u64) -> Result<(), String> {
        let Some(plugin_state) = lock(&self.state).clone() else { return Err("the plugin is not running".to_owned()) };
        let unknown = || format!("the plugin has no task number {task}");
        let name = self.plugin.names.get(task as usize).copied().ok_or_else(unknown)?;
        let state = Arc::new(CallState::new(call, name, job));
        let run = (self.plugin.run)(task, Call { state: Arc::clone(&state), plugin_state }).ok_or_else(unknown)?;
        let guard = Finish { running: self, state: Arc::clone(&state) };
        // Held while the task is spawned: it takes itself out of the table at its end, which must come after it was put in.
        let mut calls = lock(&self.calls);
        let current = Arc::clone(&state);
        let abort = match run {
            Run::Future(future) => self.handle.spawn(CURRENT.scope(current, async move {
                let result = panics::catch_future(future).await;
                guard.done(result);
            })),
            Run::Blocking(run) => self.handle.spawn_blocking(move || {
                CURRENT.sync_scope(current, || {
                    let result = panics::catch(run);
                    guard.done(result);
                });
            }),
        }
        .abort_handle();
        calls.insert(call, (state, abort));
        Ok(())
    }

    fn shut_down(&self, deadline: Instant) {
        for (state, abort) in lock(&self.calls).values() {
            state.cancel();
            abort.abort();
        }
        // Whoever waits for an answer hears that there will be none.
        lock(&self.requests).clear();
        let Some(runtime) = lock(&self.runtime).take() else { return };
        let state = lock(&self.state).take();
        let left = || deadline.saturating_duration_since(Instant::now());
        runtime.block_on(async {
            let end = async {
                if let (Some(teardown), Some(state)) = (self.plugin.teardown, state) {
                    let _ = panics::catch_future(teardown(state)).await;
                }
            };
            let _ = tokio::time::timeout(left(), end).await;
        });
        runtime.shutdown_timeout(left());
    }
}

/// Ends a call exactly once: with its result, or as cancelled when the job was dropped before it had one.
struct Finish {
    running: &'static Running,
    state: Arc<CallState>,
}

impl Finish {
    fn done(self, result: Result<TaskResult, String>) {
        let call = self.state.call;
        let host = self.running.host;
        // From here on there is nothing to drop: the entry is this call's right to finish.
        if lock(&self.running.calls).remove(&call).is_none() {
            return;
        }
        match result {
            Ok(Ok(())) => finish(host, call, STATUS_OK, None),
            Ok(Err(error)) => {
                let status = if error.is_discard() { STATUS_DISCARD } else { STATUS_ERROR };
                finish(host, call, status, Some(&error.to_string()));
            }
            Err(panicked) => finish(host, call, STATUS_PANIC, Some(&self.state.take_panic().unwrap_or(panicked))),
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if lock(&self.running.calls).remove(&self.state.call).is_some() {
            finish(
                self.running.host,
                self.state.call,
                STATUS_CANCELLED,
                Some("the job was stopped before it had ended"),
            );
        }
    }
}

fn finish(host: &Host, call: u64, status: u32, message: Option<&str>) {
    let outcome = Outcome {
        size: size_of::<Outcome<'_>>() as u32,
        status,
        message: Str::from_option(message),
        detail: Str::NONE,
    };
    // SAFETY: the host's table is valid for the rest of the process, and the outcome during the call.
    unsafe { (host.finish)(host.context, call, &outcome) }
}

/// Writes to the host's log.
pub(crate) fn log(call: u64, level: u32, target: &str, message: &str, fields: Option<&str>) {
    let Some(running) = RUNNING.get() else { return };
    let host = running.host;
    // SAFETY: the host's table is valid for the rest of the process, and the texts during the call.
    unsafe { (host.log)(host.context, call, level, Str::new(target), Str::new(message), Str::from_option(fields)) }
}

/// Asks the host to add a job. The answer's sender is dropped when there is none to come.
pub(crate) fn add_job(call: u64, spec: &str) -> oneshot::Receiver<Result<i64, String>> {
    let (sender, answer) = oneshot::channel();
    let Some(running) = RUNNING.get() else { return answer };
    let request = running.last_request.fetch_add(1, Ordering::Relaxed) + 1;
    lock(&running.requests).insert(request, sender);
    // SAFETY: the host's table is valid for the rest of the process, and the text during the call.
    unsafe { (running.host.add_job)(running.host.context, call, Str::new(spec), Reply { request, deliver }) }
    answer
}

/// Takes the host's answer to [`add_job`]; one that comes late or twice finds no request.
unsafe extern "C" fn deliver(request: u64, outcome: &Outcome<'_>) {
    let Some(running) = RUNNING.get() else { return };
    let Some(sender) = lock(&running.requests).remove(&request) else { return };
    // SAFETY: the host lends the texts during the call.
    let (message, detail) = unsafe { (outcome.message.text(), outcome.detail.text()) };
    let answer = match (outcome.status, detail) {
        (STATUS_OK, Ok(Some(id))) => id.parse().map_err(|_| format!("the host answered with `{id}` for a job's id")),
        (STATUS_OK, _) => Err("the host gave no id".to_owned()),
        _ => Err(message.ok().flatten().unwrap_or("the host gave no reason").to_owned()),
    };
    let _ = sender.send(answer);
}
