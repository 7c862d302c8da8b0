//! One build of a plugin, from launch to the end of its last job.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, watch};

use super::{
    Accepted, Availability, BuildId, BuiltInTask, Cancel, ExecutableFile, FileKey, HostServices, Image, Isolation,
    JobInput, LaunchError, ManifestInfo, Outcome, PluginSettings, StopSignal, TaskSpec,
    alone::Alone,
    bounds::{Bounds, of_user},
    built_in::BuiltIn,
    calls::Call,
    child::Child,
    connection::Start,
    executable::{self, Executable},
    executable_run::Run,
    execution::{Execution, Line},
    in_process::InProcess,
    process::{SHUTDOWN_LIMIT, rehearse},
    running_jobs::RunningJobs,
};
use crate::events::{Event, Events, PluginBuild};

/// The time limit of the teardown of a plugin that should be killed but runs in this process.
const KILL_LIMIT: Duration = Duration::from_millis(500);

/// One build of a plugin that has been loaded and started. Dropping it without [`Generation::retire`] kills its process.
#[derive(Debug)]
pub struct Generation {
    build: PluginBuild,
    /// The plugin's name again, shared with each job's events.
    shared_name: Arc<str>,
    manifest: ManifestInfo,
    default_timeout: Option<Duration>,
    cancel_grace: Duration,
    runner: Runner,
    /// For jobs that were running during a crash; none without a plugin file, or if each job has its own process anyway.
    alone: Option<Alone>,
    events: Events,
    availability: watch::Sender<Availability>,
    /// The number of crashes of its process.
    crashes: Arc<AtomicU32>,
    running: RunningJobs,
    /// Cancelled to give up the running jobs.
    killed: StopSignal,
    ended: OnceCell<()>,
}

/// The runner of the plugin's code.
#[derive(Debug)]
enum Runner {
    Child(Child),
    InProcess(InProcess),
    BuiltIn(BuiltIn),
    Executable(Box<Executable>),
}

impl Generation {
    /// Loads and starts a build; returns after its start-up has succeeded.
    pub async fn launch(
        image: Arc<Image>,
        settings: &PluginSettings,
        services: &HostServices,
    ) -> Result<Arc<Generation>, LaunchError> {
        let build = PluginBuild { plugin: image.plugin.clone(), build: image.build };
        let alone = Some(Alone::new(Arc::clone(&image), settings, services));
        let availability = watch::Sender::new(Availability::Serving);
        let crashes = Arc::<AtomicU32>::default();
        let (runner, manifest) = match settings.isolation {
            Isolation::Child => {
                let (child, manifest) =
                    Child::launch(image, settings, services, availability.clone(), Arc::clone(&crashes)).await?;
                (Runner::Child(child), manifest)
            }
            Isolation::InProcess if settings.user.is_some() => {
                return Err(of_user(
                    "its setting user cannot be kept to in the host's own process: run it isolated, or leave the setting out"
                        .to_owned(),
                ));
            }
            Isolation::InProcess => {
                let (plugin, manifest) = InProcess::launch(&image, settings, services).await?;
                (Runner::InProcess(plugin), manifest)
            }
        };
        Ok(Self::serving(build, manifest, (runner, alone), settings, services.events.clone(), (availability, crashes)))
    }

    /// Launches a build again after it failed to start, or because its settings changed.
    pub async fn launch_again(
        image: Arc<Image>,
        settings: &PluginSettings,
        services: &HostServices,
    ) -> Result<Arc<Generation>, LaunchError> {
        if settings.isolation == Isolation::Child {
            return Self::launch(image, settings, services).await;
        }
        rehearse(&image, settings, services).await?;
        let copied = tokio::task::spawn_blocking(move || image.copy()).await.unwrap_or_else(|error| Err(error.into()));
        let copy = copied.map_err(|error| LaunchError::Process(error.to_string()))?;
        Self::launch(Arc::new(copy), settings, services).await
    }

    /// Puts an executable file into service. No process is started until there is a job.
    pub fn of_executable(
        file: ExecutableFile,
        settings: &PluginSettings,
        events: &Events,
    ) -> Result<Arc<Generation>, LaunchError> {
        let build = PluginBuild { plugin: file.identifier.clone(), build: file.build };
        let availability = watch::Sender::new(Availability::Serving);
        let manifest = executable::executable_manifest(&file.identifier);
        let runner = Executable::new(file, Bounds::of_executable(settings)?, events, availability.clone());
        let runner = (Runner::Executable(Box::new(runner)), None);
        Ok(Self::serving(build, manifest, runner, settings, events.clone(), (availability, Arc::default())))
    }

