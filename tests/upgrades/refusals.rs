//! Which databases are not upgraded, what is said of it, and that they stay as they are.

use taskbay::migrate::{self, MigrateError};

use super::{SCHEMA, contents, database_of, done, refused, revision};
use crate::{
    database::catalog::assert_like_the_package,
    harness::{node, postgres::TestDatabase},
};

#[tokio::test]
async fn jobs_that_are_running_are_not_moved() {
    for (release, jobs) in [("0.2.0", 1), ("0.13.0", 2)] {
        let database = database_of(release).await;
        database
            .execute("select graphile_worker.add_job('t', '{}', 'q'); select graphile_worker.add_job('t', '{}', 'r')")
            .await;
        let take = "select graphile_worker.get_job('worker-0123456789')";
        for _ in 0..jobs {
            database.execute(take).await;
        }
        let before = contents(&database).await;

        let said = refused(super::migrate(&database), 1);
        let expected = if jobs == 1 {
            "1 job is locked by worker-0123456789 (1), and revision 11 moves all jobs"
        } else {
            "2 jobs are locked by worker-0123456789 (2), and revision 11 moves all jobs"
        };
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("Stop the workers, let them finish their jobs, and try again"), "{said}");
        assert_eq!(contents(&database).await, before, "{release}: nothing was changed");
        assert_eq!(refused(super::migrate(&database).arg("--dry-run"), 1), said, "a dry run tells it, too");

        // The statements in the message do what it says.
        let (_, statements) = said.split_once("surely runs no more: ").expect("the message ends with statements");
        database.execute(statements).await;
        done(super::migrate(&database));
        assert_like_the_package(&database, SCHEMA).await;
        let kept = database.jobs().await;
        assert!(kept.len() == 2 && kept.iter().all(|job| job.locked_by.is_none()), "{kept:?}");
        assert_eq!(kept.iter().map(|job| job.attempts).sum::<i16>(), jobs);
    }
}

#[tokio::test]
async fn locks_of_four_hours_are_of_workers_that_are_gone() {
    let database = database_of("0.13.0").await;
    database
        .execute("select graphile_worker.add_job('t', '{}', 'q'); select graphile_worker.get_job('worker-0123456789')")
        .await;
    for (age, refusal) in [("3 hours 59 minutes", true), ("4 hours 1 minute", false)] {
        database.execute(&format!("update graphile_worker.jobs set locked_at = now() - interval '{age}'")).await;
        let result = migrate::upgrade(&database.database(), 20).await;
        assert_eq!(matches!(result, Err(MigrateError::Locked { .. })), refusal, "{result:?}");
    }
    let job = database.only_job().await;
    assert_eq!((job.locked_by, job.attempts), (None, 1));
    assert_eq!(database.locked_queues().await, 0);
}

#[tokio::test]
async fn jobs_that_do_not_fit_are_named() {
    let long = "x".repeat(129);
    for change in [
        "priority = 40000".to_owned(),
        "max_attempts = 40000".to_owned(),
        "max_attempts = 0".to_owned(),
        format!("task_identifier = '{long}'"),
        format!("queue_name = '{long}'"),
    ] {
        let database = database_of("0.2.0").await;
        database.execute("select graphile_worker.add_job('t'); select graphile_worker.add_job('t')").await;
        database.execute(&format!("update graphile_worker.jobs set {change} where id = 2")).await;
        let before = contents(&database).await;
        let said = refused(super::migrate(&database), 1);
        assert!(said.contains("1 job does not fit into the tables of revision 11, the first of them job 2."), "{said}");
        assert_eq!(contents(&database).await, before, "{change}");
        database.execute("delete from graphile_worker.jobs where id = 2").await;
        done(super::migrate(&database));
        assert_eq!(database.only_job().await.id, 1);
    }
}

#[tokio::test]
async fn what_hangs_on_the_old_tables_is_named() {
    let database = database_of("0.13.0").await;
    database.execute("create view public.waiting as select count(*) from graphile_worker.jobs").await;
    let before = contents(&database).await;
    let said = refused(super::migrate(&database), 1);
    assert!(said.contains("view waiting depends on table"), "{said}");
    assert!(said.contains("Nothing was changed: it is at revision 10 as before"), "{said}");
    assert_eq!(contents(&database).await, before);
}

#[tokio::test]
async fn only_the_owner_upgrades_because_what_is_made_is_his() {
    let database = TestDatabase::new().await;
    let role = format!("taskbay_{}_owner", std::process::id());
    let name: String = database.client().await.query_one("select current_database()", &[]).await.unwrap().get(0);
    database.execute(&format!("drop role if exists {role}; create role {role} login password 'x'")).await;
    database.execute(&format!("grant create on database {name} to {role}")).await;
    let (_, server) =
        database.url().split_once('@').map(|(before, after)| (before.to_owned(), after.to_owned())).unwrap();
    let url = format!("postgres://{role}:x@{server}");
    node::install_schema_of("0.13.0", &url, SCHEMA).await;
    let before = contents(&database).await;

    let said = refused(super::migrate(&database), 1);
    assert!(said.contains(&format!("its tables belong to role {role}")), "{said}");
    assert!(said.contains(&format!("connect as {role}")), "{said}");
    assert_eq!(contents(&database).await, before);

    done(super::migrate(&database).env("DATABASE_URL", &url));
    assert_eq!(revision(&database).await, 20);
    let strangers = "select count(*) from pg_class where relnamespace = 'graphile_worker'::regnamespace and relowner <> $1::text::regrole";
    assert_eq!(database.id_of(strangers, &[&role]).await, 0);
    database.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

#[tokio::test]
async fn databases_of_others_are_not_touched() {
    for (made, reason) in [
        (
            "create table graphile_worker.migrations (id int primary key, ts timestamptz);
             insert into graphile_worker.migrations select i, now() from generate_series(1, 11) as i;
             create table graphile_worker.jobs (id bigserial primary key, queue_name text, task_identifier text)",
            "was made by kongtask",
        ),
        ("create table graphile_worker.jobs (id int)", "has no table of migrations, but has jobs"),
    ] {
        let database = TestDatabase::new().await;
        database.execute(&format!("create schema graphile_worker; {made}")).await;
        let before = contents(&database).await;
        let said = refused(super::migrate(&database), 1);
        assert!(said.contains(reason), "{said}");
        assert_eq!(contents(&database).await, before);
    }
}
