//! The same crontab in workers of the npm package.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Child,
    time::timeout,
};

use super::{Setup, eventually, eventually_within};
use crate::harness::{
    node,
    plugins::tasks_folder,
    postgres::TestDatabase,
    program::{DEADLINE, Taskbay},
};

/// A minute is waited for, and on a slow machine another one.
const TWO_MINUTES_AND_MORE: Duration = Duration::from_secs(180);

/// A Node worker and what it said.
struct NodeWorker {
    process: Child,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl NodeWorker {
    async fn start(database: &TestDatabase, crontab: &str) -> Self {
        let mut command = node::script("cron.cjs", &database.url(), "graphile_worker");
        let mut process =
            command.arg(crontab).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start Node");
        let mut output = BufReader::new(process.stdout.take().expect("its output")).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                heard.lock().unwrap().push(serde_json::from_str(&line).expect("Node says JSON"));
            }
        });
        let worker = Self { process, lines };
        eventually(async || !worker.said("started").is_empty()).await;
        worker
    }

    fn said(&self, event: &str) -> Vec<Value> {
        self.lines.lock().unwrap().iter().filter(|line| line["event"] == *event).cloned().collect()
    }

    async fn stop(mut self) {
        let _ = self.process.stdin.take().expect("its input").shutdown().await;
        let status = timeout(DEADLINE, self.process.wait()).await.expect("Node ends").expect("wait for Node");
        assert!(status.success(), "{status}");
    }
}

/// The minutes of which somebody says that their jobs are stored.
fn minutes(lines: &[Value], field: &str) -> Vec<Timestamp> {
    lines.iter().map(|line| line[field].as_str().expect("a time").parse().expect("a time")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_and_a_node_worker_add_the_job_of_a_real_minute_once() {
    let database = TestDatabase::installed().await;
    let crontab = "* * * * * tick\n* * * * * keyed ?jobKey=k";
    let folder = tasks_folder();
    let node = NodeWorker::start(&database, crontab).await;
    let mut hosts = Vec::new();
    for _ in 0..2 {
        let host = Taskbay::run(&database.url(), folder.path());
        std::fs::write(host.home().join("crontab"), crontab).unwrap();
        hosts.push(host.spawn());
    }
    for host in &hosts {
        host.event("cron_started", |_| true).await;
    }
    // Until there is a minute that all three have stored, or found to be stored.
    let common = || {
        let mut seen = hosts.iter().map(|host| minutes(&host.events("cron_scheduled"), "timestamp"));
        let (one, other) = (seen.next().unwrap(), seen.next().unwrap());
        let of_node = minutes(&node.said("scheduled"), "timestamp");
        of_node.into_iter().find(|minute| one.contains(minute) && other.contains(minute))
    };
    eventually_within(TWO_MINUTES_AND_MORE, async || common().is_some()).await;
    let minute = common().unwrap();
    let jobs = database.scheduled().await;
    let ticks = |at: Timestamp| jobs.iter().filter(|job| job.task == "tick" && job.run_at == at).count();
    assert_eq!(ticks(minute), 1);
    assert!(jobs.iter().all(|job| job.task != "tick" || ticks(job.run_at) == 1), "{jobs:?}");
    assert_eq!(jobs.iter().filter(|job| job.task == "keyed").count(), 1);
    node.stop().await;
    for host in hosts {
        host.stop().await;
    }
}

/// Who starts with a crontab, makes up for what was missed, and stops.
async fn visit(database: &TestDatabase, is_node: bool, crontab: &str) {
    if is_node {
        NodeWorker::start(database, crontab).await.stop().await;
    } else {
        Setup::at(&Timestamp::now().to_string()).crontab(crontab).start(database).await.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_node_and_we_remember_of_schedules_is_interchangeable() {
    const CRONTAB: &str = "* * * * * often ?fill=5m {n: 1}\n0 0 29 2 * fresh ?fill=5m";
    for node_first in [true, false] {
        let database = TestDatabase::installed().await;
        database.make_known("often", "2021-01-01T00:00:00Z", None).await;
        visit(&database, node_first, CRONTAB).await;
        let first = database.scheduled().await;
        assert!(first.len() >= 5 && first.iter().all(|job| job.backfilled), "{first:?}");
        let (fresh_since, never) = database.known("fresh").await.expect("it was registered");
        assert_eq!(never, None);

        visit(&database, !node_first, CRONTAB).await;
        let both = database.scheduled().await;
        // A minute may have begun in between; nothing before it is done again.
        assert_eq!(both[..first.len()], first);
        let mut minutes: Vec<Timestamp> = both.iter().map(|job| job.run_at).collect();
        assert!(minutes.windows(2).all(|pair| pair[1].duration_since(pair[0]).as_secs() == 60), "{minutes:?}");
        assert_eq!(database.known("often").await.unwrap().1, minutes.pop());
        assert_eq!(database.known("fresh").await, Some((fresh_since, None)));

        // What the second one missed in the meantime, so that there are jobs of both.
        let back =
            "update graphile_worker._private_known_crontabs set last_execution = last_execution - interval '1 minute'
                    where identifier = 'often'";
        database.execute(back).await;
        database.execute("delete from graphile_worker._private_jobs where run_at = (select max(run_at) from graphile_worker.jobs)").await;
        visit(&database, !node_first, CRONTAB).await;
        let jobs = database.jobs().await;
        let shape = |text: &str| {
            let mut payload: Value = serde_json::from_str(text).unwrap();
            let ts = payload["_cron"]["ts"].take();
            (payload, ts.as_str().unwrap().len(), ts.as_str().unwrap()[16..].to_owned())
        };
        assert_eq!(shape(&jobs[0].payload), shape(&jobs[jobs.len() - 1].payload));
        assert_eq!(jobs[0].max_attempts, jobs[jobs.len() - 1].max_attempts);
    }
}
