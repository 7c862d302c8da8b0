//! Upgrades that end in the middle, and several at once.

use std::{collections::BTreeSet, time::Duration};

use rustix::process::Signal;
use taskbay::migrate;
use tokio::task::JoinSet;

use super::{SCHEMA, contents, database_of, done, revision};
use crate::{
    database::catalog::assert_like_the_package,
    harness::{node, postgres::TestDatabase, wait::until_true},
};

/// Waits until a query gives true.
async fn until(database: &TestDatabase, what: &str, sql: &str) {
    let client = database.client().await;
    until_true(what, async || client.query_one(sql, &[]).await.unwrap().get(0)).await;
}

#[tokio::test]
async fn an_upgrade_that_is_killed_has_changed_nothing_and_is_done_by_the_next() {
    let database = database_of("0.13.0").await;
    database.execute("select graphile_worker.add_job('kept', '{}', 'q')").await;
    let before = contents(&database).await;

    // A reader keeps it in the middle of its transaction, behind the rows of the revisions.
    let mut reader = database.client().await;
    let reading = reader.transaction().await.unwrap();
    reading.query("select from graphile_worker.jobs", &[]).await.unwrap();
    let mut upgrade = super::migrate(&database).spawn();
    const WAITS: &str = "select exists (
        select from pg_stat_activity
        where datname = current_database() and application_name = 'taskbay' and wait_event_type = 'Lock'
      )";
    until(&database, "it waits for the reader", WAITS).await;
    upgrade.signal(Signal::KILL);
    upgrade.ended().await;
    reading.rollback().await.unwrap();
    const GONE: &str = "select not exists (
        select from pg_stat_activity where datname = current_database() and application_name = 'taskbay'
      )";
    until(&database, "the server has noticed", GONE).await;
    assert_eq!(contents(&database).await, before);

    done(super::migrate(&database));
    assert_like_the_package(&database, SCHEMA).await;
    assert_eq!(database.only_job().await.task, "kept");
}

#[tokio::test]
async fn upgrades_of_both_programs_at_once_all_succeed() {
    for release in ["0.13.0", "0.15.1", "0.16.6"] {
        let database = database_of(release).await;
        database
            .execute("select graphile_worker.add_job('kept', json_build_object('n', n), 'q') from generate_series(1, 50) as n")
            .await;
        let mut theirs = JoinSet::new();
        for _ in 0..3 {
            let mut install = node::schema_installer(&database.url(), SCHEMA);
            theirs.spawn(async move { install.output().await.unwrap() });
        }
        let mut ours = JoinSet::new();
        for number in 0..12 {
            let (database, to) = (database.database(), 18 + number % 3);
            ours.spawn(async move {
                // Node needs a moment to start; some of ours are there before it, some meet it.
                tokio::time::sleep(Duration::from_millis(60 * u64::try_from(number).unwrap())).await;
                (to, migrate::upgrade(&database, to).await)
            });
        }
        for (to, upgraded) in ours.join_all().await {
            let reached = upgraded.unwrap_or_else(|error| panic!("{release}: {error}")).revision.number;
            assert!((to..=20).contains(&reached), "{release}: {reached} instead of {to}");
        }
        for output in theirs.join_all().await {
            assert!(output.status.success(), "{release}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(revision(&database).await, 20);
        assert_like_the_package(&database, SCHEMA).await;
        let kept: BTreeSet<String> = database.jobs().await.into_iter().map(|job| job.payload).collect();
        assert_eq!(kept.len(), 50, "{release}");
    }
}

#[tokio::test]
async fn many_of_ours_at_once_do_it_once() {
    let database = database_of("0.13.0").await;
    database.execute("select graphile_worker.add_job('kept')").await;
    let mut upgrades = JoinSet::new();
    for _ in 0..20 {
        let database = database.database();
        upgrades.spawn(async move { migrate::upgrade(&database, 20).await.unwrap() });
    }
    let did_it = upgrades.join_all().await.into_iter().filter(|upgrade| upgrade.from == Some(10)).count();
    assert_eq!(did_it, 1);
    assert_like_the_package(&database, SCHEMA).await;
    assert_eq!(database.only_job().await.id, 1);
}

#[tokio::test]
async fn an_upgrade_waits_for_the_revision_that_another_program_is_at() {
    let database = database_of("0.16.6").await;
    let mut other = database.client().await;
    let step = other.transaction().await.unwrap();
    step.execute("insert into graphile_worker.migrations (id, breaking) values (19, true)", &[]).await.unwrap();
    let host = database.database();
    let upgrade = tokio::spawn(async move { migrate::upgrade(&host, 20).await });
    const WAITS: &str = "select exists (
        select from pg_stat_activity
        where datname = current_database() and application_name = 'taskbay' and wait_event_type = 'Lock'
      )";
    until(&database, "it waits", WAITS).await;
    step.commit().await.unwrap();
    assert_eq!(upgrade.await.unwrap().unwrap().from, Some(19));
    assert_like_the_package(&database, SCHEMA).await;
}
