//! The schema of each release that npm has, installed by that release on Node, with jobs that its own functions added.

use std::{collections::BTreeSet, fs};

use tokio_postgres::{Client, SimpleQueryMessage};

use super::{SCHEMA, done, migrate};
use crate::{
    database::catalog::assert_like_the_package,
    harness::{
        ledger::Ledger,
        node,
        plugins::{install_plugin, tasks_folder},
        postgres::TestDatabase,
        program::Taskbay,
    },
};

/// One test per release: its name, the version, and the revision of its schema.
macro_rules! releases {
    ($($name:ident $version:literal $revision:literal;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                jobs_survive_and_run($version, $revision).await;
            }
        )*

        #[test]
        fn every_release_in_the_list_of_packages_has_its_test() {
            let text = fs::read_to_string(node::releases().join("package.json")).unwrap();
            let packages: serde_json::Value = serde_json::from_str(&text).unwrap();
            let listed: BTreeSet<String> = packages["dependencies"].as_object().unwrap().keys().cloned().collect();
            let tested: BTreeSet<String> = [$($version),*].iter().map(|version| format!("graphile-worker-{version}")).collect();
            assert_eq!(listed, tested);
        }
    };
}

releases! {
    jobs_of_0_1_0_alpha_0_survive "0.1.0-alpha.0" 1;
    jobs_of_0_1_0_survive "0.1.0" 1;
    jobs_of_0_2_0_survive "0.2.0" 1;
    jobs_of_0_4_0_survive "0.4.0" 3;
    jobs_of_0_5_0_survive "0.5.0" 4;
    jobs_of_0_6_0_survive "0.6.0" 4;
    jobs_of_0_8_0_survive "0.8.0" 5;
    jobs_of_0_8_1_survive "0.8.1" 5;
    jobs_of_0_9_0_survive "0.9.0" 8;
    jobs_of_0_10_0_survive "0.10.0" 8;
    jobs_of_0_11_0_survive "0.11.0" 8;
    jobs_of_0_11_1_survive "0.11.1" 8;
    jobs_of_0_11_2_survive "0.11.2" 8;
    jobs_of_0_11_3_survive "0.11.3" 8;
    jobs_of_0_11_4_survive "0.11.4" 8;
    jobs_of_0_12_0_survive "0.12.0" 9;
    jobs_of_0_12_1_survive "0.12.1" 9;
    jobs_of_0_12_2_survive "0.12.2" 9;
    jobs_of_0_13_0_survive "0.13.0" 10;
    jobs_of_0_14_0_rc_0_survive "0.14.0-rc.0" 14;
    jobs_of_0_15_1_survive "0.15.1" 14;
    jobs_of_0_16_0_survive "0.16.0" 18;
    jobs_of_0_16_2_survive "0.16.2" 18;
    jobs_of_0_16_4_survive "0.16.4" 18;
    jobs_of_0_16_5_survive "0.16.5" 18;
    jobs_of_0_16_6_survive "0.16.6" 18;
    jobs_of_0_17_0_canary_survive "0.17.0-canary.6c2c85c" 18;
    jobs_of_0_17_0_rc_0_survive "0.17.0-rc.0" 19;
    jobs_of_0_17_2_survive "0.17.2" 19;
    jobs_of_0_17_3_survive "0.17.3" 19;
}

#[tokio::test]
async fn schemas_whose_names_need_quotes_are_upgraded_too() {
    const NAME: &str = "Own jobs, \"quoted\" and 'so'";
    // One for each way to the newest revision.
    for (release, revision) in [("0.13.0", 10), ("0.15.1", 14), ("0.16.6", 18)] {
        let database = TestDatabase::new().await;
        node::install_schema_of(release, &database.url(), NAME).await;
        let client = database.client().await;
        add_jobs(&client, &quoted(NAME), revision).await;
        let before = jobs(&client, &quoted(NAME), revision).await;
        done(migrate(&database).args(["--schema", NAME]));
        assert_eq!(jobs(&client, &quoted(NAME), 20).await, before, "{release}");
        assert_like_the_package(&database, NAME).await;
    }
}

