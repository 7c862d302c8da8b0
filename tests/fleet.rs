//! Mixed fleets: workers of several releases of the npm package and hosts of this program on one database at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use taskbay::queue::{JobKeyMode, NewJob};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Child,
    time::Instant,
};

use crate::harness::{
    ledger::{Entry, Ledger},
    node::{self, Release},
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay},
    wait::until,
};

const JOBS: usize = 20_000;
/// All four have it; each of its minutes is to be added once.
const CRONTAB: &str = "* * * * * echo ?id=tick {n: -1}\n";
/// So many jobs fail for good.
const HOPELESS: usize = JOBS / 200;

/// The nth job: every mark of a job is there some hundred times.
fn job(n: usize) -> NewJob {
    let mut payload = json!({"n": n});
    let mut job = NewJob { priority: Some((n % 11) as i16 - 5), ..NewJob::new("echo") };
    match n % 20 {
        0 => {
            job.queue_name = Some(format!("queue {}", n / 20 % 40));
            payload["announce"] = json!(true);
            // Long enough for others to find the queue busy.
            payload["sleep_ms"] = json!(10);
        }
        // Two jobs, from different places, for each key.
        1 => job.job_key = Some(format!("key {}", n / 40)),
        2 if n % 40 == 2 => payload["fail_until"] = json!(1),
        3 if n % 200 == 3 => {
            payload["fail_until"] = json!(99);
            job.max_attempts = Some(1);
        }
        4 if n % 80 == 4 => {
            // Fails in a queue, which must not stay locked.
            job.queue_name = Some(format!("queue {}", n / 80 % 40));
            payload["announce"] = json!(true);
            payload["fail_until"] = json!(1);
        }
        _ => {}
    }
    job.payload = Some(payload.to_string());
    job
}

/// As `addJobs` of the npm package takes it.
fn spec(job: &NewJob) -> Value {
    let payload: Value = serde_json::from_str(job.payload.as_deref().expect("a payload")).expect("JSON");
    let mut spec = json!({"identifier": job.identifier, "payload": payload, "priority": job.priority});
    for (name, value) in [
        ("queueName", job.queue_name.clone().map(Value::from)),
        ("jobKey", job.job_key.clone().map(Value::from)),
        ("maxAttempts", job.max_attempts.map(Value::from)),
    ] {
        if let Some(value) = value {
            spec[name] = value;
        }
    }
    spec
}

/// The workers at work.
struct Fleet {
    hosts: Vec<Running>,
    workers: Vec<Child>,
    _folder: tempfile::TempDir,
}

impl Fleet {
    async fn start(database: &TestDatabase, ledger: &Ledger, releases: &[Release]) -> Self {
        let folder = tasks_folder();
        install_plugin(folder.path(), "misbehaving");
        let mut fleet = Self { hosts: Vec::new(), workers: Vec::new(), _folder: folder };
        let crontab = ledger.path().with_file_name("crontab");
        std::fs::write(&crontab, CRONTAB).expect("write the crontab");
        for release in releases {
            fleet.workers.push(node_worker(*release, database, ledger).await);
        }
        for _ in 0..2 {
            let host = Taskbay::run(&database.url(), fleet._folder.path());
            let host = host.args(["--log-level", "info", "--poll-interval", "500ms", "-j", "8"]);
            let host = host.arg("--crontab").arg(&crontab).ledger(ledger).spawn();
            host.event("worker_ready", |_| true).await;
            fleet.hosts.push(host);
        }
        fleet
    }

    async fn stop(self) {
        for host in self.hosts {
            host.stop().await;
        }
        for mut worker in self.workers {
            drop(worker.stdin.take());
            assert!(worker.wait().await.expect("wait for a Node worker").success());
        }
    }
}

async fn node_worker(release: Release, database: &TestDatabase, ledger: &Ledger) -> Child {
    let mut command = node::script_with(release, "fleet.cjs", &database.url(), "graphile_worker");
    let mut worker = command
        .arg(ledger.path())
        .arg(CRONTAB)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // It says every failure of a job there.
        .stderr(Stdio::null())
        .spawn()
        .expect("start a Node worker");
    let mut lines = BufReader::new(worker.stdout.take().expect("its output is piped")).lines();
    assert_eq!(lines.next_line().await.expect("read from a Node worker").as_deref(), Some("ready"));
    worker
}

/// Adds every third job by the npm package, every third by SQL, and every third by this program, all at once.
async fn add_all(database: &TestDatabase, release: Release) {
    let third = |rest: usize| (0..JOBS).filter(move |n| n % 3 == rest).map(job);
    let by_node = async {
        let mut script = node::script_with(release, "add_jobs.cjs", &database.url(), "graphile_worker");
        let mut adding = script.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("run add_jobs.cjs");
        let list = Value::from(third(0).map(|job| spec(&job)).collect::<Vec<_>>()).to_string();
        let mut input = adding.stdin.take().expect("its input is piped");
        input.write_all(list.as_bytes()).await.expect("write the jobs");
        drop(input);
        assert!(adding.wait().await.expect("wait for add_jobs.cjs").success());
    };
    let by_sql = async {
        let client = database.client().await;
        let statement = "select graphile_worker.add_job($1, $2, queue_name := $3, max_attempts := $4, job_key := $5,
                                                        priority := $6)";
        let statement = client.prepare(statement).await.expect("prepare a statement");
        for job in third(1) {
            let payload: Value = serde_json::from_str(job.payload.as_deref().unwrap()).unwrap();
            let (attempts, priority) = (job.max_attempts.map(i32::from), job.priority.map(i32::from));
            client
                .execute(&statement, &[&"echo", &payload, &job.queue_name, &attempts, &job.job_key, &priority])
                .await
                .expect("add a job by SQL");
        }
    };
    let by_us = async {
        let session = database.database().session().await.expect("a session");
        let jobs: Vec<NewJob> = third(2).map(|job| NewJob { job_key_mode: JobKeyMode::PreserveRunAt, ..job }).collect();
        for some in jobs.chunks(500) {
            session.add_jobs(some).await.expect("add jobs");
        }
    };
    tokio::join!(by_node, by_sql, by_us);
}

