//! Where an upgrade may start and stop, and who can work there.

use std::process::Stdio;

use taskbay::{
    events::Events,
    listener::listen,
    migrate::{self, MigrateError, Upgrade},
    queue::Notification,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{SCHEMA, contents, database_of, done, refused, revision};
use crate::{
    database::catalog::assert_like_the_package,
    harness::{
        node::{self, Release},
        plugins::tasks_folder,
        postgres::TestDatabase,
        program::{DEADLINE, Taskbay},
    },
};

/// A database at any revision, as an installer leaves it that ended there.
async fn database_at(number: usize) -> TestDatabase {
    let database = TestDatabase::new().await;
    let mut sql = "create schema graphile_worker;
        create table graphile_worker.migrations (id int primary key, ts timestamptz default now() not null);"
        .to_owned();
    for (index, step) in node::steps_of_the_package().iter().take(number).enumerate() {
        sql.push_str(&step.replace(":GRAPHILE_WORKER_SCHEMA", SCHEMA));
        sql.push_str(&format!(";\ninsert into graphile_worker.migrations (id) values ({});", index + 1));
    }
    database.execute(&sql).await;
    database
}

#[tokio::test]
async fn every_revision_is_one_to_start_from() {
    for number in 1..=19 {
        let database = database_at(number).await;
        database.execute("select graphile_worker.add_job('kept', '{\"n\": 1}', 'a queue')").await;
        let upgraded =
            migrate::upgrade(&database.database(), 20).await.unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(upgraded.from, i32::try_from(number).ok());
        assert_like_the_package(&database, SCHEMA).await;
        let job = database.only_job().await;
        assert_eq!(
            (job.task.as_str(), job.payload.as_str(), job.queue.as_deref()),
            ("kept", "{\"n\": 1}", Some("a queue"))
        );
    }
}

#[tokio::test]
async fn an_upgrade_stops_where_it_is_told_and_node_goes_on_from_there() {
    for to in [18, 19, 20] {
        for from in [0, 5, 12, 16, 17] {
            let database = if from == 0 { TestDatabase::new().await } else { database_at(from).await };
            let said = done(super::migrate(&database).args(["--to", &to.to_string()]));
            assert_eq!(revision(&database).await, to, "{said}");
            let rows =
                "select count(*) from graphile_worker.migrations where breaking = (id in (1, 3, 11, 13, 14, 16, 19))";
            assert_eq!(database.id_of(rows, &[]).await, i64::from(to), "all revisions, with their marks");

            node::install_schema(&database.url(), SCHEMA).await;
            assert_like_the_package(&database, SCHEMA).await;
        }
    }
}

#[tokio::test]
async fn each_generation_of_node_works_where_we_stopped_for_it() {
    let database = database_of("0.13.0").await;
    for (to, release) in [(18, node::V0_16), (19, node::V0_17), (20, Release::Newest)] {
        done(super::migrate(&database).args(["--to", &to.to_string()]));
        database.execute("select graphile_worker.add_job('theirs', '{\"n\": 1}', 'a queue')").await;
        let mut work = node::script_with(release, "work.cjs", &database.url(), SCHEMA);
        let output = work.args(["--once", "theirs"]).output().await.unwrap();
        assert!(output.status.success(), "{release:?}: {}", String::from_utf8_lossy(&output.stderr));
        let worked: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(worked["queue"], "a queue", "{release:?}");
        database.wait_until_no_jobs().await;
        assert_eq!(revision(&database).await, to, "{release:?} found nothing to do");
    }
}

#[tokio::test]
async fn nothing_is_taken_back_and_no_other_target_is_taken() {
    let database = database_of("0.17.3").await;
    let before = contents(&database).await;
    for to in ["18", "19"] {
        let said = done(super::migrate(&database).args(["--to", to]));
        assert!(said.contains("nothing to do: found schema graphile_worker in database"), "{said}");
        assert!(said.ends_with("at revision 19\n"), "{said}");
    }
    for to in ["17", "21", "x"] {
        let said = refused(super::migrate(&database).args(["--to", to]), 2);
        assert!(said.contains("--to"), "{said}");
    }
    assert_eq!(contents(&database).await, before);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_changes_nothing() {
    let database = database_of("0.15.1").await;
    database.execute("select graphile_worker.add_job('t'); update graphile_worker.jobs set locked_at = now(), locked_by = 'worker-1'").await;
    let before = contents(&database).await;
    let said = done(super::migrate(&database).args(["--dry-run", "--to", "18"]));
    assert_eq!(contents(&database).await, before);
    assert!(said.contains("is at revision 14; the way is\n  15 "), "{said}");
    assert!(said.contains("\n  16 breaking  ") && said.contains("\n  18 ") && !said.contains("\n  19 "), "{said}");
    assert!(said.contains("0.14 and 0.15 cannot work on it afterwards: stop them first"), "{said}");
    assert!(said.contains("at this moment 1 job is locked by worker-1 (1)"), "{said}");

    let database = TestDatabase::new().await;
    let said = done(super::migrate(&database).arg("--dry-run"));
    assert!(said.contains("has no schema graphile_worker; the way is\n   1 breaking"), "{said}");
    assert_eq!(migrate::current(&database.database()).await.unwrap(), None);
    done(super::migrate(&database));
    assert!(done(super::migrate(&database).arg("--dry-run")).starts_with("nothing to do"));
}

#[tokio::test]
async fn run_works_what_it_can_as_it_finds_it_and_refuses_the_rest() {
    let folder = tasks_folder();
    for release in ["0.16.6", "0.17.3"] {
        let database = database_of(release).await;
        let before = contents(&database).await;
        let host = Taskbay::run(&database.url(), folder.path()).spawn();
        host.event("worker_ready", |_| true).await;
        host.stop().await;
        assert_eq!(contents(&database).await, before, "{release}");
    }
    for release in ["0.2.0", "0.15.1"] {
        let database = database_of(release).await;
        let before = contents(&database).await;
        for flag in ["--once", "--schema-only"] {
            let call = Taskbay::command("run").arg(folder.path()).env("DATABASE_URL", database.url()).arg(flag);
            let said = refused(call, 1);
            assert!(said.contains("`taskbay migrate` upgrades it"), "{said}");
            assert!(said.contains("taskbay migrate --to 18"), "{said}");
        }
        assert_eq!(contents(&database).await, before, "{release}");
    }
}

#[tokio::test]
async fn running_workers_of_node_are_announced_and_hear_of_it() {
    let database = TestDatabase::new().await;
    done(super::migrate(&database).args(["--to", "18"]));
    let mut work = node::script_with(node::V0_16, "work.cjs", &database.url(), SCHEMA);
    let mut worker =
        work.arg("theirs").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let ready = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("Node starts").unwrap();
    assert_eq!(ready.as_deref(), Some("{\"ready\":true}"));
    let listens = async { while migrate::plan(&database.database(), 20).await.unwrap().workers.listeners == 0 {} };
    tokio::time::timeout(DEADLINE, listens).await.expect("Node listens");

    let said = done(super::migrate(&database).arg("--dry-run"));
    assert!(
        said.contains("workers of graphile-worker 0.16 finish their running jobs and end with exit status 57"),
        "{said}"
    );
    assert!(said.contains("1 other worker waits for jobs in this database"), "{said}");
    assert!(done(super::migrate(&database)).contains("1 other worker waits"));
    // The script ends by itself when its worker has stopped, with the status that the worker set.
    let status = tokio::time::timeout(DEADLINE, worker.wait()).await.expect("Node stops").unwrap();
    assert!(matches!(status.code(), Some(0 | 57)), "{status:?}");
}

#[tokio::test]
async fn each_revision_is_announced_in_its_order() {
    let database = database_of("0.16.6").await;
    let (sender, mut notifications) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let hear = move |notification| sender.send(notification).expect("the test listens");
    let listener = tokio::spawn(listen(database.database(), hear, Events::default(), stop.clone()));
    let mut next =
        async || tokio::time::timeout(DEADLINE, notifications.recv()).await.expect("a notification").unwrap();
    assert_eq!(next().await, Notification::Connected);
    let upgraded: Upgrade = migrate::upgrade(&database.database(), 20).await.unwrap();
    assert_eq!((upgraded.from, upgraded.revision.number, upgraded.revision.newest_breaking), (Some(18), 20, 19));
    assert_eq!(next().await, Notification::Migrated { number: 19, breaking: true });
    assert_eq!(next().await, Notification::Migrated { number: 20, breaking: false });
    stop.cancel();
    listener.await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_too_new_is_refused_or_left() {
    let database = TestDatabase::new().await;
    done(super::migrate(&database));
    database.execute("insert into graphile_worker.migrations (id) values (21)").await;
    let said = done(super::migrate(&database));
    assert!(said.contains("nothing to do") && said.contains("at revision 21"), "{said}");
    database.execute("insert into graphile_worker.migrations (id, breaking) values (999999, true)").await;
    let before = contents(&database).await;
    let said = refused(super::migrate(&database), 57);
    assert!(said.contains("revision 999999 is marked as breaking"), "{said}");
    let error = migrate::upgrade(&database.database(), 20).await.unwrap_err();
    assert!(matches!(error, MigrateError::NewerBreaking { .. }), "{error}");
    assert_eq!(contents(&database).await, before);
}
