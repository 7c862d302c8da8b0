//! Who installs, who waits, and which databases are refused.

use std::time::Duration;

use taskbay::{
    migrate::{self, MigrateError, Revision},
    queue::Database,
};
use tokio::task::JoinSet;

use crate::harness::{node, postgres::TestDatabase};

/// An installed database whose rows of revisions were changed.
async fn at_revision(change: &str) -> TestDatabase {
    let database = TestDatabase::new().await;
    migrate::prepare(&database.database()).await.unwrap();
    database.client().await.batch_execute(change).await.unwrap();
    database
}

async fn rows(database: &TestDatabase) -> i64 {
    let client = database.client().await;
    client.query_one("select count(*) from graphile_worker.migrations", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn twenty_installers_at_once_all_succeed() {
    let database = TestDatabase::new().await;
    let mut installers = JoinSet::new();
    for _ in 0..20 {
        let database = database.database();
        installers.spawn(async move { migrate::prepare(&database).await });
    }
    let prepared: Vec<Revision> = installers.join_all().await.into_iter().map(Result::unwrap).collect();
    assert!(prepared.iter().all(|revision| revision.number == 20));
    assert_eq!(prepared.iter().filter(|revision| revision.installed).count(), 1, "one of them did it");
    assert_eq!(rows(&database).await, 20);
}

#[tokio::test]
async fn installers_of_both_programs_at_once_all_succeed() {
    for ours_come_later in [false, true, true] {
        let database = TestDatabase::new().await;
        let mut theirs = JoinSet::new();
        for _ in 0..4 {
            let mut install = node::schema_installer(&database.url(), "graphile_worker");
            theirs.spawn(async move { install.output().await.unwrap() });
        }
        if ours_come_later {
            until_the_schema_exists(&database).await;
        }
        let mut ours = JoinSet::new();
        for _ in 0..16 {
            let database = database.database();
            ours.spawn(async move { migrate::prepare(&database).await });
        }
        for prepared in ours.join_all().await {
            // Node goes on to 20 by itself, and it can be worked on the way there.
            assert!((18..=20).contains(&prepared.unwrap().number));
        }
        for output in theirs.join_all().await {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(rows(&database).await, 20);
    }
}

/// The first thing that an installer makes; its revisions follow one by one.
async fn until_the_schema_exists(database: &TestDatabase) {
    let client = database.client().await;
    let look = async {
        while client.query("select from pg_namespace where nspname = 'graphile_worker'", &[]).await.unwrap().is_empty()
        {
        }
    };
    tokio::time::timeout(Duration::from_secs(60), look).await.expect("Node begins");
}

#[tokio::test]
async fn an_installation_under_way_is_waited_for() {
    let database = TestDatabase::new().await;
    node::install_schema(&database.url(), "graphile_worker").await;
    let mut other = database.client().await;
    other.batch_execute("delete from graphile_worker.migrations where id > 12").await.unwrap();
    // The other program is in the middle of a revision, and takes longer than an old database is looked at.
    let revision = other.transaction().await.unwrap();
    revision.execute("insert into graphile_worker.migrations (id) values (13)", &[]).await.unwrap();
    let host = database.database();
    let mut waiting = tokio::spawn(async move { migrate::prepare(&host).await });
    tokio::time::timeout(Duration::from_millis(1500), &mut waiting)
        .await
        .expect_err("it waits as long as the other one's transaction is open");
    let rest = "insert into graphile_worker.migrations (id, breaking) select i, i in (14, 16, 19) from generate_series(14, 20) i";
    revision.execute(rest, &[]).await.unwrap();
    revision.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Revision { number: 20, newest_breaking: 19, installed: false });
}

#[tokio::test]
async fn older_databases_that_can_be_worked_are_left_as_they_are() {
    for number in [18, 19] {
        let database = at_revision(&format!("delete from graphile_worker.migrations where id > {number}")).await;
        let revision = migrate::prepare(&database.database()).await.unwrap();
        assert_eq!((revision.number, revision.installed, revision.warning()), (number, false, None));
        assert_eq!(rows(&database).await, i64::from(number));
    }
}

#[tokio::test]
async fn older_databases_that_cannot_be_worked_are_refused() {
    let database = at_revision("delete from graphile_worker.migrations where id > 17").await;
    let error = migrate::prepare(&database.database()).await.unwrap_err();
    assert!(matches!(error, MigrateError::TooOld { number: 17, .. }), "{error}");
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("is at revision 17, and this program works from revision 18 on"), "{error}");
    assert_eq!(rows(&database).await, 17, "nothing was changed");
}

#[tokio::test]
async fn a_newer_breaking_revision_is_refused_with_exit_status_57() {
    let change = "insert into graphile_worker.migrations (id, breaking) values (21, true), (22, false)";
    let database = at_revision(change).await;
    let error = migrate::prepare(&database.database()).await.unwrap_err();
    assert_eq!(error.exit_code(), 57);
    assert!(error.to_string().contains("is at revision 22, where revision 21 is marked as breaking"), "{error}");
}

#[tokio::test]
async fn a_newer_revision_that_breaks_nothing_is_worked_with_a_warning() {
    let database = at_revision("insert into graphile_worker.migrations (id, breaking) values (21, false)").await;
    let revision = migrate::prepare(&database.database()).await.unwrap();
    assert_eq!(revision.number, 21);
    assert!(revision.warning().unwrap().contains("revision 21"));
    assert_eq!(rows(&database).await, 21);
}

#[tokio::test]
async fn a_database_of_kongtask_is_recognised() {
    let database = TestDatabase::new().await;
    let made =
        "create schema graphile_worker; create table graphile_worker.migrations (id int primary key, ts timestamptz);
        insert into graphile_worker.migrations select i, now() from generate_series(1, 11) as i;
        create table graphile_worker.jobs (id bigserial primary key, queue_name text, task_identifier text)";
    database.client().await.batch_execute(made).await.unwrap();
    let error = migrate::prepare(&database.database()).await.unwrap_err().to_string();
    assert!(error.contains("kongtask"), "{error}");
}

#[tokio::test]
async fn a_schema_of_another_program_is_refused() {
    let database = TestDatabase::new().await;
    let made = "create schema graphile_worker; create table graphile_worker.jobs (id int)";
    database.client().await.batch_execute(made).await.unwrap();
    let error = migrate::prepare(&database.database()).await.unwrap_err().to_string();
    assert!(error.contains("has no table of migrations, but has jobs"), "{error}");
}

#[tokio::test]
async fn what_an_administrator_prepared_is_enough_for_a_role_without_rights() {
    let database = TestDatabase::new().await;
    let admin = database.client().await;
    let role = format!("taskbay_{}_installer", std::process::id());
    admin.batch_execute(&format!("drop role if exists {role}; create role {role} login password 'x'")).await.unwrap();
    let mut settings = database.settings("graphile_worker");
    settings.config.user(&role).password("x");
    let host = Database::new(settings).unwrap();

    let error = migrate::prepare(&host).await.unwrap_err();
    assert!(matches!(error, MigrateError::MayNotInstall { .. }), "{error}");
    assert!(error.to_string().contains(&format!("as role {role}: permission denied")), "{error}");

    admin.batch_execute(&format!("create schema graphile_worker authorization {role}")).await.unwrap();
    assert!(migrate::prepare(&host).await.unwrap().installed);

    // A role that may do everything but does not own the tables sees none of the jobs.
    let other = format!("taskbay_{}_stranger", std::process::id());
    let made = format!(
        "drop role if exists {other}; create role {other} login password 'x'; grant usage on schema graphile_worker to {other};
         grant all on all tables in schema graphile_worker to {other}"
    );
    admin.batch_execute(&made).await.unwrap();
    let mut settings = database.settings("graphile_worker");
    settings.config.user(&other).password("x");
    let error = migrate::prepare(&Database::new(settings).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains(&format!("role {other} does not own the tables")), "{error}");
    assert!(error.to_string().contains("no policy allows it to select, insert, update and delete all rows"), "{error}");
    admin
        .batch_execute(&format!("drop owned by {other}; drop owned by {role}; drop role {other}; drop role {role}"))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_current_revision_can_be_asked_for() {
    let database = TestDatabase::new().await;
    assert_eq!(migrate::current(&database.database()).await.unwrap(), None);
    migrate::prepare(&database.database()).await.unwrap();
    let found = migrate::current(&database.database()).await.unwrap().unwrap();
    assert_eq!(found, Revision { number: 20, newest_breaking: 19, installed: false });
}