async fn wait_until_settled(database: &TestDatabase) {
    let client = database.client().await;
    let sql =
        "select count(*) from graphile_worker._private_jobs where attempts < max_attempts or locked_at is not null";
    until(format_args!("all of {JOBS} jobs are done or have failed for good"), async || {
        let left: i64 = client.query_one(sql, &[]).await.expect("count the jobs").get(0);
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
}

/// What must hold of a ledger of these jobs, whoever ran them.
fn check(entries: &[Entry]) {
    let ended: Vec<&Entry> = entries.iter().filter(|entry| entry.event == "ended").collect();
    let mut runs: HashMap<i64, Vec<i16>> = HashMap::new();
    for entry in &ended {
        runs.entry(entry.n()).or_default().push(entry.attempt);
    }
    let attempts = |n: usize| runs.get(&(n as i64)).map_or(&[][..], Vec::as_slice);
    for n in 0..JOBS {
        let job = job(n);
        let payload: Value = serde_json::from_str(job.payload.as_deref().unwrap()).unwrap();
        if let Some(key) = job.job_key {
            assert!(attempts(n).len() <= 1, "job {n} under {key:?} ran {:?}", attempts(n));
        } else if payload["fail_until"] == 1 {
            assert_eq!(attempts(n), [1, 2], "job {n}, which fails once");
        } else {
            assert_eq!(attempts(n), [1], "job {n}");
        }
    }
    for key in 0..JOBS / 40 {
        let both = attempts(key * 40 + 1).len() + attempts(key * 40 + 21).len();
        assert!(both > 0, "neither job under the key {key} was run");
    }
    one_at_a_time_in_each_queue(entries);
}

/// The ledger's order is that of the writes, and each run writes between its claim and its completion.
fn one_at_a_time_in_each_queue(entries: &[Entry]) {
    let mut busy: BTreeMap<&str, &Entry> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for entry in entries {
        let Some(queue) = entry.queue.as_deref() else { continue };
        seen.insert(queue);
        if entry.event == "began" {
            let before = busy.insert(queue, entry);
            assert!(before.is_none(), "two jobs of {queue:?} at once: {before:?} and {entry:?}");
        } else {
            let began = busy.remove(queue).unwrap_or_else(|| panic!("{entry:?} ended without a begin"));
            assert_eq!((began.job, began.pid), (entry.job, entry.pid), "in {queue:?}");
        }
    }
    assert!(busy.is_empty(), "{busy:?} never ended");
    assert_eq!(seen.len(), 40, "all queues were worked");
}

/// Waits for a minute to come, if none came yet.
async fn each_minute_is_added_once(ledger: &Ledger) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let minutes = loop {
        let ticks = ledger.entries().into_iter().filter(|entry| entry.event == "ended" && entry.n() == -1);
        let minutes: Vec<String> = ticks
            .map(|entry| {
                let payload: Value = serde_json::from_str(&entry.payload).expect("JSON");
                payload["_cron"]["ts"].as_str().expect("a time").to_owned()
            })
            .collect();
        if !minutes.is_empty() {
            break minutes;
        }
        assert!(Instant::now() < deadline, "no minute came");
        // A file tells nobody that it grew, and it does so once a minute.
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let different: HashSet<&String> = minutes.iter().collect();
    assert_eq!(different.len(), minutes.len(), "a minute was added more than once: {minutes:?}");
}

async fn what_is_left_is_what_should_be(database: &TestDatabase, revision: i64) {
    let mut left = database.jobs().await;
    // A minute may have come while the workers were being stopped.
    left.retain(|job| !job.payload.contains("_cron"));
    assert_eq!(left.len(), HOPELESS, "{left:?}");
    assert!(left.iter().all(|job| job.last_error.as_deref() == Some("failed as asked") && job.locked_by.is_none()));
    assert_eq!(database.locked_queues().await, 0);
    assert_eq!(database.id_of("select max(id)::int8 from graphile_worker.migrations", &[]).await, revision);
}

async fn work_together(database: TestDatabase, releases: [Release; 2], revision: i64) {
    let ledger = Ledger::new();
    let fleet = Fleet::start(&database, &ledger, &releases).await;
    add_all(&database, releases[0]).await;
    wait_until_settled(&database).await;
    let entries = ledger.entries();
    check(&entries);
    let workers: HashSet<u32> = entries.iter().map(|entry| entry.pid).collect();
    assert_eq!(workers.len(), 4, "each of the four had its share");
    each_minute_is_added_once(&ledger).await;
    fleet.stop().await;
    what_is_left_is_what_should_be(&database, revision).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_0_18_and_0_17_and_two_hosts_share_twenty_thousand_jobs() {
    let database = TestDatabase::installed().await;
    work_together(database, [Release::Newest, node::V0_17], 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_0_16_and_two_hosts_share_a_database_that_stays_at_revision_18() {
    let database = TestDatabase::new().await;
    node::install_schema_of("0.16.6", &database.url(), "graphile_worker").await;
    work_together(database, [node::V0_16, node::V0_16], 18).await;
}
