//! The functions that other programs call: the same calls to our schema and to the npm package's, answer by answer.

use std::future::poll_fn;

use taskbay::{migrate, queue::Database};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

use crate::harness::{node, postgres::TestDatabase};

/// All that is stored, without what depends on the clock.
const STORED: &str = "
select id, job_queue_id, task_id, payload::text, priority,
  case when abs(extract(epoch from run_at - now())) < 3600 then 'now' else run_at::text end,
  attempts, max_attempts, last_error, key, locked_at is null, locked_by, revision, flags::text, is_available,
  updated_at > created_at
from @._private_jobs order by id;
select id, identifier from @._private_tasks order by id;
select id, queue_name, locked_by, locked_at is null, is_available from @._private_job_queues order by id;
select last_value, is_called from @.tasks_id_seq;
select last_value, is_called from @.job_queues_id_seq;";

/// How many ids are used up. A call that fails may use some up before it does; how many is nobody's business.
const LAST_ID: &str = "select last_value, is_called from @.jobs_id_seq1";

const EMPTY: &str =
    "truncate @._private_jobs, @._private_tasks, @._private_job_queues, @._private_known_crontabs restart identity";

/// A schema, and the ear on its notifications.
struct Side {
    _database: TestDatabase,
    client: Client,
    notifications: mpsc::UnboundedReceiver<String>,
}

impl Side {
    async fn new(database: TestDatabase) -> Self {
        let (client, mut connection) = database.config().connect(NoTls).await.unwrap();
        let (sender, notifications) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(told) = message {
                    let _ = sender.send(format!("{} {}", told.channel(), without_random(told.payload())));
                }
            }
        });
        client.batch_execute("set timezone = 'UTC'; listen \"jobs:insert\"; listen \"worker:migrate\"").await.unwrap();
        Self { _database: database, client, notifications }
    }

    /// The answer of a statement: rows, or the error's code and what it names; then the notifications it sent.
    async fn answer(&mut self, sql: &str) -> Vec<String> {
        let mut answer = match self.client.simple_query(&sql.replace('@', "graphile_worker")).await {
            Ok(messages) => messages.iter().filter_map(row_text).collect(),
            Err(error) => {
                let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
                vec![format!(
                    "error {} {:?} {:?} {:?}",
                    error.code().code(),
                    error.constraint(),
                    error.table(),
                    error.column()
                )]
            }
        };
        // Notifications of the own session are sent before the end of the answer to the next statement.
        self.client.simple_query("select 1").await.unwrap();
        while let Ok(told) = self.notifications.try_recv() {
            answer.push(told);
        }
        answer
    }
}

fn row_text(message: &SimpleQueryMessage) -> Option<String> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    let fields: Vec<&str> = (0..row.len()).map(|column| row.get(column).unwrap_or("null")).collect();
    Some(fields.join(" | "))
}

/// `{"r":0.123,"count":1}` without the digits, but with everything around them.
fn without_random(payload: &str) -> String {
    match (payload.strip_prefix("{\"r\":"), payload.find(',')) {
        (Some(_), Some(comma)) => {
            let number = &payload[5..comma];
            assert!(number.parse::<f64>().is_ok(), "{payload}");
            format!("{{\"r\":…{}", &payload[comma..])
        }
        _ => payload.to_owned(),
    }
}

async fn both_sides() -> (Side, Side) {
    let (ours, theirs) = (TestDatabase::new().await, TestDatabase::new().await);
    migrate::prepare(&Database::new(ours.settings("graphile_worker")).unwrap()).await.unwrap();
    node::install_schema(&theirs.url(), "graphile_worker").await;
    (Side::new(ours).await, Side::new(theirs).await)
}

/// Asks both sides for each of the statements and then for all that is stored.
async fn compare(ours: &mut Side, theirs: &mut Side, story: &str, statements: &[String]) {
    let mut failed = false;
    for sql in std::iter::once(EMPTY).chain(statements.iter().map(String::as_str)) {
        let (our_answer, their_answer) = (ours.answer(sql).await, theirs.answer(sql).await);
        assert_eq!(our_answer, their_answer, "{story}: {sql}");
        failed |= our_answer.first().is_some_and(|answer| answer.starts_with("error"));
    }
    if !failed {
        assert_eq!(ours.answer(LAST_ID).await, theirs.answer(LAST_ID).await, "ids after {story}: {statements:#?}");
    }
    let (our_rows, their_rows) = (ours.answer(STORED).await, theirs.answer(STORED).await);
    assert!(!our_rows.is_empty(), "{story}: nothing was compared");
    assert_eq!(our_rows, their_rows, "what is stored after {story}: {statements:#?}");
}