    /// The tasks compiled into this program. The error names the broken rule.
    pub fn built_in(
        tasks: Vec<BuiltInTask>,
        settings: &PluginSettings,
        events: Events,
    ) -> Result<Arc<Generation>, String> {
        let (runner, manifest) = BuiltIn::new(tasks)?;
        let names: Vec<&str> = manifest.tasks.iter().map(|task| task.name.as_str()).collect();
        // There is no file to identify this build.
        let build = BuildId(Sha256::digest(names.join("\n")).into());
        let build = PluginBuild { plugin: manifest.name.clone(), build };
        let availability = watch::Sender::new(Availability::Serving);
        Ok(Self::serving(
            build,
            manifest,
            (Runner::BuiltIn(runner), None),
            settings,
            events,
            (availability, Arc::default()),
        ))
    }

    fn serving(
        build: PluginBuild,
        manifest: ManifestInfo,
        (runner, alone): (Runner, Option<Alone>),
        settings: &PluginSettings,
        events: Events,
        (availability, crashes): (watch::Sender<Availability>, Arc<AtomicU32>),
    ) -> Arc<Self> {
        Arc::new(Self {
            shared_name: Arc::from(build.plugin.as_str()),
            build,
            manifest,
            default_timeout: settings.timeout,
            cancel_grace: settings.cancel_grace,
            runner,
            alone,
            events,
            availability,
            crashes,
            running: RunningJobs::default(),
            killed: StopSignal::default(),
            ended: OnceCell::new(),
        })
    }

    /// Records a new state of an executable file, after a check found the same contents.
    pub fn verify_again(&self, key: FileKey) {
        if let Runner::Executable(executable) = &self.runner {
            executable.verify_again(key);
        }
    }

    /// The plugin's name, from its file's name.
    pub fn plugin(&self) -> &str {
        &self.build.plugin
    }

