//! Jobs that are claimed before a slot is free: how many, and how they go back.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::harness::{
    plugins::{install_plugin, remove_plugin, tasks_folder},
    postgres::TestDatabase,
    processes::children_of,
    program::{Running, Taskbay, of_job},
    wait::until,
};

const HOUR: &str = "1h";

async fn workplace() -> (TestDatabase, tempfile::TempDir) {
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    install_plugin(folder.path(), "typed-plugin");
    (TestDatabase::installed().await, folder)
}

impl TestDatabase {
    /// How many jobs are locked, and how many attempts all jobs have used.
    async fn locked_and_attempts(&self) -> (usize, i16) {
        let jobs = self.jobs().await;
        let locked = jobs.iter().filter(|job| job.locked_by.is_some()).count();
        (locked, jobs.iter().map(|job| job.attempts).sum())
    }

    async fn wait_until_locked_and_attempts(&self, expected: (usize, i16)) {
        until(format_args!("{expected:?} locked and attempts"), async || match self.locked_and_attempts().await {
            seen if seen == expected => Ok(()),
            seen => Err(seen),
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_jobs_are_claimed_as_slots_become_free() {
    let (database, folder) = workplace().await;
    let mut ids = Vec::new();
    for _ in 0..9 {
        ids.push(database.add("sleep", json!({"ms": 700})).await);
    }
    let host = Taskbay::run(&database.url(), folder.path()).args(["-j", "2"]).ready().await;
    for id in ids {
        host.event("job_started", of_job(id)).await;
        let (locked, _) = database.locked_and_attempts().await;
        // Two run, the verdict of one may be on its way, and one is within 100 ms of its start.
        assert!(locked <= 4, "{locked} jobs are locked by a host with two slots");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_too_long_behind_slow_jobs_is_left_to_others_with_its_attempt() {
    for slots in [1, 10] {
        let (database, folder) = workplace().await;
        let command =
            Taskbay::run(&database.url(), folder.path()).args(["-j", &slots.to_string(), "--claim", "marked"]);
        let host = command.ready().await;
        database.add_many("nothing", 30).await;
        database.wait_until_no_jobs().await;
        // Who has seen short jobs only takes these for short ones.
        let sql = "select max(id) from graphile_worker.add_jobs(array(
                     select row(case when n <= $1 then 'wait_for_cancellation' else 'nothing' end, '{}', null, now(), 25, null,
                       n, null)::graphile_worker.job_spec
                     from generate_series(1, 40 + $1) as n))";
        database.id_of(sql, &[&slots]).await;
        host.nth_event(&["job_started"], 30 + slots as usize).await;
        assert_leaves_to_others(&host, &database, slots).await;
    }
}

/// Another host works what this one gives back while its slots are busy, and this one does not claim it again.
async fn assert_leaves_to_others(host: &Running, database: &TestDatabase, slots: i32) {
    let busy_since = host.lines().len();
    host.event("job_returned", |_| true).await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    let other = Taskbay::run(&database.url(), folder.path()).ready().await;
    database.wait_until_jobs(slots.into()).await;
    for done in other.events("job_done") {
        assert_eq!(done["attempt"], 1, "{done}");
    }
    other.stop().await;
    let lines = host.lines().into_iter().skip(busy_since).filter(|line| line["event"] == "job_returned");
    let mut returned: Vec<i64> = lines.filter_map(|line| line["job"].as_i64()).collect();
    let all = returned.len();
    returned.sort_unstable();
    returned.dedup();
    assert_eq!(returned.len(), all, "jobs were claimed again by a host without a free slot");
    assert_eq!(database.locked_and_attempts().await, (database.jobs().await.len(), slots as i16));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_queue_holds_as_many_as_it_was_told_and_gives_them_back_at_the_end() {
    let (database, folder) = workplace().await;
    for _ in 0..20 {
        database.add("wait_for_cancellation", json!({})).await;
    }
    let command = Taskbay::run(&database.url(), folder.path()).args(["-j", "1"]);
    let host = command.settings("[worker]\nlocal_queue_size = 6").ready().await;
    host.event("job_started", |_| true).await;
    // One runs and five wait; the next six are claimed when none waits.
    database.wait_until_locked_and_attempts((6, 6)).await;
    host.signal(Signal::TERM);
    host.nth_event(&["job_returned"], 5).await;
    database.wait_until_locked_and_attempts((1, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_jobs_go_back_when_their_task_vanishes() {
    let (database, folder) = workplace().await;
    database.add("wait_for_cancellation", json!({})).await;
    for _ in 0..5 {
        database.add("greet", json!({"to": "Ada", "times": 1})).await;
    }
    let command = Taskbay::run(&database.url(), folder.path()).args(["-j", "1", "--poll-interval", HOUR]);
    let host = command.settings("[worker]\nlocal_queue_size = 6").ready().await;
    database.wait_until_locked_and_attempts((6, 6)).await;
    remove_plugin(folder.path(), "typed-plugin");
    host.nth_event(&["job_returned"], 5).await;
    database.wait_until_locked_and_attempts((1, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_queue_whose_time_is_up_claims_nothing_until_a_slot_is_free() {
    let (database, folder) = workplace().await;
    let slow = database.add("wait_for_cancellation", json!({})).await;
    database.add_many("nothing", 5).await;
    let command = Taskbay::run(&database.url(), folder.path()).args(["-j", "1"]);
    let host = command.settings("[worker]\nlocal_queue_size = 6\nlocal_queue_ttl = \"300ms\"").ready().await;
    host.event("job_started", of_job(slow)).await;
    assert_leaves_to_others(&host, &database, 1).await;
    let next = database.add("nothing", json!({})).await;
    // The slow job ends with its plugin's process.
    for (plugin, _) in children_of(host.id()) {
        kill_process(Pid::from_raw(plugin as i32).expect("a process"), Signal::KILL).expect("kill it");
    }
    host.event("job_failed", of_job(slow)).await;
    host.event("job_done", of_job(next)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_claim_that_brought_few_enough_new_jobs_end_the_wait() {
    let (database, folder) = workplace().await;
    let settings = "[worker]\nlocal_queue_size = 5\nrefetch_delay = \"1h\"\nrefetch_max_abort_threshold = 10";
    let command = Taskbay::run(&database.url(), folder.path()).args(["--poll-interval", HOUR, "--log-level", "trace"]);
    let host = command.settings(settings).spawn();
    host.event("listening", |_| true).await;
    host.event("claim_empty", |_| true).await;
    let sql = "select max(id) from graphile_worker.add_jobs(array(
                 select row('nothing', '{}', null, now(), 25, null, 0, null)::graphile_worker.job_spec
                 from generate_series(1, 10)))";
    database.id_of(sql, &[]).await;
    database.wait_until_no_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_wait_for_others_as_long_as_they_were_told_but_not_at_the_end() {
    let (database, folder) = workplace().await;
    remove_plugin(folder.path(), "typed-plugin");
    let done = database.add("nothing", json!({})).await;
    let failing = database.add("fail", json!({"message": "no luck"})).await;
    let command = Taskbay::run(&database.url(), folder.path());
    let settings = "[worker]\nclaim = \"marked\"\ncomplete_job_batch_delay = \"1h\"\nfail_job_batch_delay = \"1h\"";
    let mut host = command.settings(settings).ready().await;
    for id in [done, failing] {
        host.event("job_started", of_job(id)).await;
    }
    // Meanwhile another host stores its result at once.
    let others = tasks_folder();
    install_plugin(others.path(), "typed-plugin");
    let other = Taskbay::run(&database.url(), others.path()).ready().await;
    let prompt = database.add("greet", json!({"to": "Ada", "times": 1})).await;
    other.event("job_done", of_job(prompt)).await;
    assert_eq!(database.locked_and_attempts().await, (2, 2));
    host.signal(Signal::TERM);
    host.ended().await;
    let jobs = database.jobs().await;
    assert!(jobs.iter().all(|job| job.id != done));
    let job = database.job(failing).await;
    assert_eq!((job.last_error.as_deref(), job.locked_by), (Some("no luck"), None));
}
