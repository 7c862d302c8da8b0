//! `taskbay add --file`: lines that become jobs, and up to which of them if something comes in between.

use std::{
    fs,
    io::{PipeWriter, Write, pipe},
    os::unix::process::ExitStatusExt,
    process::Output,
};

use rustix::process::Signal;
use taskbay::{migrate, queue::NewJob};

use crate::harness::{
    jobs::JobRow,
    postgres::{PrivateServer, TestDatabase},
    program::{Running, Taskbay},
    wait::{until, until_true},
};

/// `taskbay add … --file …` with this as the file.
fn add(database: &TestDatabase, lines: &str, arguments: &[&str]) -> Output {
    let call = Taskbay::command("add").env("DATABASE_URL", database.url());
    fs::write(call.home().join("jobs.ndjson"), lines).expect("write the file");
    call.args(arguments).args(["--file", "jobs.ndjson"]).output()
}

/// The same, with what is written to the pipe.
fn add_from_pipe(url: &str, arguments: &[&str]) -> (Running, PipeWriter) {
    let (reader, writer) = pipe().expect("a pipe");
    let call = Taskbay::command("add").env("DATABASE_URL", url).args(arguments).args(["--file", "-"]);
    (call.stdin(reader).spawn(), writer)
}

#[track_caller]
fn succeeds(output: &Output, said: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains(said), "{out}{err}");
    assert_eq!(err, "");
}

#[track_caller]
fn fails(output: &Output, said: &[&str]) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    for part in said {
        assert!(err.contains(part), "{part:?} is not in {err}");
    }
}

async fn payloads(database: &TestDatabase) -> Vec<String> {
    database.jobs().await.into_iter().map(|job| job.payload).collect()
}

/// A database with workers of these tasks, or else there would be warnings.
async fn serving(tasks: &[&str]) -> TestDatabase {
    let database = TestDatabase::installed().await;
    let session = database.database().session().await.expect("a session");
    session.task_ids(tasks).await.expect("register the tasks");
    database
}

