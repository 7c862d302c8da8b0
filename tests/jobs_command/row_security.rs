//! Row-level security keeps rows from a role without refusing its statements: it is told so, and how to change that.

use std::io::Write as _;

use serde_json::json;
use taskbay::{
    queue::{Database, QueueError},
    worker_utils::WorkerUtils,
};

use super::said;
use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

/// A database whose schema belongs to one role, and where another one has every grant.
struct Roles {
    database: TestDatabase,
    owner: String,
    guest: String,
    job: i64,
}

const TABLES: [&str; 4] = ["_private_jobs", "_private_job_queues", "_private_tasks", "_private_known_crontabs"];

impl Roles {
    /// `case` keeps the roles of one test from those of another, because they belong to the whole server.
    async fn new(case: &str) -> Self {
        let database = TestDatabase::new().await;
        let [owner, guest] = ["owner", "guest"].map(|role| format!("taskbay_{}_{case}_{role}", std::process::id()));
        database
            .execute(&format!(
                "create role {owner} login; create role {guest} login; create schema graphile_worker authorization {owner}"
            ))
            .await;
        said(&call(&database, &owner, &["migrate"]), 0);
        database
            .execute(&format!(
                "grant usage on schema graphile_worker to {guest}; grant all on all tables in schema graphile_worker to {guest}"
            ))
            .await;
        let job = database.add("nothing", json!({})).await;
        Self { database, owner, guest, job }
    }

    fn call(&self, role: &str, args: &[&str]) -> std::process::Output {
        call(&self.database, role, args)
    }

    async fn for_each_table(&self, statement: &str) {
        for table in TABLES {
            self.database.execute(&statement.replace('@', &format!("graphile_worker.{table}"))).await;
        }
    }

    /// Runs what a message recommends after these words.
    async fn follow(&self, advice: &str, words: &str) {
        let (_, statements) = advice.split_once(words).unwrap_or_else(|| panic!("{words:?} is not in {advice}"));
        let of_owner = statements.lines().filter(|line| line.ends_with(';')).collect::<Vec<_>>().join("\n");
        self.database.execute(&format!("set role {}; {of_owner}", self.owner)).await;
    }

    /// Adds, lists and works jobs as this role.
    async fn works(&self, role: &str) {
        let folder = tasks_folder();
        install_plugin(folder.path(), "misbehaving");
        said(&self.call(role, &["add", "nothing"]), 0);
        let listed = said(&self.call(role, &["jobs", "list"]), 0);
        assert_eq!(listed.lines().count(), 3, "{listed}");
        said(&self.call(role, &["jobs", "complete", &self.job.to_string()]), 0);
        said(&self.call(role, &["migrate"]), 0);
        said(&self.call(role, &["cleanup"]), 0);
        said(&self.call(role, &["run", "--once", &folder.path().display().to_string()]), 0);
        assert!(self.database.jobs().await.is_empty());
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        let mut config = self.database.config();
        let roles = format!("{0}, {1}", self.owner, self.guest);
        // In a thread of its own because the test's runtime may be on its way out. What they own goes first.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                config.user("postgres");
                if let Ok((client, connection)) = config.connect(tokio_postgres::NoTls).await {
                    tokio::spawn(connection);
                    client.batch_execute(&format!("drop owned by {roles} cascade; drop role {roles}")).await.ok();
                }
            });
            std::io::Result::Ok(())
        });
        let _ = dropped.join();
    }
}

fn call(database: &TestDatabase, role: &str, args: &[&str]) -> std::process::Output {
    call_with(database, role, args, "")
}

