//! The runner in the host's own process, for trusted code with minimal overhead.
//!
//! Libraries are never unmapped, so the number of builds in a process is limited. Further ones are refused before they would
//! abort the process.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use taskbay_abi::{INIT_CALL, STATUS_OK};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};
use tracing::warn;

use super::{
    Accepted, HostServices, Image, JobInput, LaunchError, ManifestInfo, PluginSettings,
    calls::{Call, CallEnd, Calls},
    host_calls::{AddJob, PluginLog, add, max_level},
    host_table::{AddJobReply, End, LogLine, PluginHost},
    libc_calls::free_thread_keys,
    loader::{LoadedPlugin, MappedPlugin},
    process,
};
use crate::events::PluginBuild;

/// Each mapped build costs a few hundred kilobytes and one of the 1,024 thread-local keys of the process.
const MAX_MAPPED: usize = 200;
/// The number of keys reserved for the rest of the process.
const KEYS_FLOOR: usize = 64;

/// A plugin that runs in this process.
#[derive(Debug)]
pub(super) struct InProcess {
    plugin: Arc<LoadedPlugin>,
    host: Arc<InProcessHost>,
    name: String,
}

impl InProcess {
    /// Tries the build in a separate process, then loads it into this one and starts it up.
    pub(super) async fn launch(
        image: &Image,
        settings: &PluginSettings,
        services: &HostServices,
    ) -> Result<(Self, ManifestInfo), LaunchError> {
        let manifest = process::probe(image, settings, &services.program).await?;
        if manifest.panic_abort {
            return Err(LaunchError::PanicAbort);
        }
        take_room()?;
        let fd = image.fd.try_clone().map_err(|error| LaunchError::Map(error.to_string()))?;
        let mapped = on_own_thread(&image.plugin, move || MappedPlugin::map(fd));
        let mapped = timeout(settings.start_timeout, mapped)
            .await
            .map_err(|_| LaunchError::LoadTimedOut(settings.start_timeout))?
            .unwrap_or_else(|| Err(LaunchError::Map("loading it panicked".to_owned())))?;
        let manifest = mapped.manifest().clone();
        let plugin = Self::start_up(image, mapped, settings, services).await?;
        Ok((plugin, manifest))
    }

    async fn start_up(
        image: &Image,
        mapped: MappedPlugin,
        settings: &PluginSettings,
        services: &HostServices,
    ) -> Result<Self, LaunchError> {
        let log = PluginLog::new(PluginBuild { plugin: image.plugin.clone(), build: image.build });
        log.name_tasks(&mapped.manifest().tasks);
        let (sender, started) = oneshot::channel();
        let host = Arc::new(InProcessHost {
            calls: Arc::default(),
            log,
            jobs: Mutex::new(Some(Arc::clone(&services.add_job))),
            runtime: Handle::current(),
            started: Mutex::new(Some(sender)),
        });
        let json = serde_json::Value::Object(settings.settings.clone()).to_string();
        let (max_level, limit) = (max_level(), settings.start_timeout);
        let deadline = Instant::now() + limit;
        let callee = Arc::clone(&host);
        let begun = on_own_thread(&image.plugin, move || mapped.init(callee, max_level, &json));
        // A hanging `init` keeps its thread, because it cannot be stopped in this process.
        let plugin = timeout_at(deadline, begun)
            .await
            .map_err(|_| LaunchError::StartTimedOut(limit))?
            .ok_or_else(|| LaunchError::StartFailed("it panicked".to_owned()))?;
        let plugin = Self { plugin: Arc::new(plugin), host, name: image.plugin.clone() };
        let error = match timeout_at(deadline, started).await {
            Ok(Ok(Ok(()))) => return Ok(plugin),
            Ok(Ok(Err(error))) => error,
            Ok(Err(_)) => LaunchError::StartFailed("it gave no answer".to_owned()),
            Err(_) => LaunchError::StartTimedOut(limit),
        };
        plugin.shutdown(Duration::from_secs(1)).await;
        Err(error)
    }

