//! A build that crashes although the one before it did not is taken back.

use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{
    ledger::Ledger,
    plugins::{build_labelled, build_labelled_that, file_name, install, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay, of_job},
};

const PLUGIN: &str = "misbehaving";

fn put(folder: &Path, bytes: &[u8]) {
    install(folder, &file_name(PLUGIN), bytes);
}

async fn echo(host: &Running, database: &TestDatabase, event: &'static str) {
    let id = database.add("echo", json!({})).await;
    host.event(event, of_job(id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_crashes_goes_back_to_the_one_before_it_until_its_file_changes() {
    let (database, ledger, folder) = (TestDatabase::installed().await, Ledger::new(), tasks_folder());
    put(folder.path(), &build_labelled(1));
    let host = Taskbay::run(&database.url(), folder.path()).ledger(&ledger).spawn();
    echo(&host, &database, "job_done").await;

    let crashing = build_labelled_that(2, "echo-crash");
    put(folder.path(), &crashing);
    host.event("plugin_loaded", |line| line["replaced"].is_string()).await;
    for _ in 0..3 {
        echo(&host, &database, "job_failed").await;
    }
    let said = host.event("plugin_rolled_back", |_| true).await;
    assert_eq!((&said["plugin"], &said["crashes"], &said["level"]), (&json!(PLUGIN), &json!(3), &json!("ERROR")));
    let text = said["message"].as_str().unwrap();
    assert!(
        text.contains("crashed 3 times, which build") && text.contains("until libmisbehaving.so changes"),
        "{text}"
    );
    // The good build is in force, and does what the other one could not.
    host.event("plugin_loaded", |line| line["replaced"] == said["build"] && line["build"] == said["serving"]).await;
    database.wait_until_no_jobs().await;
    assert!(ledger.entries().iter().all(|run| run.label == "0000000001"), "the second build ended no job");

    // Neither a look nor the same bytes once more are a change.
    put(folder.path(), &crashing);
    host.signal(Signal::HUP);
    // A file that comes now is only looked at after that.
    install(folder.path(), "libother.so", b"no plugin");
    host.event("file_rejected", |line| line["file"] == "libother.so").await;
    echo(&host, &database, "job_done").await;
    assert_eq!(ledger.entries().last().unwrap().label, "0000000001");

    put(folder.path(), &build_labelled(3));
    host.event("plugin_loaded", |line| line["replaced"] == said["serving"] && line["build"] != said["build"]).await;
    echo(&host, &database, "job_done").await;
    assert_eq!(ledger.entries().last().unwrap().label, "0000000003");
    assert_eq!(host.events("plugin_rolled_back").len(), 1);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_stays_where_that_is_wanted_or_the_one_before_it_crashed_as_well() {
    for (settings, before) in [("[plugins.default]\nroll_back = false", "normal"), ("", "echo-crash")] {
        let (database, ledger, folder) = (TestDatabase::installed().await, Ledger::new(), tasks_folder());
        put(folder.path(), &build_labelled_that(1, before));
        let host = Taskbay::run(&database.url(), folder.path()).settings(settings).ledger(&ledger).spawn();
        echo(&host, &database, if before == "normal" { "job_done" } else { "job_failed" }).await;
        put(folder.path(), &build_labelled_that(2, "echo-crash"));
        let loaded = host.event("plugin_loaded", |line| line["replaced"].is_string()).await;
        let quarantined = host.event("plugin_quarantined", |_| true);
        let crashing = async {
            loop {
                database.add("echo", json!({})).await;
                let crashes = host.events("plugin_crashed").len();
                host.nth_event(&["plugin_crashed", "plugin_quarantined"], crashes).await;
            }
        };
        let quarantined = tokio::select! {
            line = quarantined => line,
            () = crashing => unreachable!("it goes on for ever"),
        };
        assert_eq!(quarantined["build"], loaded["build"], "{before}");
        assert!(host.events("plugin_rolled_back").is_empty(), "{before}");
        host.stop().await;
    }
}

/// Whichever of the two the host notices first: the next build, or that the one before it has crashed too often.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_does_not_start_is_refused_and_the_crashing_one_before_it_rolled_back() {
    let (database, ledger, folder) = (TestDatabase::installed().await, Ledger::new(), tasks_folder());
    put(folder.path(), &build_labelled(1));
    let settings = "[plugins.misbehaving]\nstart_timeout = \"5s\"";
    let host = Taskbay::run(&database.url(), folder.path()).settings(settings).ledger(&ledger).spawn();
    echo(&host, &database, "job_done").await;
    put(folder.path(), &build_labelled_that(2, "echo-crash"));
    let crashing = host.event("plugin_loaded", |line| line["replaced"].is_string()).await;
    for _ in 0..2 {
        echo(&host, &database, "job_failed").await;
    }

    put(folder.path(), &build_labelled_that(3, "start-hang"));
    echo(&host, &database, "job_failed").await;
    let refused = host.event("file_rejected", |_| true).await;
    assert!(refused["message"].as_str().is_some_and(|said| said.contains("did not finish within 5s")), "{refused}");
    let back = host.event("plugin_loaded", |line| line["replaced"] == crashing["build"]).await;
    assert_eq!(back["build"], crashing["replaced"]);
    database.wait_until_no_jobs().await;
    host.stop().await;
}
