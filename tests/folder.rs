//! A folder becomes a task map: every way in which a file comes, changes and goes, and every file that is none.

use std::{
    fs,
    future::Future,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    process::Command,
    sync::Arc,
    time::Duration,
};

use sha2::{Digest, Sha256};
use taskbay::{
    config::{FolderSettings, PluginLookup},
    events::{Event, Events, FileRejection},
    plugin::{AddJob, BuildId, HostServices, PluginSettings},
    tasks::{FolderHandle, LiveTaskMap, Rejection, TasksFolder},
};
use tempfile::TempDir;
use tokio::{
    sync::{Notify, broadcast},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::harness::{plugins::tasks_folder, program::DEADLINE};

mod bad_files;
mod conflicts;
mod executables;
mod folders;
mod nested;
mod operations;
mod trust;
mod volumes;

const FILE: &str = "libmisbehaving.so";

/// The plugins of these tests add no jobs.
#[derive(Debug)]
struct NoJobs;

impl AddJob for NoJobs {
    fn add_job(&self, _spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>> {
        Box::pin(async { Err("these tests have no database".to_owned()) })
    }
}

/// The settings of `--watch`, but that the folder is never listed unless an event says so.
fn settings(path: &Path) -> FolderSettings {
    FolderSettings {
        path: path.to_owned(),
        filled_by_builds: false,
        tolerate_broken_start: true,
        settle: Duration::from_millis(25),
        settle_cap: Duration::from_secs(2),
        rescan: Duration::from_secs(3600),
        missing_grace: None,
        strict_permissions: true,
        manifest: None,
        trusted_keys: Vec::new(),
    }
}

/// The plugin called `hasty` has little time to start.
fn lookup() -> PluginLookup {
    let hasty = PluginSettings { start_timeout: Duration::from_secs(1), ..PluginSettings::default() };
    PluginLookup { by_name: [("hasty".to_owned(), hasty)].into(), ..PluginLookup::default() }
}

fn build_of(bytes: &[u8]) -> BuildId {
    BuildId(Sha256::digest(bytes).into())
}

/// A folder that is watched, and what is said about it.
struct Watched {
    _home: TempDir,
    /// The tasks folder, and beside it one to prepare files in.
    path: PathBuf,
    staging: PathBuf,
    rejections: Vec<Rejection>,
    map: Arc<LiveTaskMap>,
    handle: FolderHandle,
    events: broadcast::Receiver<Event>,
    force: Arc<Notify>,
    shutdown: CancellationToken,
    running: JoinHandle<TasksFolder>,
}

impl Watched {
    async fn start() -> Self {
        Self::start_with(|_| {}, |_| {}).await
    }

    /// `fill` puts something into the folder before it is listed for the first time.
    async fn start_with(fill: impl FnOnce(&Path), adjust: impl FnOnce(&mut FolderSettings)) -> Self {
        let home = tasks_folder();
        let (path, staging) = (home.path().join("tasks"), home.path().join("staging"));
        for folder in [&path, &staging] {
            make_folder(folder);
        }
        fill(&path);
        let mut settings = settings(&path);
        adjust(&mut settings);
        let services = HostServices {
            add_job: Arc::new(NoJobs),
            events: Events::default(),
            program: env!("CARGO_BIN_EXE_taskbay").into(),
        };
        let (events, map) = (services.events.subscribe(), Arc::new(LiveTaskMap::default()));
        let (mut folder, handle) =
            (TasksFolder::new(settings, lookup(), services, Arc::clone(&map)), FolderHandle::default());
        folder.answer(&handle);
        let (folder, rejections) = folder.load_all().await.expect("the folder can be listed");
        let (shutdown, force) = (CancellationToken::new(), Arc::new(Notify::new()));
        let running = tokio::spawn(folder.run(shutdown.clone(), Arc::clone(&force)));
        Self { _home: home, path, staging, rejections, map, handle, events, force, shutdown, running }
    }

    /// The next event about a file or the folder.
    #[track_caller]
    fn next(&mut self) -> impl Future<Output = Event> {
        let place = std::panic::Location::caller();
        async move {
            let next = async {
                loop {
                    match self.events.recv().await.expect("the folder is watched") {
                        Event::TaskMapPublished { .. } | Event::Draining { .. } | Event::Retired { .. } => {}
                        Event::PluginOutput { .. } | Event::FolderReady { .. } | Event::UnknownPluginSection(_) => {}
                        other => return other,
                    }
                }
            };
            timeout(DEADLINE, next).await.unwrap_or_else(|_| panic!("nothing happened that is waited for at {place}"))
        }
    }

    /// The next event must be that this build was loaded: nothing was loaded, removed or refused before it.
    async fn loads(&mut self, what: &str, bytes: &[u8]) {
        match self.next().await {
            Event::PluginLoaded { build, .. } => assert_eq!(build.build, build_of(bytes), "{what}"),
            other => panic!("{what}: expected the build to be loaded, but: {other:?}"),
        }
    }

    /// The same where the file, or the folder, is missing for a moment, or another file is there: whether the host sees
    /// that depends on the machine.
    async fn loads_in_steps(&mut self, what: &str, bytes: &[u8]) {
        loop {
            match self.next().await {
                Event::FolderMissing { .. } | Event::FolderBack { .. } | Event::PluginRemoved { .. } => {}
                Event::FileSkipped { file, .. } if file != FILE => {}
                Event::PluginLoaded { build, .. } => return assert_eq!(build.build, build_of(bytes), "{what}"),
                other => panic!("{what}: expected the build to be loaded, but: {other:?}"),
            }
        }
    }

    /// The next event must be that this file was refused.
    async fn refuses(&mut self, what: &str) -> (String, Option<BuildId>) {
        match self.next().await {
            Event::FileRejected(FileRejection { file, reason, serving, .. }) => {
                assert_eq!(file, what);
                (reason, serving)
            }
            other => panic!("{what}: expected it to be refused, but: {other:?}"),
        }
    }

    async fn removes(&mut self, what: &str) {
        let event = self.next().await;
        assert!(matches!(&event, Event::PluginRemoved { .. }), "{what}: expected a removal, but: {event:?}");
    }

    /// Puts a build beside the folder, as a compiler does.
    fn stage(&self, bytes: &[u8]) -> PathBuf {
        stage(&self.staging, bytes)
    }

    /// Runs a shell script in the tasks folder; `$1` is a staged file.
    #[track_caller]
    fn shell(&self, script: &str, staged: &Path) {
        shell(&self.path, script, staged);
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.expect("the folder is watched to the end").stop(Duration::from_secs(10)).await;
    }
}

#[track_caller]
fn make_folder(path: &Path) {
    fs::create_dir(path).expect("make a folder");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set its permissions");
}

#[track_caller]
fn stage(folder: &Path, bytes: &[u8]) -> PathBuf {
    let staged = folder.join("staged.so");
    let _ = fs::remove_file(&staged);
    fs::write(&staged, bytes).expect("write a build");
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o755)).expect("set its permissions");
    staged
}

#[track_caller]
fn shell(folder: &Path, script: &str, staged: &Path) {
    let status = Command::new("sh")
        .args(["-ec", &format!("umask 022; {script}"), "sh"])
        .arg(staged)
        .current_dir(folder)
        .status()
        .expect("run a shell");
    assert!(status.success(), "{script}");
}