    /// The plugin's name, shared.
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.shared_name)
    }

    /// Whether its code runs in this process, and can thus crash it.
    pub fn runs_in_this_process(&self) -> bool {
        matches!(self.runner, Runner::InProcess(_) | Runner::BuiltIn(_))
    }

    /// The build's identity.
    pub fn build(&self) -> BuildId {
        self.build.build
    }

    /// The manifest.
    pub fn manifest(&self) -> &ManifestInfo {
        &self.manifest
    }

    /// Its tasks; their indexes are the arguments for [`Generation::run`].
    pub fn tasks(&self) -> &[TaskSpec] {
        &self.manifest.tasks
    }

    /// A receiver of its availability.
    pub fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.subscribe()
    }

    /// The number of jobs running on it.
    pub fn in_flight(&self) -> usize {
        self.running.count()
    }

    /// The number of crashes of its process.
    pub fn crashes(&self) -> u32 {
        self.crashes.load(Ordering::Acquire)
    }

    /// The image of the plugin file, if it was launched from one.
    pub fn image(&self) -> Option<&Arc<Image>> {
        self.alone.as_ref().map(Alone::image)
    }

    /// Whether a job can run in a process of its own.
    pub fn runs_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// Runs a job to its end. The time limit of the task, or otherwise of the plugin, cancels it, as does `cancel`.
    /// Dropping the future abandons the job without notifying the plugin.
    pub async fn run(&self, task: u32, job: &JobInput<'_>, cancel: &Cancel) -> Outcome {
        self.run_announced(task, job, cancel, &|| {}).await
    }

    /// Runs a job like [`Generation::run`], and reports its start.
    pub async fn run_announced(
        &self,
        task: u32,
        job: &JobInput<'_>,
        cancel: &Cancel,
        accepted: Accepted<'_>,
    ) -> Outcome {
        let Some(_running) = self.running.enter() else { return Outcome::NotStarted };
        let limit = self.tasks()[task as usize].timeout.or(self.default_timeout);
        if let Runner::Executable(executable) = &self.runner {
            let limit = limit.unwrap_or(executable::TIMEOUT);
            let run = Run { limit, grace: self.cancel_grace, cancel, killed: &self.killed };
            return executable.run(job, run, accepted).await;
        }
        let mut started = self.runner.start(task, job, limit, accepted);
        while let (Ok(Start::Full), Runner::Child(child)) = (&started, &self.runner) {
            // Boxed, because it is rare.
            if !Box::pin(wait_for_room(child, [&self.killed, &cancel.force, &cancel.ask])).await {
                return Outcome::NotStarted;
            }
            started = self.runner.start(task, job, limit, accepted);
        }
        let (call, line) = match started {
            Ok(Start::Begun(started)) => started,
            Ok(Start::Gone | Start::Full) => return Outcome::NotStarted,
            Err(message) => return Outcome::Failed { kind: super::FailureKind::Error, message },
        };
        self.execution(task, job, limit, cancel, call, line).outcome().await
    }

    /// Runs a job like [`Generation::run_announced`], in a process of its own if possible.
    pub async fn run_alone(&self, task: u32, job: &JobInput<'_>, cancel: &Cancel, accepted: Accepted<'_>) -> Outcome {
        let Some(alone) = &self.alone else { return self.run_announced(task, job, cancel, accepted).await };
        let Some(running) = self.running.enter() else { return Outcome::NotStarted };
        let limit = self.tasks()[task as usize].timeout.or(self.default_timeout);
        let execution = |call, line| self.execution(task, job, limit, cancel, call, line);
        alone.run((task, job, limit), accepted, execution, [&self.killed, &cancel.force, &cancel.ask], running).await
    }

    fn execution<'a>(
        &'a self,
        task: u32,
        job: &JobInput<'_>,
        limit: Option<Duration>,
        cancel: &'a Cancel,
        call: Call,
        line: Line<'a>,
    ) -> Execution<'a> {
        Execution {
            call,
            line,
            job: job.id,
            task: &self.tasks()[task as usize].name,
            limit,
            grace: self.cancel_grace,
            cancel,
            killed: &self.killed,
        }
    }

    /// Takes no more jobs, waits for the running ones, then shuts the plugin down. All callers wait for the same end.
    pub async fn retire(&self) {
        self.ended.get_or_init(|| self.end()).await;
    }

    /// Ends it at once; running jobs fail as cancelled.
    pub async fn kill(&self) {
        self.killed.cancel();
        if let Runner::Child(child) = &self.runner {
            child.kill().await;
        }
        self.retire().await;
    }

    async fn end(&self) {
        self.running.close();
        if let Runner::Child(child) = &self.runner {
            child.drain();
        }
        if self.in_flight() > 0 {
            self.events.emit(Event::Draining { build: self.build.clone(), in_flight: self.in_flight() });
        }
        self.running.ended().await;
        let limit = if self.killed.is_cancelled() { KILL_LIMIT } else { SHUTDOWN_LIMIT };
        match &self.runner {
            Runner::Child(child) => child.shutdown(limit).await,
            Runner::InProcess(plugin) => plugin.shutdown(limit).await,
            Runner::BuiltIn(tasks) => tasks.shutdown(limit).await,
            // Each of its processes ended with its job.
            Runner::Executable(_) => {}
        }
        self.availability.send_replace(Availability::Stopped);
        self.events.emit(Event::Retired { build: self.build.clone() });
    }
}

/// Waits until a process has room for a job; `false` if a stop signal came first.
async fn wait_for_room(child: &Child, [first, second, third]: [&StopSignal; 3]) -> bool {
    tokio::select! {
        () = child.room() => true,
        () = first.cancelled() => false,
        () = second.cancelled() => false,
        () = third.cancelled() => false,
    }
}

impl Runner {
    fn start(
        &self,
        task: u32,
        job: &JobInput<'_>,
        limit: Option<Duration>,
        accepted: Accepted<'_>,
    ) -> Result<Start<(Call, Line<'_>)>, String> {
        let call = |call: Option<Call>, line| call.map_or(Start::Gone, |call| Start::Begun((call, line)));
        Ok(match self {
            Runner::Child(child) => match child.start(task, job, limit, accepted)? {
                Start::Begun((call, connection)) => Start::Begun((call, Line::Child(connection))),
                Start::Gone => Start::Gone,
                Start::Full => Start::Full,
            },
            Runner::InProcess(plugin) => call(plugin.start(task, job, limit, accepted), Line::InProcess(plugin)),
            Runner::BuiltIn(tasks) => call(tasks.start(task, job, accepted), Line::BuiltIn(tasks)),
            // Its jobs are no calls.
            Runner::Executable(_) => Start::Gone,
        })
    }
}
