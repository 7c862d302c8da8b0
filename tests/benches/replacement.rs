//! How long a new build takes from landing in the tasks folder to its first job: `cargo bench --bench replacement`.
//!
//! Jobs stream in all the time, so that the first job of the new build waits for nothing but the replacement.
#![allow(unreachable_pub, reason = "nobody uses a benchmark")]

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "made for the tests, of which this needs a part")]
mod harness;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use taskbay::{
    config::{CronSettings, FolderSettings, LogSettings, PluginLookup, Settings, WorkerSettings},
    events::{Event, Events},
    host::{self, Control, Mode},
    plugin::{BuildId, Isolation, PluginSettings},
};
use tokio::{sync::broadcast, task::AbortHandle};

use harness::{
    plugins::{build_labelled, install, tasks_folder},
    postgres::TestDatabase,
};

const REPLACEMENTS: u32 = 40;
const FILE: &str = "libmisbehaving.so";

#[tokio::main]
async fn main() {
    println!("\n{:<40}{:>10}{:>10}{:>10}", "from landing to the first job", "median", "95 %", "slowest");
    for (settings, settle) in [("--watch", 25), ("default", 100)] {
        for isolation in [Isolation::Child, Isolation::InProcess] {
            for (way, land) in [("mv", mv as fn(&Path, &Path)), ("cp", cp)] {
                let name = format!("{settings} settings, {isolation:?}, {way}");
                let took = measure(Duration::from_millis(settle), isolation, land).await;
                let at = |part: f64| format!("{:.1?}", took[((took.len() - 1) as f64 * part) as usize]);
                println!("{name:<40}{:>10}{:>10}{:>10}", at(0.5), at(0.95), at(1.0));
            }
        }
    }
}

fn mv(beside: &Path, file: &Path) {
    fs::rename(beside, file).expect("rename the plugin");
}

fn cp(beside: &Path, file: &Path) {
    fs::copy(beside, file).expect("copy the plugin");
}

/// Sorted.
async fn measure(settle: Duration, isolation: Isolation, land: fn(&Path, &Path)) -> Vec<Duration> {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install(folder.path(), FILE, &build_labelled(0));
    let events = Events::default();
    let mut heard = events.subscribe();
    let control = Control::default();
    let stop = control.stop.clone();
    let host = tokio::spawn(host::run(
        settings(&database, folder.path(), settle, isolation),
        Mode::Continuous,
        true,
        events,
        control,
    ));
    let load = stream_of_jobs(&database).await;
    let (first, _) = first_job(&mut heard, None).await;

    let mut took = Vec::new();
    let mut build = Some(first);
    for label in 1..=REPLACEMENTS {
        // Hidden, so that the host does not look at it, and on the same file system.
        let beside = folder.path().join(".new");
        fs::write(&beside, build_labelled(label)).expect("write the plugin");
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).expect("set its permissions");
        land(&beside, &folder.path().join(FILE));
        let landed = Instant::now();
        let (new, started) = first_job(&mut heard, build).await;
        build = Some(new);
        took.push(started.saturating_duration_since(landed));
    }
    load.abort();
    stop.graceful.cancel();
    host.await.expect("the host ends").expect("the host ran");
    took.sort();
    took
}

/// Waits for the first job on another build than this one, and tells when it started.
async fn first_job(heard: &mut broadcast::Receiver<Event>, known: Option<BuildId>) -> (BuildId, Instant) {
    loop {
        match heard.recv().await {
            Ok(Event::JobStarted { job, .. }) if Some(job.build) != known => return (job.build, Instant::now()),
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => panic!("the host ended"),
        }
    }
}

async fn stream_of_jobs(database: &TestDatabase) -> AbortHandle {
    let client = database.client().await;
    let stream = async move {
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        loop {
            pace.tick().await;
            client.execute("select graphile_worker.add_job('nothing')", &[]).await.expect("add a job");
        }
    };
    tokio::spawn(stream).abort_handle()
}

fn settings(database: &TestDatabase, folder: &Path, settle: Duration, isolation: Isolation) -> Settings {
    Settings {
        database: database.settings("graphile_worker"),
        folder: FolderSettings {
            path: folder.to_owned(),
            filled_by_builds: false,
            tolerate_broken_start: false,
            settle,
            settle_cap: Duration::from_secs(2),
            rescan: Duration::from_secs(30),
            missing_grace: None,
            strict_permissions: true,
            manifest: None,
            trusted_keys: Vec::new(),
        },
        worker: WorkerSettings::default(),
        cron: CronSettings::default(),
        plugins: PluginLookup {
            defaults: PluginSettings { isolation, ..PluginSettings::default() },
            ..PluginLookup::default()
        },
        program: env!("CARGO_BIN_EXE_taskbay").into(),
        log: LogSettings::default(),
    }
}