/// Payloads of a range of numbers, one a line.
fn numbers(range: std::ops::RangeInclusive<u32>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

fn listed(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// All that a program can see of a job but its times.
fn described(jobs: Vec<JobRow>) -> Vec<String> {
    let describe = |job: JobRow| format!("{:?}", JobRow { id: 0, ..job });
    jobs.into_iter().map(describe).collect()
}

#[tokio::test]
async fn the_jobs_are_those_that_would_be_added_one_by_one() {
    let together = serving(&["t0", "t1", "t2", "t3"]).await;
    let one_by_one = TestDatabase::installed().await;
    let lines: Vec<String> = (0..500)
        .map(|number| {
            let more = match number % 5 {
                0 => format!(r#","queue_name":"q{}""#, number % 3),
                1 => r#","priority":-3,"max_attempts":2,"run_at":"2030-01-31T12:00:00Z""#.to_owned(),
                // Some of these come again and again, with arrays that are joined.
                2 => format!(r#","job_key":"k{}""#, number % 40),
                3 => format!(r#","job_key":"p{}","job_key_mode":"preserve_run_at","flags":["a"]"#, number % 30),
                _ => format!(r#","job_key":"u{}","job_key_mode":"unsafe_dedupe""#, number % 50),
            };
            format!(r#"{{"identifier":"t{}","payload":[ {number}, "ä" ]{more}}}"#, number % 4)
        })
        .collect();
    succeeds(&add(&together, &lines.join("\n"), &[]), "added 500 jobs in ");
    let database = one_by_one.database();
    for line in &lines {
        database.add_job(&NewJob::from_spec(line).unwrap()).await.unwrap();
    }
    let (mut ours, mut theirs) = (described(together.jobs().await), described(one_by_one.jobs().await));
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
    let rows = "select count(*) from graphile_worker._private_jobs where flags = '{\"a\": true}' and revision > 0";
    assert_eq!(together.id_of(rows, &[]).await, one_by_one.id_of(rows, &[]).await);
}

#[tokio::test]
async fn lines_are_payloads_of_a_task_that_is_named() {
    let database = serving(&["greet"]).await;
    let file = "\u{feff}{\"n\": 1.50}\r\n\n  \t\n [1,  2]\nnull";
    let options = ["greet", "--queue", "q", "--priority", "-2", "--max-attempts", "3", "--flag", "f"];
    succeeds(&add(&database, file, &options), "added 3 jobs in ");
    assert_eq!(payloads(&database).await, ["{\"n\": 1.50}", "[1,  2]", "null"]);
    for job in database.jobs().await {
        assert_eq!((job.task.as_str(), job.queue.as_deref(), job.priority), ("greet", Some("q"), -2));
        assert_eq!(job.max_attempts, 3);
    }
    succeeds(&add(&database, "", &[]), "added 0 jobs");
    succeeds(&add(&database, "\n \n", &["greet"]), "added 0 jobs");
    succeeds(&add(&database, "1\n2\n", &["greet", "--from-line", "3"]), "jobs.ndjson ends with line 2");
    for dry_run in [&[][..], &["--dry-run"]] {
        let beyond = add(&database, "1\n2\n", &[&["greet", "--from-line", "99"], dry_run].concat());
        fails(&beyond, &["jobs.ndjson has 2 lines, and was to be read from line 99 on. Nothing is added"]);
    }
}

#[tokio::test]
async fn the_order_of_the_lines_is_that_of_the_jobs_over_many_batches() {
    let database = serving(&["t"]).await;
    succeeds(&add(&database, &numbers(1..=25_000), &["t"]), "added 25,000 jobs in ");
    assert_eq!(payloads(&database).await, listed(1..=25_000));
    let batches = "select count(distinct created_at) from graphile_worker._private_jobs";
    assert_eq!(database.id_of(batches, &[]).await, 3);
}

#[tokio::test]
async fn a_key_that_comes_twice_acts_as_one_line_after_the_other() {
    let database = serving(&["t", "other"]).await;
    let line = |payload: &str, more: &str| format!(r#"{{"identifier":"t","payload":{payload},"job_key":"k"{more}}}"#);
    let dedupe = r#","job_key_mode":"unsafe_dedupe""#;
    let file = [line("[1]", ""), r#"{"identifier":"other"}"#.to_owned(), line("[2]", ""), line("[3]", dedupe)];
    succeeds(&add(&database, &file.join("\n"), &[]), "added 4 jobs in ");
    let keyed = database.jobs().await.into_iter().find(|job| job.key.is_some()).unwrap();
    assert_eq!(keyed.payload, "[1, 2]");
    let revision = "select revision::int8 from graphile_worker._private_jobs where key = 'k'";
    assert_eq!(database.id_of(revision, &[]).await, 2);
}

#[tokio::test]
async fn a_bad_line_is_named_with_what_was_added_before_it_and_the_file_goes_on_from_there() {
    let database = TestDatabase::installed().await;
    let file = numbers(1..=12_000) + "{n: 1}\n" + &numbers(12_002..=12_010);
    fails(
        &add(&database, &file, &["t"]),
        &[
            "line 12001 of jobs.ndjson is not a job: it is not JSON: a name in double quotes is expected at column 2. ",
            "Lines 1 to 12000 are added; go on with --from-line 12001",
        ],
    );
    assert_eq!(payloads(&database).await, listed(1..=12_000));
    let mended = file.replace("{n: 1}", "12001");
    succeeds(&add(&database, &mended, &["t", "--from-line", "12001"]), "added 10 jobs in ");
    assert_eq!(payloads(&database).await, listed(1..=12_010));

    for (line, complaint) in [
        (r#"{"to":"ada"}"#, "a job has no field `to`"),
        (r#"{"to":"ada"}"#, "If the lines are payloads, name their task before --file"),
        ("7", "it is a number, and not an object such as"),
        (r#"["t", {}]"#, "it is a list, and not an object such as"),
        (r#"{"identifier":""}"#, "its `identifier` is empty"),
        (r#"{"identifier":"t","job_key":""}"#, "a job key has 1 to 512 characters"),
        (r#"{"identifier":"t","run_at":"soon"}"#, "a time such as 2030-01-31T12:00:00Z"),
        (r#"{"identifier":"t"} {"identifier":"t"}"#, "more follows after its JSON, at column 20"),
    ] {
        fails(&add(&database, &format!("{line}\n"), &[]), &[complaint, "line 1 of jobs.ndjson", "Nothing is added"]);
    }
    let call = Taskbay::command("add").env("DATABASE_URL", database.url());
    fs::write(call.home().join("latin"), b"1\n\"gr\xfc\xdfe\"\n").unwrap();
    fails(&call.args(["t", "--file", "latin"]).output(), &["line 2 of latin", "not UTF-8 text, from byte 4 on"]);
    fails(&Taskbay::command("add").args(["--file", "none"]).output(), &["cannot open none: "]);
    fails(
        &Taskbay::command("add").env("DATABASE_URL", database.url()).args(["--file", "/"]).output(),
        &["cannot read / after line 0: Is a directory"],
    );
}

#[tokio::test]
async fn a_line_that_the_database_refuses_is_found_in_its_batch() {
    let database = TestDatabase::installed().await;
    database
        .execute(
            "create function refuse() returns trigger language plpgsql as $$
             begin raise exception 'not on a friday'; end $$;
             create trigger refuse before insert on graphile_worker._private_jobs
             for each row when (new.payload::text = '777') execute function refuse()",
        )
        .await;
    fails(
        &add(&database, &numbers(1..=1_000), &["t"]),
        &[
            "line 777 of jobs.ndjson was refused: not on a friday",
            "Lines 1 to 776 are added; go on with --from-line 777",
        ],
    );
    assert_eq!(payloads(&database).await, listed(1..=776));
    let empty = TestDatabase::new().await;
    fails(&add(&empty, "1\n", &["t"]), &["`taskbay migrate` installs it", "Nothing is added"]);
}

#[tokio::test]
async fn a_line_may_be_long() {
    let database = serving(&["t"]).await;
    let long = format!("\"{}\"", "x".repeat(30 << 20));
    succeeds(&add(&database, &format!("1\n{long}\n2"), &["t"]), "added 3 jobs in ");
    let stored = payloads(&database).await;
    assert!(stored == ["1", &long, "2"]);
}

#[tokio::test]
async fn a_check_of_all_lines_needs_no_database() {
    let check = |lines: &str, arguments: &[&str]| {
        let call = Taskbay::command("add").env("DATABASE_URL", "postgres://127.0.0.1:1/nowhere");
        fs::write(call.home().join("jobs.ndjson"), lines).unwrap();
        call.args(arguments).args(["--file", "jobs.ndjson", "--dry-run"]).output()
    };
    succeeds(
        &check(&numbers(1..=20_000), &["t"]),
        "checked jobs.ndjson: 20,000 lines are jobs, and no line is wrong; nothing was added",
    );
    let output = check(&("[1\n".repeat(23) + "2\n\n{\n"), &["t"]);
    fails(&output, &["line 1 of ", "line 20 of ", "... and 4 lines more"]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        out.contains("24 lines are not jobs, and 1 line is a job; nothing was added") && !err.contains("line 21 "),
        "{out}{err}"
    );
    fails(&check("1\n[\n3\n", &["t", "--from-line", "2"]), &["line 2 of "]);
    succeeds(&check("1\n[\n3\n", &["t", "--from-line", "3"]), "1 line is a job, and no line is wrong");
}

#[test]
fn options_that_do_not_go_with_a_file_are_refused() {
    for (arguments, complaint) in [
        (&["t", "{}", "--file", "f"][..], "cannot be used with"),
        (&["t", "--key", "k", "--file", "f"], "cannot be used with"),
        (&["--file", "f", "--queue", "q"], "unless a task is named"),
        (&["t", "--from-line", "2"], "--file"),
        (&["t", "--file", "f", "--from-line", "0"], "a whole number from 1"),
        (&["--dry-run"], "--file"),
        (&[], "TASK"),
    ] {
        let output = Taskbay::command("add").args(arguments).output();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(complaint), "{arguments:?}: {said}");
    }
}

/// Waits until this many rows are seen.
async fn wait_for(database: &TestDatabase, count: &str, rows: i64) {
    until(format_args!("{rows} rows: {count}"), async || match database.id_of(count, &[]).await {
        seen if seen == rows => Ok(()),
        seen => Err(seen),
    })
    .await;
}

const JOBS: &str = "select count(*) from graphile_worker._private_jobs";
/// Others of this database that wait for a lock.
const WAITING: &str =
    "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";

async fn ended_by(mut adding: Running, signal: Signal, said: &str) {
    let status = adding.ended().await;
    assert_eq!(status.signal(), Some(signal.as_raw()), "{status:?}");
    adding.line(|line| line.as_str().is_some_and(|line| line.contains(said))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_trickle_in_are_not_kept_waiting_and_a_signal_says_how_far_it_came() {
    let database = TestDatabase::installed().await;
    let (adding, mut input) = add_from_pipe(&database.url(), &["t"]);
    for line in 1..=3 {
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
        wait_for(&database, JOBS, line).await;
    }
    input.write_all(b"half of a li").unwrap();
    adding.signal(Signal::INT);
    ended_by(adding, Signal::INT, "stopped. Lines 1 to 3 are added; go on with --from-line 4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_waits_for_the_batch_under_way() {
    let database = TestDatabase::installed().await;
    let blocker = database.client().await;
    blocker.batch_execute("begin; lock table graphile_worker._private_jobs in share mode").await.unwrap();
    let (adding, mut input) = add_from_pipe(&database.url(), &["t"]);
    input.write_all(numbers(1..=10_000).as_bytes()).unwrap();
    wait_for(&database, WAITING, 1).await;
    adding.signal(Signal::TERM);
    adding.line(|line| line == "taskbay: stopping after the jobs under way").await;
    blocker.batch_execute("commit").await.unwrap();
    let (adding, added) = (adding, "stopped. Lines 1 to ");
    ended_by(adding, Signal::TERM, added).await;
    assert!(database.id_of(JOBS, &[]).await > 0, "they were added");
}

/// At the end of each transaction that adds jobs, waits for whoever has the lock 1.
const WAIT_AT_COMMIT: &str = "
create function hold() returns trigger language plpgsql as $$
begin perform pg_advisory_xact_lock_shared(1); return null; end $$;
create constraint trigger hold after insert on graphile_worker._private_jobs deferrable initially deferred
for each row execute function hold()";

const KICK: &str = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock'";

#[tokio::test(flavor = "multi_thread")]
async fn jobs_whose_connection_is_lost_before_or_at_the_commit_are_added_once() {
    let database = TestDatabase::installed().await;
    database.execute(WAIT_AT_COMMIT).await;
    for lock in ["lock table graphile_worker._private_jobs in share mode", "select pg_advisory_xact_lock(1)"] {
        database.execute("truncate graphile_worker._private_jobs").await;
        let (mut adding, mut input) = add_from_pipe(&database.url(), &["t", "--log-format", "json"]);
        input.write_all(b"1\n").unwrap();
        wait_for(&database, JOBS, 1).await;
        let blocker = database.client().await;
        blocker.batch_execute(&format!("begin; {lock}")).await.unwrap();
        input.write_all(b"2\n3\n").unwrap();
        drop(input);
        wait_for(&database, WAITING, 1).await;
        assert_eq!(database.id_of(KICK, &[]).await, 1);
        adding.event("adding_again", |_| true).await;
        blocker.batch_execute("commit").await.unwrap();
        assert!(adding.ended().await.success());
        assert_eq!(payloads(&database).await, ["1", "2", "3"], "{lock}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_were_committed_when_the_connection_was_lost_are_not_added_again() {
    // A commit waits for a standby that does not exist, after it has become valid here.
    let server =
        PrivateServer::start("host all all 127.0.0.1/32 trust\n", &["-c", "synchronous_standby_names=nobody"], |_| {});
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", server.port);
    let local = format!("{url}?options=-c%20synchronous_commit%3Dlocal");
    let settings = taskbay::queue::DatabaseSettings::new(local.parse().unwrap(), "graphile_worker");
    migrate::prepare(&taskbay::queue::Database::new(settings).unwrap()).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&local, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let strict = format!("{url}?options=-c%20synchronous_commit%3Don");
    let (mut adding, mut input) = add_from_pipe(&strict, &["t", "--log-format", "json"]);
    input.write_all(b"1\n2\n").unwrap();
    drop(input);
    let waiting = "select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep'";
    let commits = async || client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0;
    until_true("its commit waits", commits).await;
    adding.event("adding_again", |_| true).await;
    assert!(adding.ended().await.success());
    assert_eq!(client.query_one(JOBS, &[]).await.unwrap().get::<_, i64>(0), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_file() {
    let database = TestDatabase::installed().await;
    let peak = async |lines: i64| {
        database.execute("truncate graphile_worker._private_jobs").await;
        let (mut adding, mut input) = add_from_pipe(&database.url(), &["t"]);
        let line = format!("\"{}\"\n", "x".repeat(1_000));
        for _ in 0..lines {
            input.write_all(line.as_bytes()).unwrap();
        }
        // It still waits for more, so it can be looked at.
        wait_for(&database, JOBS, lines).await;
        let status = fs::read_to_string(format!("/proc/{}/status", adding.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
        let peak: u64 = peak.trim().parse().unwrap();
        drop(input);
        assert!(adding.ended().await.success());
        peak
    };
    let (few, many) = (peak(20_000).await, peak(80_000).await);
    println!("peak memory: {few} kB at 20 MB of lines, {many} kB at 80 MB");
    assert!(many < few + few / 2, "{few} kB at 20 MB of lines, {many} kB at 80 MB");
}