async fn jobs_survive_and_run(release: &str, revision: i32) {
    let database = super::database_of(release).await;
    let client = database.client().await;
    assert_eq!(super::revision(&database).await, revision);
    add_jobs(&client, SCHEMA, revision).await;
    let before = jobs(&client, SCHEMA, revision).await;
    let schedules_before = schedules(&client, SCHEMA, revision).await;

    let said = done(migrate(&database));
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("upgraded schema graphile_worker in database"), "{said}");
    assert!(last.ends_with(&format!("from revision {revision} to 20")), "{said}");

    assert_like_the_package(&database, SCHEMA).await;
    assert_eq!(jobs(&client, SCHEMA, 20).await, before);
    assert_eq!(schedules(&client, SCHEMA, 20).await, schedules_before);
    let revisions = contents_of_revisions(&client).await;
    node::install_schema(&database.url(), SCHEMA).await;
    assert_eq!(contents_of_revisions(&client).await, revisions, "graphile-worker 0.18.0 found nothing to do");

    run_jobs(&database, &client, revision).await;
}

/// Lets the host run what can be run.
async fn run_jobs(database: &TestDatabase, client: &Client, revision: i32) {
    let made_due = "
        select from graphile_worker.reschedule_jobs(
          (select array_agg(id) from graphile_worker.jobs where last_error = 'it broke'), run_at := now() - interval '1 s'
        )";
    client.batch_execute(made_due).await.unwrap();
    let newest: i64 = client.query_one("select max(id) from graphile_worker.jobs", &[]).await.unwrap().get(0);
    let added = database.add("echo", serde_json::json!({"n": 100})).await;
    assert!(added > newest, "ids go on where they were");

    let (folder, ledger) = (tasks_folder(), Ledger::new());
    install_plugin(folder.path(), "misbehaving");
    done(Taskbay::run(&database.url(), folder.path()).arg("--once").ledger(&ledger));
    let ran: BTreeSet<i64> = ledger.entries().iter().map(|entry| entry.n()).collect();
    let mut expected = BTreeSet::from([1, 2, 3, 4, 100]);
    expected.extend((revision >= 2).then_some(7));
    expected.extend((revision >= 4).then_some(8));
    expected.extend((revision >= 5).then_some(9));
    assert_eq!(ran, expected);
    assert_eq!(ledger.entries().len(), expected.len(), "each once");
    let left: Vec<String> = database.jobs().await.into_iter().map(|job| job.task).collect();
    let stale: &[&str] = if revision >= 2 { &["stale"] } else { &[] };
    assert_eq!(left, [&["hopeless", "later"], stale].concat());
}