#[tokio::test]
async fn every_key_mode_meets_every_state_of_the_job_under_the_key() {
    let (mut ours, mut theirs) = both_sides().await;
    let states = [
        ("fresh", ""),
        ("tried", "attempts = 2, last_error = 'it broke', "),
        ("failed for good", "attempts = 5, last_error = 'it broke', "),
        ("running", "attempts = 1, locked_at = now(), locked_by = 'w', "),
        ("abandoned", "attempts = 1, locked_at = now() - interval '5 hours', locked_by = 'w', "),
    ];
    for mode in ["'replace'", "'preserve_run_at'", "'unsafe_dedupe'", "null", "'nonsense'"] {
        for (state, change) in states {
            for (before, after) in
                [(r#"{"a": 1}"#, r#"{"b":  2}"#), (r#"["a",  1]"#, r#"["b", {"c": 1}]"#), ("[1]", "{}")]
            {
                let statements = [
                    format!("select id from @.add_job('a', '{before}', 'q1', '2040-01-01', 5, 'k', 3, '{{f,f,g}}')"),
                    format!("update @._private_jobs set {change}revision = 4 where key = 'k'"),
                    format!(
                        "select id, payload::text, key, attempts, revision from @.add_job(identifier => 'b',
                           payload => '{after}', run_at => '2041-01-01', job_key => 'k', job_key_mode => {mode})"
                    ),
                ];
                compare(&mut ours, &mut theirs, &format!("{mode} on a job that is {state}"), &statements).await;
            }
        }
    }
}

#[tokio::test]
async fn add_job_treats_nulls_defaults_and_bad_values_alike() {
    let (mut ours, mut theirs) = both_sides().await;
    let calls = [
        "'t'",
        "'t', null, null, null, null, null, null, null, null",
        "'t', 'null'",
        "'t', payload => '{\"n\": 12345678901234567890, \"z\": \"\\u0000\"}'",
        "''",
        "null",
        "'t', job_key => 'k', job_key_mode => 'unsafe_dedupe'",
        "'t', queue_name => 'q', job_key => 'k', job_key_mode => 'unsafe_dedupe', flags => '{a,b}', priority => -3",
        "'t', job_key_mode => 'unsafe_dedupe'",
        "'t', job_key_mode => 'nonsense'",
        "'t', job_key => 'k', job_key_mode => 'nonsense'",
        "null, job_key => 'k', job_key_mode => 'unsafe_dedupe'",
        "'t', job_key => ''",
        "'t', job_key => repeat('k', 512)",
        "'t', job_key => repeat('k', 513)",
        "'t', job_key => repeat('k', 513), job_key_mode => 'unsafe_dedupe'",
        "'t', max_attempts => 0",
        "'t', max_attempts => 0, job_key => 'k', job_key_mode => 'unsafe_dedupe'",
        "'t', max_attempts => 40000",
        "'t', max_attempts => 40000, job_key => 'k', job_key_mode => 'unsafe_dedupe'",
        "'t', priority => -40000",
        "repeat('t', 128)",
        "repeat('t', 129)",
        "'t', queue_name => ''",
        "'t', queue_name => repeat('q', 129)",
        "'t', flags => '{}'",
        "'t', flags => '{a,null}'",
        "'t', flags => '{a,a}', job_key => 'k', job_key_mode => 'unsafe_dedupe'",
        "'t', flags => '{}', job_key => 'k', job_key_mode => 'unsafe_dedupe'",
        "'t', run_at => 'infinity'",
    ];
    for call in calls {
        let call = format!(
            "select id, task_id, job_queue_id, payload::text, priority, attempts, max_attempts, key, flags::text, revision,
             run_at = now() from @.add_job({call})"
        );
        compare(&mut ours, &mut theirs, "one job, twice", &[call.clone(), call]).await;
    }
}

#[tokio::test]
async fn add_jobs_answers_alike() {
    let (mut ours, mut theirs) = both_sides().await;
    let row = "row('t', '[1]', 'q', null, null, 'k', null, null)::@.job_spec";
    let arguments = [
        "array[]::@.job_spec[]".to_owned(),
        "null".to_owned(),
        "array[null]::@.job_spec[]".to_owned(),
        format!("array[{row}]"),
        format!("array[{row}], true"),
        format!("array[{row}], null"),
        format!("array[{row}, {row}]"),
        "array[row('t', null, null, '2040-01-01', 3, null, -1, '{a}')::@.job_spec,
               row('t', '{}', 'q', null, null, 'l', null, '{}')::@.job_spec]"
            .to_owned(),
        "array[row('t', null, null, null, 0, null, null, null)::@.job_spec]".to_owned(),
        "array[row('t', null, null, null, null, '', null, null)::@.job_spec]".to_owned(),
        "array[row(null, null, null, null, null, null, null, null)::@.job_spec]".to_owned(),
        "array[row('t', null, null, null, null, null, null, '{a,null}')::@.job_spec]".to_owned(),
    ];
    for arguments in arguments {
        let call =
            format!("select id, payload::text, key, revision, flags::text from @.add_jobs({arguments}) order by id");
        let lock = "update @._private_jobs set locked_at = now(), locked_by = 'w' where key = 'k'".to_owned();
        compare(&mut ours, &mut theirs, "many jobs", &[call.clone(), call.clone(), lock, call]).await;
    }
    // The package returns many jobs in no order, so their ids are not compared.
    let many = "select payload::text, key, revision from @.add_jobs(array(
        select row(chr(97 + i % 4), to_json(i), 'q' || i % 3, null, i + 1, 'k' || i, i, null)::@.job_spec
        from generate_series(0, 20) as i)) order by key";
    for (which, sql) in [("first", many), ("second", many)] {
        assert_eq!(ours.answer(sql).await, theirs.answer(sql).await, "{which} time");
    }
}

