//! Replacing a plugin under load: no job lost, none run twice, none on a build that was gone when it was claimed, and
//! nothing left behind.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Duration,
};

use serde_json::Value;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    ledger::Ledger,
    plugins::{build_labelled, install, tasks_folder},
    postgres::TestDatabase,
    processes::{children_of, resident_kib},
    program::{Running, Taskbay},
};

const FILE: &str = "libmisbehaving.so";

/// Jobs that keep coming while the plugin is replaced.
struct Load {
    stop: CancellationToken,
    adding: tokio::task::JoinHandle<i64>,
}

impl Load {
    /// Adds a few jobs every few milliseconds: more than a moment's work, less than a backlog, so that each replacement
    /// meets jobs that wait, jobs that start and jobs that run: they take between nothing and 30 ms.
    fn start(database: &TestDatabase) -> Self {
        let stop = CancellationToken::new();
        let (stopped, config) = (stop.clone(), database.config());
        let adding = tokio::spawn(async move {
            let (client, connection) = config.connect(NoTls).await.expect("connect");
            tokio::spawn(connection);
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            let mut added = 0;
            while !stopped.is_cancelled() {
                pace.tick().await;
                client
                    .execute(
                        "select graphile_worker.add_job('echo', json_build_object('n', n, 'sleep_ms', n % 4 * 10)) \
                         from generate_series($1::bigint, $2::bigint) n",
                        &[&(added + 1), &(added + 5)],
                    )
                    .await
                    .expect("add jobs");
                added += 5;
            }
            added
        });
        Self { stop, adding }
    }

    async fn finish(self) -> i64 {
        self.stop.cancel();
        self.adding.await.expect("the load ends")
    }
}

fn run(database: &TestDatabase, folder: &Path, ledger: &Ledger) -> Taskbay {
    Taskbay::run(&database.url(), folder).args(["--watch", "-j", "20"]).ledger(ledger)
}

/// The number of the task map in which each build came into force.
fn epochs(host: &Running) -> HashMap<String, u64> {
    let mut loaded = Vec::new();
    let mut epochs = HashMap::new();
    for line in host.lines() {
        if line["event"] == "plugin_loaded" {
            loaded.push(line["build"].as_str().unwrap().to_owned());
        } else if line["event"] == "task_map_published" {
            epochs.extend(loaded.drain(..).map(|build| (build, line["epoch"].as_u64().unwrap())));
        }
    }
    epochs
}

/// Every job ran exactly once, and on a build that was in force when it was claimed or came into force later.
fn assert_exact(host: &Running, ledger: &Ledger, added: i64) {
    let mut runs = BTreeMap::<i64, u32>::new();
    for entry in ledger.entries() {
        *runs.entry(entry.n()).or_default() += 1;
    }
    let wrong: Vec<_> =
        (1..=added).map(|n| (n, runs.get(&n).copied().unwrap_or(0))).filter(|(_, runs)| *runs != 1).collect();
    assert!(wrong.is_empty(), "jobs that did not run exactly once, with their runs: {wrong:?}");
    assert_eq!(runs.len(), usize::try_from(added).unwrap(), "jobs that nobody added");
    assert_eq!(host.events("job_failed"), Vec::<Value>::new(), "jobs whose build went away under them");

    let epochs = epochs(host);
    for started in host.events("job_started") {
        let build = started["build"].as_str().unwrap();
        let claimed = started["map"].as_u64().unwrap();
        assert!(
            epochs[build] >= claimed || is_current(&epochs, build, claimed),
            "a job started on an older build: {started}"
        );
    }
}

/// Whether no other build came into force between this one and that map.
fn is_current(epochs: &HashMap<String, u64>, build: &str, map: u64) -> bool {
    !epochs.values().any(|epoch| *epoch > epochs[build] && *epoch <= map)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_replacements_under_load_lose_and_leak_nothing() {
    const BUILDS: u32 = 500;
    let database = TestDatabase::installed().await;
    let (folder, ledger) = (tasks_folder(), Ledger::new());
    install(folder.path(), FILE, &build_labelled(0));
    let host = run(&database, folder.path(), &ledger).spawn();
    host.event("worker_ready", |_| true).await;
    let load = Load::start(&database);

    let mut warm = 0;
    for label in 1..=BUILDS {
        replace(&host, folder.path(), label).await;
        if label == 50 {
            warm = resident_kib(host.id());
        }
    }
    let added = load.finish().await;
    ledger.wait_for(usize::try_from(added).unwrap()).await;
    database.wait_until_no_jobs().await;
    let last = resident_kib(host.id());

    assert_exact(&host, &ledger, added);
    assert!(
        last as f64 <= warm as f64 * 1.1,
        "the host grew from {warm} KiB after 50 replacements to {last} KiB after {BUILDS}"
    );
    host.nth_event(&["retired"], BUILDS as usize).await;
    let children = children_of(host.id());
    assert_eq!(children.len(), 1, "children other than the live one: {children:?}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process_replacements_end_in_a_clear_refusal_and_the_current_build_serves_on() {
    let database = TestDatabase::installed().await;
    let (folder, ledger) = (tasks_folder(), Ledger::new());
    install(folder.path(), FILE, &build_labelled(0));
    let host = run(&database, folder.path(), &ledger).arg("--in-process").spawn();
    host.event("worker_ready", |_| true).await;
    let load = Load::start(&database);

    let mut label = 0;
    let refused = loop {
        label += 1;
        assert!(label < 500, "no ceiling was met");
        install(folder.path(), FILE, &build_labelled(label));
        let answer = host.nth_event(&["plugin_loaded", "file_rejected"], label as usize + 1).await;
        if answer["event"] == "file_rejected" {
            break answer;
        }
    };
    let added = load.finish().await;
    ledger.wait_for(usize::try_from(added).unwrap()).await;
    database.wait_until_no_jobs().await;

    assert_exact(&host, &ledger, added);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("restart") && message.contains("keeps serving"), "{message}");
    let served_by = ledger.entries().pop().unwrap().label;
    assert_eq!(served_by, format!("{:010}", label - 1), "the build before the refused one serves on");
    host.stop().await;
}

async fn replace(host: &Running, folder: &Path, label: u32) -> Value {
    install(folder, FILE, &build_labelled(label));
    // The build of the start was the first.
    host.nth_event(&["plugin_loaded"], label as usize + 1).await
}
