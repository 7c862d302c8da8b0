//! From the schema of every release of the npm package to ours.

// Each release, with jobs of every kind that it knows.
mod releases;
// Each revision, and where an upgrade may stop.
mod targets;
// Which databases are not upgraded, and what is said of it.
mod refusals;
// Several at once, and one that is interrupted.
mod interruptions;

use std::process::Output;

use crate::harness::{node, postgres::TestDatabase, program::Taskbay};

const SCHEMA: &str = "graphile_worker";

/// A database with the schema of a release.
async fn database_of(release: &str) -> TestDatabase {
    let database = TestDatabase::new().await;
    node::install_schema_of(release, &database.url(), SCHEMA).await;
    database
}

/// `taskbay migrate` on a database.
fn migrate(database: &TestDatabase) -> Taskbay {
    Taskbay::command("migrate").env("DATABASE_URL", database.url())
}

/// What a call printed, if it succeeded.
#[track_caller]
fn done(call: Taskbay) -> String {
    let output = call.output();
    assert!(output.status.success(), "{}", complaint(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a call complained of, if it failed with this status.
#[track_caller]
fn refused(call: Taskbay, status: i32) -> String {
    let output = call.output();
    assert_eq!(output.status.code(), Some(status), "{}", complaint(&output));
    complaint(&output)
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The newest revision.
async fn revision(database: &TestDatabase) -> i32 {
    let client = database.client().await;
    client.query_one("select max(id) from graphile_worker.migrations", &[]).await.unwrap().get(0)
}

/// Everything that is stored in the schema, and what it is stored in: changes if anything does.
async fn contents(database: &TestDatabase) -> String {
    const SQL: &str = "
    select string_agg(
      class.relname || ' ' || coalesce(query_to_xml(format('select * from %s', class.oid::regclass), true, true, '')::text, ''),
      '' order by class.relname
    ) || (
      select coalesce(string_agg(proname || pg_get_function_arguments(oid), '' order by proname), '') from pg_proc
      where pronamespace = 'graphile_worker'::regnamespace
    )
    from pg_class as class
    where class.relnamespace = 'graphile_worker'::regnamespace and class.relkind in ('r', 'v')";
    database.client().await.query_one(SQL, &[]).await.unwrap().get(0)
}