/// With lines on standard input.
fn call_with(database: &TestDatabase, role: &str, args: &[&str], lines: &str) -> std::process::Output {
    let url = database.url().replacen("postgres://postgres@", &format!("postgres://{role}@"), 1);
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(lines.as_bytes()).expect("fill the pipe");
    drop(writer);
    Taskbay::command(args[0]).args(&args[1..]).env("DATABASE_URL", url).stdin(reader).output()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_sees_no_rows_is_told_why_and_what_to_do() {
    let roles = Roles::new("blind").await;
    let job = roles.job.to_string();
    let folder = tasks_folder();
    let folder = folder.path().display().to_string();
    let mut advice = String::new();
    for args in [
        &["jobs", "list"][..],
        &["jobs", "stats"],
        &["jobs", "workers"],
        &["jobs", "show", &job],
        &["jobs", "complete", &job],
        &["jobs", "retry", &job],
        &["jobs", "remove", "--key", "k"],
        &["jobs", "unlock", "pool-1"],
        &["cleanup"],
        &["add", "nothing"],
        &["migrate"],
        &["run", "--once", &folder],
    ] {
        advice = said(&roles.call(&roles.guest, args), 1);
        for part in [
            &format!("role {} does not own the tables of schema graphile_worker", roles.guest),
            "have row-level security, and no policy allows it to select",
            &format!("Connect as {0}, or let {0} allow it:\n  create policy", roles.owner),
        ] {
            assert!(advice.contains(part), "{args:?}: {part:?} is not in {advice}");
        }
        assert!(!advice.contains("there are no") && !advice.contains("not exist"), "{args:?}: {advice}");
    }
    assert_eq!(roles.database.only_job().await.id, roles.job);

    let mut settings = roles.database.settings("graphile_worker");
    settings.config.user(&roles.guest);
    let utils = WorkerUtils::new(Database::new(settings).unwrap());
    let refused = utils.complete_jobs(&[roles.job]).await.unwrap_err();
    assert!(matches!(refused, QueueError::RowSecurity(_)), "{refused}");

    roles.follow(&advice, "allow it:").await;
    roles.works(&roles.guest).await;
}

/// Nothing of the schema is granted to the role, as to one that was just made.
#[tokio::test(flavor = "multi_thread")]
async fn the_statements_that_are_proposed_to_a_new_role_are_all_that_a_command_needs() {
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    let folder = folder.path().display().to_string();
    for (number, args) in [
        &["add", "nothing"][..],
        &["add", "nothing", "--queue", "q", "--key", "k", "--key-mode", "unsafe-dedupe"],
        &["add", "--file", "-"],
        &["jobs", "list"],
        &["jobs", "workers"],
        &["jobs", "complete", "JOB"],
        &["jobs", "fail", "JOB"],
        &["jobs", "remove", "--key", "k"],
        &["jobs", "unlock", "pool-1"],
        &["migrate"],
        &["run", "--once", &folder],
    ]
    .into_iter()
    .enumerate()
    {
        let roles = Roles::new(&format!("new{number}")).await;
        let guest = &roles.guest;
        roles
            .database
            .execute(&format!(
                "revoke all on all tables in schema graphile_worker from {guest};
                 revoke all on schema graphile_worker from {guest};
                 update graphile_worker._private_jobs set key = 'k', locked_at = now() - interval '5 hours', locked_by = 'pool-1'"
            ))
            .await;
        let id = roles.job.to_string();
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "JOB" { &id } else { *arg }).collect();
        let call = || call_with(&roles.database, guest, &args, "{\"identifier\": \"nothing\"}\n");
        let advice = said(&call(), 1);
        assert!(!advice.contains("warning: no worker"), "{args:?}: {advice}");
        for statement in advice.lines().filter(|line| line.contains("grant ") || line.contains("create policy ")) {
            assert!(statement.matches(';').count() == 1 && statement.ends_with(';'), "one on each line: {advice}");
        }
        let needs_crontabs = matches!(args[0], "migrate" | "run");
        assert_eq!(advice.contains("_private_known_crontabs"), needs_crontabs, "{args:?}: {advice}");
        roles.follow(&advice, "allow it:").await;
        said(&call(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_lacks_a_privilege_alone_is_told_which() {
    let roles = Roles::new("lacking").await;
    roles.for_each_table("create policy all_rows on @ using (true)").await;
    roles.database.execute(&format!("revoke delete on graphile_worker._private_jobs from {}", roles.guest)).await;
    let job = roles.job.to_string();
    let advice = said(&roles.call(&roles.guest, &["jobs", "complete", &job]), 1);
    assert!(advice.contains("lacks privileges in schema graphile_worker"), "{advice}");
    assert!(advice.contains("it may not delete _private_jobs"), "{advice}");
    said(&roles.call(&roles.guest, &["jobs", "fail", &job]), 0);
    roles.follow(&advice, "allow it:").await;
    said(&roles.call(&roles.guest, &["jobs", "complete", &job]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_sees_no_names_of_tasks_is_not_warned_of_an_unknown_one() {
    let roles = Roles::new("unwarned").await;
    roles.for_each_table(&format!("create policy add on @ for insert to {} with check (true)", roles.guest)).await;
    roles.database.execute("create policy jobs on graphile_worker._private_jobs using (true)").await;
    let refused = said(&roles.call(&roles.guest, &["add", "nothing"]), 1);
    assert!(!refused.contains("warning"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_allows_all_rows_is_enough() {
    let roles = Roles::new("allowed").await;
    // Those without `with check` apply what they say of old rows to new ones.
    roles.for_each_table("create policy all_rows on @ using (true)").await;
    roles.works(&roles.guest).await;
    // By commands, for a group.
    let roles = Roles::new("grouped").await;
    roles.database.execute(&format!("grant pg_monitor to {}", roles.guest)).await;
    for part in [
        "select to pg_monitor using (true)",
        "insert to pg_monitor with check (true)",
        "delete to pg_monitor using (true)",
    ] {
        let command = part.split(' ').next().unwrap();
        roles.for_each_table(&format!("create policy p_{command} on @ for {part}")).await;
    }
    let refused = said(&roles.call(&roles.guest, &["migrate"]), 1);
    assert!(refused.contains("no policy allows it to update all rows of"), "{refused}");
    roles.for_each_table("create policy p_update on @ for update to pg_monitor using (true) with check (true)").await;
    roles.works(&roles.guest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_forced_row_security_on_itself_is_told_so() {
    let roles = Roles::new("forced").await;
    roles.for_each_table("alter table @ force row level security").await;
    let advice = said(&roles.call(&roles.owner, &["cleanup"]), 1);
    assert!(advice.contains(&format!("role {} owns the tables", roles.owner)), "{advice}");
    assert!(advice.contains("row-level security is forced on them, and no policy allows it to select"), "{advice}");
    assert!(said(&roles.call(&roles.owner, &["jobs", "list"]), 1).contains("is forced on them"));
    let advice = said(&roles.call(&roles.owner, &["migrate"]), 1);
    roles.follow(&advice, "lift it:").await;
    roles.works(&roles.owner).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_read_lists_jobs_and_is_refused_to_change_them() {
    let roles = Roles::new("reader").await;
    roles.for_each_table(&format!("create policy p on @ for select to {} using (true)", roles.guest)).await;
    assert!(said(&roles.call(&roles.guest, &["jobs", "list"]), 0).contains("nothing"));
    let refused = said(&roles.call(&roles.guest, &["jobs", "complete", &roles.job.to_string()]), 1);
    assert!(refused.contains("no policy allows it to delete all rows of _private_jobs"), "{refused}");
    let refused = said(&roles.call(&roles.guest, &["jobs", "unlock", "pool-1"]), 1);
    assert!(refused.contains("to update all rows of _private_job_queues and _private_jobs"), "{refused}");
    let refused = said(&roles.call(&roles.guest, &["migrate"]), 1);
    assert!(
        refused.contains("to insert, update and delete all rows of _private_job_queues, _private_jobs"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_see_some_rows_is_warned_and_does_not_work() {
    let roles = Roles::new("partial").await;
    roles.for_each_table(&format!("create policy p on @ to {} using (pg_backend_pid() > 0)", roles.guest)).await;
    let listed = said(&roles.call(&roles.guest, &["jobs", "list"]), 0);
    assert!(listed.contains("some jobs may be missing here") && listed.contains("nothing"), "{listed}");
    let refused = said(&roles.call(&roles.guest, &["migrate"]), 1);
    assert!(refused.contains("no policy is certain to allow it to select"), "{refused}");
    // One that takes rows away counts, whatever others allow.
    roles
        .for_each_table(&format!(
            "drop policy p on @; create policy all_rows on @ to {0} using (true);
             create policy fewer on @ as restrictive to {0} using (pg_backend_pid() > 0)",
            roles.guest
        ))
        .await;
    let refused = said(&roles.call(&roles.guest, &["cleanup"]), 1);
    assert!(refused.contains("no policy is certain to allow it"), "{refused}");
}
