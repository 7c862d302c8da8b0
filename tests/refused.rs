//! One job that the database does not let be stored, claimed or read: it is named and held back, and all others go on.

mod claims;
mod reads;
mod results;
mod siblings;

use std::{collections::HashMap, process::Output, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{
    ledger::Ledger,
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{DEADLINE, Running, Taskbay},
};

/// Enough short jobs for the express lane.
const WARM_UP: usize = 60;

/// A database, a folder with `misbehaving`, and what has run.
struct Workplace {
    database: TestDatabase,
    folder: tempfile::TempDir,
    ledger: Ledger,
}

impl Workplace {
    async fn new() -> Self {
        Self::on(TestDatabase::installed().await)
    }

    fn on(database: TestDatabase) -> Self {
        let folder = tasks_folder();
        install_plugin(folder.path(), "misbehaving");
        Self { database, folder, ledger: Ledger::new() }
    }

    fn command(&self, lane: &str) -> Taskbay {
        Taskbay::run(&self.database.url(), self.folder.path()).args(["--claim", lane]).ledger(&self.ledger)
    }

    /// A host that has found `echo` to be short if that matters for the lane.
    async fn host(&self, lane: &str) -> Running {
        let host = self.command(lane).spawn();
        host.event("worker_ready", |_| true).await;
        if lane == "express" {
            // The claim after those that show it learns it.
            for _ in 0..3 {
                self.add_many(WARM_UP).await;
                self.database.wait_until_no_jobs().await;
            }
        }
        host
    }

    /// Adds jobs in one transaction and gives their ids.
    async fn add_many(&self, count: usize) -> Vec<i64> {
        let sql = format!(
            "select coalesce(array_agg(job.id order by job.id), '{{}}') from graphile_worker.add_jobs(array(
               select row('echo', json_build_object('n', n), null, now(), 25, null, 0, null)::graphile_worker.job_spec
               from generate_series(1, {count}) as n)) as job"
        );
        self.database.client().await.query_one(&sql, &[]).await.expect("add jobs").get(0)
    }

    /// How often each job was run to its end.
    fn runs(&self) -> HashMap<i64, usize> {
        let mut runs = HashMap::new();
        for entry in self.ledger.entries().iter().filter(|entry| entry.event == "ended") {
            *runs.entry(entry.job).or_default() += 1;
        }
        runs
    }

    /// The ids of all jobs.
    async fn left(&self) -> Vec<i64> {
        let sql = "select coalesce(array_agg(id order by id), '{}') from graphile_worker._private_jobs";
        self.database.client().await.query_one(sql, &[]).await.expect("read the ids").get(0)
    }

    /// Waits until these are the only jobs.
    async fn wait_until_left(&self, jobs: &[i64]) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = self.left().await;
            if left == jobs {
                return;
            }
            assert!(Instant::now() < deadline, "{left:?} are left, not {jobs:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn jobs(&self, args: &[&str]) -> Output {
        Taskbay::command("jobs").args(args).env("DATABASE_URL", self.database.url()).output()
    }
}

/// Has the database refuse `what` ("update" or "delete") where `when` holds, with these words.
async fn refuse(database: &TestDatabase, what: &str, when: &str) {
    database
        .execute(&format!(
            "create function refuse_{what}() returns trigger language plpgsql as $$
             begin raise exception 'not this one, says the audit' using detail = 'job ' || old.id; end $$;
             create trigger refuse_{what} before {what} on graphile_worker._private_jobs
             for each row when ({when}) execute function refuse_{what}()",
        ))
        .await;
}

async fn allow(database: &TestDatabase, what: &str) {
    database.execute(&format!("drop function refuse_{what} cascade")).await;
}

fn of_job(id: i64) -> impl Fn(&Value) -> bool {
    move |line| line["job"] == id
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

fn nothing() -> Value {
    json!({})
}
