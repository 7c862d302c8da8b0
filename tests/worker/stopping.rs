//! The end of a host: what becomes of the jobs that run.

use std::{fs, path::Path};

use rustix::process::Signal;
use serde_json::json;

use super::workplace;
use crate::harness::{
    ledger::Ledger,
    plugins::install_plugin,
    processes::{children_of, wait_until_gone},
    program::{Taskbay, of_job},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_signal_lets_running_jobs_finish_and_their_results_are_stored() {
    let (database, folder) = workplace().await;
    let ledger = Ledger::new();
    let command = Taskbay::run(&database.url(), folder.path()).args(["-j", "2"]).ledger(&ledger);
    let mut host = command.listening().await;
    let until_told = json!({"until": ledger.gate()});
    let running = [database.add("echo", until_told.clone()).await, database.add("echo", until_told).await];
    for id in running {
        host.event("job_started", of_job(id)).await;
    }
    let waiting = database.add("nothing", json!({})).await;
    host.signal(Signal::TERM);
    host.event("stopping", |_| true).await;
    fs::write(ledger.gate(), "").expect("let them end");
    host.ended_by(Signal::TERM).await;
    for id in running {
        host.event("job_done", of_job(id)).await;
    }
    let left = database.jobs().await;
    assert_eq!(
        left.iter().map(|job| (job.id, job.attempts, job.locked_by.clone())).collect::<Vec<_>>(),
        [(waiting, 0, None)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_job_is_told_of_the_stop_and_may_end_early() {
    let (database, folder) = workplace().await;
    let settings = "[worker]\nabort_timeout = \"100ms\"\n";
    let mut host = Taskbay::run(&database.url(), folder.path()).settings(settings).listening().await;
    let id = database.add("wait_for_cancellation", json!({})).await;
    host.event("job_started", of_job(id)).await;
    host.signal(Signal::INT);
    host.ended_by(Signal::INT).await;
    let job = database.job(id).await;
    assert_eq!(job.last_error.as_deref(), Some("stopped because it was told to"));
    assert!(job.locked_by.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_or_the_end_of_the_time_cancels_what_runs_and_gives_it_back() {
    for (settings, signals) in [("", 2), ("[worker]\nabort_timeout = \"1ms\"\nstop_timeout = \"100ms\"", 1)] {
        let (database, folder) = workplace().await;
        let mut host = Taskbay::run(&database.url(), folder.path()).settings(settings).listening().await;
        let id = database.add_to_queue("sleep", json!({"ms": 600_000}), "q").await;
        host.event("job_started", of_job(id)).await;
        host.signal(Signal::TERM);
        host.event("stopping", |_| true).await;
        if signals == 2 {
            host.signal(Signal::TERM);
        }
        host.ended_by(Signal::TERM).await;
        let job = database.job(id).await;
        // As it was: an attempt that this host has ended is none.
        assert_eq!((job.attempts, job.locked_by, job.last_error), (0, None, None));
        assert_eq!(database.locked_queues().await, 0);
        assert!(database.seconds_until_run(id).await <= 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_leaves_no_child() {
    let (database, folder) = workplace().await;
    install_plugin(folder.path(), "typed-plugin");
    let host = Taskbay::run(&database.url(), folder.path()).args(["-j", "3"]).listening().await;
    // One of them never looks at anything any more.
    let spinning = database.add("spin", json!({})).await;
    let sleeping = database.add("sleep", json!({"ms": 600_000})).await;
    for id in [spinning, sleeping] {
        host.event("job_started", of_job(id)).await;
    }
    let children = children_of(host.id());
    assert_eq!(children.len(), 2, "{children:?}");
    host.signal(Signal::KILL);
    for (child, _) in children {
        wait_until_gone(child).await;
    }
    assert!(Path::new("/proc/self").exists(), "there are processes to look at");
}