/// Jobs of every kind that a revision knows, in the way its own programs make them.
async fn add_jobs(client: &Client, schema: &str, revision: i32) {
    let run = async |sql: &str| {
        let sql = sql.replace("$.", &format!("{schema}."));
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    };
    let jobs = if revision >= 16 { "$._private_jobs" } else { "$.jobs" };
    // The first of its task, so that it is the one that fails.
    run(r#"select $.add_job('echo', '{"n": 1}')"#).await;
    run("select $.add_job('hopeless', max_attempts := 1)").await;
    if revision <= 10 {
        for (task, message) in [("echo", "it broke"), ("hopeless", "it broke for good")] {
            run(&format!(
                "select $.fail_job('worker-0123456789', job.id, '{message}') \
                 from $.get_job('worker-0123456789', array['{task}']) as job"
            ))
            .await;
        }
    } else {
        // Workers of these releases do it by themselves; the message tells which statements are run in this test.
        run(&format!(
            "update {jobs} set attempts = 1, last_error = case max_attempts when 1 then 'it broke for good' else 'it broke' \
             end, run_at = greatest(now(), run_at) + exp(1) * interval '1 second'"
        ))
        .await;
    }
    run(r#"select $.add_job('echo', '{"n":  2, "text": "\u00e4 \\ \""}')"#).await;
    run(r#"select $.add_job('echo', '{"n": 3}', 'a queue'); select $.add_job('echo', '{"n": 4}', 'a queue')"#).await;
    run("select $.add_job('later', '[1, 2]', run_at := now() + interval '1 hour', max_attempts := 3)").await;
    if revision >= 2 {
        run(r#"select $.add_job('echo', '{"n": 6}', job_key := 'a key'); select $.add_job('echo', '{"n": 7}', job_key := 'a key')"#)
            .await;
        // A worker died five hours ago.
        run("select $.add_job('stale', '{}', 'queue of the dead')").await;
        let queues = if revision >= 16 { "$._private_job_queues" } else { "$.job_queues" };
        let task =
            if revision >= 11 { "key is null and id = (select max(id) from @)" } else { "task_identifier = 'stale'" };
        let dead = "locked_at = now() - interval '5 hours', locked_by = 'worker-of-the-dead'";
        run(&format!("update {jobs} set {dead}, attempts = 2 where {}", task.replace('@', jobs))).await;
        run(&format!("update {queues} set {dead} where queue_name = 'queue of the dead'")).await;
    }
    if revision >= 4 {
        run(r#"select $.add_job('echo', '{"n": 8}', priority := -5)"#).await;
    }
    if revision >= 5 {
        run(r#"select $.add_job('echo', '{"n": 9}', flags := array['a', 'b'])"#).await;
    }
    if revision >= 8 {
        let known = if revision >= 16 { "$._private_known_crontabs" } else { "$.known_crontabs" };
        run(&format!(
            "insert into {known} values ('daily', now() - interval '2 days', now() - interval '1 day'), ('new', now(), null)"
        ))
        .await;
    }
}

/// All jobs, column by column, with what a later revision gives to those of an earlier one.
async fn jobs(client: &Client, schema: &str, revision: i32) -> Vec<Vec<Option<String>>> {
    let since = |first: i32, column: &str, before: &str| {
        if revision >= first { column.to_owned() } else { format!("{before} as {column}") }
    };
    // Locks that are older than four hours do not survive the move to the tables of revision 11.
    let lock = |column: &str| since(11, &format!("job.{column}"), "null").replace("null as job.", "null as ");
    let (queue, task, from) = match revision {
        ..=10 => ("queue_name", "task_identifier", "$.jobs as job"),
        11..=15 => (
            "queue.queue_name",
            "task.identifier",
            "$.jobs as job join $.tasks as task on task.id = task_id left join $.job_queues as queue on queue.id = job_queue_id",
        ),
        _ => (
            "queue.queue_name",
            "task.identifier",
            "$._private_jobs as job join $._private_tasks as task on task.id = task_id
             left join $._private_job_queues as queue on queue.id = job_queue_id",
        ),
    };
    let queue_lock = if revision >= 11 { "queue.locked_at, queue.locked_by" } else { "null, null" };
    let columns = format!(
        "job.id, {queue}, {task}, payload, priority, run_at, attempts, max_attempts, last_error, created_at, updated_at, {}, {},
         {}, {}, {}, {queue_lock}",
        since(2, "key", "null"),
        lock("locked_at"),
        lock("locked_by"),
        since(5, "revision", "0"),
        since(5, "flags", "null"),
    );
    let rows =
        read(client, &format!("select {columns} from {from} order by job.id").replace("$.", &format!("{schema}.")))
            .await;
    assert!(rows.len() >= 6, "{rows:?}");
    rows
}

async fn schedules(client: &Client, schema: &str, revision: i32) -> Vec<Vec<Option<String>>> {
    match revision {
        ..8 => Vec::new(),
        8..16 => read(client, &format!("select * from {schema}.known_crontabs order by 1")).await,
        _ => read(client, &format!("select * from {schema}._private_known_crontabs order by 1")).await,
    }
}

async fn contents_of_revisions(client: &Client) -> Vec<Vec<Option<String>>> {
    read(client, "select id, ts, breaking from graphile_worker.migrations order by id").await
}

async fn read(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()).collect()
}

fn quoted(schema: &str) -> String {
    format!("\"{}\"", schema.replace('"', "\"\""))
}