    /// Starts a job; `None` after the shutdown.
    pub(super) fn start(
        &self,
        task: u32,
        job: &JobInput<'_>,
        timeout: Option<Duration>,
        accepted: Accepted<'_>,
    ) -> Option<Call> {
        let call = self.host.calls.begin(job.id, task)?;
        self.plugin.start(task, job, timeout, call.id, accepted).then_some(call)
    }

    pub(super) fn cancel(&self, call: u64, mode: u32) {
        self.plugin.cancel(call, mode);
    }

    /// Ends the plugin. Running jobs are ended by the plugin or, at the latest, when this returns.
    pub(super) async fn shutdown(&self, limit: Duration) {
        let plugin = Arc::clone(&self.plugin);
        let ended = on_own_thread(&self.name, move || plugin.shutdown(limit));
        // A second more than the plugin's own limit, in case the plugin exceeds it.
        let ended = timeout(limit + Duration::from_secs(1), ended).await.ok().flatten();
        if ended != Some(true) {
            warn!(
                plugin = self.name,
                "plugin {} left threads behind that cannot be stopped in this process", self.name
            );
        }
        self.host.calls.close("the plugin was shut down while it ran this job");
        // The plugin's link to the host is never freed, and must not keep the database connections open.
        self.host.jobs().take();
    }
}

/// The functions for the plugin.
#[derive(Debug)]
struct InProcessHost {
    calls: Arc<Calls>,
    log: PluginLog,
    /// None after the shutdown.
    jobs: Mutex<Option<Arc<dyn AddJob>>>,
    runtime: Handle,
    started: Mutex<Option<oneshot::Sender<Result<(), LaunchError>>>>,
}

impl InProcessHost {
    fn jobs(&self) -> MutexGuard<'_, Option<Arc<dyn AddJob>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PluginHost for InProcessHost {
    fn finished(&self, call: u64, end: End<'_>) {
        if call != INIT_CALL {
            let message = end.message.map(str::to_owned);
            let detail = end.detail.map(str::to_owned);
            self.calls.finish(call, CallEnd::Reported { status: end.status, message, detail });
            return;
        }
        let Some(started) = self.started.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let _ = started.send(match end.status {
            STATUS_OK => Ok(()),
            status => Err(LaunchError::of_start_up(status, end.message)),
        });
    }

    fn log(&self, call: u64, line: LogLine<'_>) {
        self.log.write(self.calls.describe(call), line);
    }

    fn add_job(&self, _call: u64, spec: &str, reply: AddJobReply) {
        let Some(jobs) = self.jobs().clone() else { return };
        let spec = spec.to_owned();
        // Not awaited: the task ends with the statement, or with the runtime, in which case the reply is an error.
        self.runtime.spawn(async move {
            let added = add(&*jobs, spec).await;
            reply.deliver(added.as_ref().map(String::as_str).map_err(String::as_str));
        });
    }
}

/// Reserves one of this process's places for builds.
fn take_room() -> Result<(), LaunchError> {
    static MAPPED: AtomicUsize = AtomicUsize::new(0);
    let free = free_thread_keys(KEYS_FLOOR);
    if free < KEYS_FLOOR {
        return Err(LaunchError::KeysExhausted { free });
    }
    let one_more = |mapped| (mapped < MAX_MAPPED).then_some(mapped + 1);
    MAPPED
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
        .map(drop)
        .map_err(|mapped| LaunchError::TooManyBuilds { mapped })
}

/// Runs code of a plugin on a separate thread, to keep its thread-local values and endless waits away from the host's
/// threads. `None` if it panicked.
async fn on_own_thread<T: Send + 'static>(plugin: &str, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name(format!("plugin {plugin}"));
    thread
        .spawn(move || {
            if let Ok(value) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = sender.send(value);
            }
        })
        .ok()?;
    result.await.ok()
}
