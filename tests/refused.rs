//! One job that the database does not let be stored, claimed or read: it is named and held back, and all others go on.

mod claims;
mod reads;
mod results;
mod siblings;

use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{
    postgres::TestDatabase,
    program::{Running, Taskbay, of_job},
    wait::until,
    workplace::{FEW_SLOTS, Workplace},
};

impl Workplace {
    /// A host of this lane. That of the express lane works `echo` by it.
    async fn host(&self, lane: &str) -> Running {
        let command = self.command().args(["--claim", lane]);
        if lane != "express" {
            return command.ready().await;
        }
        let host = command.args(FEW_SLOTS).ready().await;
        self.count_marks().await;
        self.wait_until_express().await;
        host
    }

    /// The ids of all jobs.
    async fn left(&self) -> Vec<i64> {
        let sql = "select coalesce(array_agg(id order by id), '{}') from graphile_worker._private_jobs";
        self.database.client().await.query_one(sql, &[]).await.expect("read the ids").get(0)
    }

    /// Waits until these are the only jobs.
    async fn wait_until_left(&self, jobs: &[i64]) {
        until(format_args!("{jobs:?} are left"), async || {
            let left = self.left().await;
            if left == jobs { Ok(()) } else { Err(left) }
        })
        .await;
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