#[tokio::test]
async fn the_functions_for_administrators_answer_alike() {
    let (mut ours, mut theirs) = both_sides().await;
    let setup = [
        "select count(*) from (select @.add_job('t', to_json(i), 'q' || i % 3, '2040-01-01', 9, 'k' || i) from
         generate_series(1, 6) as i) as added",
        "update @._private_jobs set attempts = 2, last_error = 'it broke' where id = 2",
        "update @._private_jobs set attempts = 1, locked_at = now(), locked_by = 'w1' where id = 3",
        "update @._private_jobs set attempts = 1, locked_at = now() - interval '241 minutes', locked_by = 'w2' where id = 4",
        "update @._private_jobs set attempts = 1, locked_at = now() - interval '239 minutes', locked_by = 'w2' where id = 5",
        "update @._private_job_queues set locked_at = now(), locked_by = 'w' || id",
    ];
    let calls = [
        "select id, key from @.complete_jobs(array[1, 2, 3, 4, 5, 99, null]) order by id",
        "select id from @.complete_jobs('{}')",
        "select id from @.complete_jobs(null)",
        "select id, last_error, attempts, key, locked_by from @.permanently_fail_jobs('{1,2,3,4,5}') order by id",
        "select id, last_error from @.permanently_fail_jobs('{1,4}', 'broken beyond repair') order by id",
        "select id, run_at::text, priority, attempts, max_attempts, last_error, revision
           from @.reschedule_jobs('{1,2,3,4,5}', '2042-02-02', -4, 0, 7) order by id",
        "select id, run_at::text, priority from @.reschedule_jobs('{1,2}', priority => 11) order by id",
        "select id from @.reschedule_jobs('{1}')",
        "select id from @.reschedule_jobs('{1}', max_attempts => 0)",
        "select id from @.reschedule_jobs('{1}', attempts => 40000)",
        "select id, key, attempts, locked_by from @.remove_job('k1')",
        "select id, key, attempts, locked_by from @.remove_job('k3')",
        "select id, key from @.remove_job('k4')",
        "select id, key from @.remove_job('k5')",
        "select * from @.remove_job('nobody')",
        "select @.remove_job('nobody')::text, @.remove_job('nobody') is null",
        "select * from @.remove_job(null)",
        "select @.remove_job(null)::text",
        "select @.force_unlock_workers('{w1,w3,nobody}')",
        "select @.force_unlock_workers(null)",
        "select id, queue_name, task_identifier, priority, run_at::text, attempts, max_attempts, last_error, key,
           locked_by, revision, flags::text from @.jobs order by id",
        "select pg_typeof(@.add_job('t'))::text, pg_typeof(@.remove_job('k1'))::text",
    ];
    for call in calls {
        let statements: Vec<String> = setup.iter().chain([&call]).map(|sql| (*sql).to_owned()).collect();
        compare(&mut ours, &mut theirs, "a call", &statements).await;
    }
}

#[tokio::test]
async fn known_names_use_up_no_ids() {
    let (mut ours, mut theirs) = both_sides().await;
    let add = "select count(*) from (select @.add_job('t', queue_name => 'q') from generate_series(1, 50)) as added";
    let keyed = "select count(*) from (select @.add_job('t', queue_name => 'q', job_key => 'k' || i,
                 job_key_mode => 'unsafe_dedupe') from generate_series(1, 50) as i) as added";
    compare(&mut ours, &mut theirs, "repeated names", &[add.to_owned(), keyed.to_owned()]).await;
    let used =
        ours.answer("select last_value from @.tasks_id_seq union all select last_value from @.job_queues_id_seq").await;
    assert_eq!(used, ["1", "1"]);
}
