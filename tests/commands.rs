//! The command line as its users meet it: what it prints, what it refuses, and how it ends.

use std::{fs, path::Path, process::Output};

use crate::harness::{
    plugins::{install_plugin, plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
    wait::until_true,
};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asserts that a call fails with a status and a complaint.
#[track_caller]
fn refused(call: Taskbay, status: i32, complaint: &str) {
    let output = call.output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.contains(complaint), "{complaint:?} is not in {said:?}");
}

#[test]
fn a_call_that_is_wrong_ends_with_2_and_names_the_nearest_right_one() {
    refused(Taskbay::command("rum"), 2, "'run'");
    refused(Taskbay::command("run").arg("--pol-interval=2s"), 2, "--poll-interval");
    refused(Taskbay::command("run").args(["-j", "0"]), 2, "a whole number from 1");
    refused(Taskbay::command("run").args(["--once", "--schema-only"]), 2, "cannot be used with");
}

#[test]
fn a_flag_that_is_called_as_its_setting_is_answered_with_the_setting() {
    let said = |call: Taskbay| {
        let output = call.output();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = said(Taskbay::command("run").args(["--concurrency", "5"]));
    assert!(text.contains("-j, --jobs of `taskbay run`") && text.contains("section [worker]"), "{text}");
    assert!(!text.contains("--connection"), "the flag that is spelled most like it is another one: {text}");
    let text = said(Taskbay::command("jobs").args(["list", "--concurrency", "5"]));
    assert!(text.contains("-j, --jobs of `taskbay run`"), "{text}");
    let text = said(Taskbay::command("add").args(["greet", "--once"]));
    assert!(text.contains("--once is a flag of `taskbay run`"), "{text}");
}

/// Calls `taskbay add`, which has to succeed, and returns what it says beside the id.
#[track_caller]
fn warned(database: &TestDatabase, args: &[&str]) -> String {
    let output = Taskbay::command("add").args(args).env("DATABASE_URL", database.url()).output();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[tokio::test]
async fn adding_a_job_of_a_task_that_nobody_knows_warns_and_adds_it() {
    let database = TestDatabase::installed().await;
    database.execute("insert into graphile_worker._private_tasks (identifier) values ('send_email')").await;
    assert_eq!(warned(&database, &["send_email"]), "");
    let said = warned(&database, &["sned_email"]);
    assert_eq!(
        said,
        "warning: no worker of this database has registered the task \"sned_email\" so far, so its jobs wait until one does; \
         did you mean \"send_email\"?\n"
    );
    assert!(!warned(&database, &["charge_card"]).contains("did you mean"));
    assert_eq!(database.jobs().await.len(), 3, "all were added");
}

#[tokio::test]
async fn a_file_of_jobs_warns_once_for_each_unknown_task_and_not_of_too_many() {
    let database = TestDatabase::installed().await;
    database.execute("insert into graphile_worker._private_tasks (identifier) values ('known')").await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let line = |task: &str| format!("{{\"identifier\": \"{task}\"}}\n");
    let unknown: String = (0..30).map(|number| line(&format!("unknown_{:02}", number % 15))).collect();
    fs::write(file.path(), line("known") + &unknown).expect("write the file");
    let said = warned(&database, &["--file", file.path().to_str().expect("UTF-8")]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 11, "{said}");
    assert!(lines[0].contains("\"unknown_00\"") && lines[10].contains("more such tasks"), "{said}");
    assert_eq!(database.jobs().await.len(), 31);
    assert_eq!(warned(&database, &["known", "--file", "/dev/null"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_of_a_task_that_nobody_knows_warns_once_when_it_comes_into_force() {
    let database = TestDatabase::installed().await;
    database.execute("insert into graphile_worker._private_tasks (identifier) values ('of_another_worker')").await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "send-email");
    let call = Taskbay::run(&database.url(), folder.path());
    let crontab = call.home().join("crontab");
    let lines = ["send_email", "sned_email", "of_another_worker"].map(|task| format!("0 4 * * * {task} ?id={task}\n"));
    fs::write(&crontab, lines.concat()).expect("write the crontab");
    let host = call.arg("--crontab").arg(&crontab).spawn();
    host.event("cron_started", |_| true).await;
    fs::write(&crontab, lines.concat() + "0 5 * * * sned_email ?id=again\n").expect("change the crontab");
    // The new schedule is entered in the database after it was looked at.
    host.event("schedules_changed", |line| line["added"] == "again").await;
    let entered = "select count(*) from graphile_worker._private_known_crontabs where identifier = 'again'";
    until_true("the schedule is entered", async || database.id_of(entered, &[]).await > 0).await;
    let warnings = host.events("schedule_of_unknown_task");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let message = warnings[0]["message"].as_str().expect("text");
    assert!(message.contains("\"sned_email\"") && message.contains("did you mean \"send_email\"?"), "{message}");
    host.stop().await;
}

#[test]
fn a_wrong_setting_is_named_with_its_file_and_line() {
    let call = Taskbay::command("run").settings("[worker]\nconcurency = 3");
    refused(call, 1, "taskbay.toml, line 2: unknown key \"concurency\" in [worker]; did you mean \"concurrency\"?");
    refused(Taskbay::command("run").args(["-C", "other.toml"]), 1, "other.toml");
    refused(Taskbay::command("run").arg("--log-level=loud"), 1, "\"loud\"");
}

#[test]
fn without_a_database_it_is_said_how_to_name_one() {
    refused(Taskbay::command("run"), 1, "no database is configured. Name one with --connection");
    refused(Taskbay::command("migrate"), 1, "no database is configured");
}

#[test]
fn a_password_is_never_repeated() {
    for (name, value) in [
        ("DATABASE_URL", "postgres://me:topsecret@localhost:notaport/db"),
        ("DATABASE_URL", "postgres://me:topsecret@127.0.0.1:1/db"),
        ("DATABASE_URL", "host=127.0.0.1 port=1 user=me password=topsecret"),
    ] {
        let output = Taskbay::command("migrate").env(name, value).arg("--log-level=trace").output();
        let said = stdout(&output) + &String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && !said.is_empty());
        assert!(!said.contains("topsecret"), "{said}");
    }
}

#[test]
fn a_payload_that_is_not_json_is_refused_before_anything_is_asked_of_a_database() {
    refused(Taskbay::command("add").args(["greet", "{name: Ada}"]), 1, "is not JSON: key must be a string");
    refused(Taskbay::command("add").args(["greet", "@none.json"]), 1, "none.json");
    refused(Taskbay::command("add").args(["greet", "{}", "--run-at", "soon"]), 2, "such as 10m");
}

#[test]
fn a_poll_interval_that_is_no_number_is_refused() {
    for value in ["1.5", "often", "0", "-1"] {
        refused(Taskbay::command("run").arg(format!("--poll-interval={value}")), 2, "--poll-interval");
    }
}

#[test]
fn add_takes_every_option_of_a_job_and_refuses_what_cannot_be() {
    refused(Taskbay::command("add").args(["greet", "{}", "--max-attempts", "0"]), 2, "a whole number from 1 to 32767");
    refused(
        Taskbay::command("add").args(["greet", "{}", "--priority", "40000"]),
        2,
        "a whole number from -32768 to 32767",
    );
    refused(Taskbay::command("add").args(["greet", "{}", "--key-mode", "replace"]), 2, "--key");
    refused(Taskbay::command("add").args(["greet", "{}", "--key", "k", "--key-mode", "merge"]), 2, "unsafe-dedupe");
}

#[tokio::test]
async fn what_add_is_told_is_what_is_stored() {
    let database = TestDatabase::installed().await;
    let add = |args: &[&str]| {
        let output = Taskbay::command("add").args(args).env("DATABASE_URL", database.url()).output();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        stdout(&output).trim().parse::<i64>().expect("an id")
    };
    let all = [
        "greet",
        r#"{"n": 1.50}"#,
        "--queue",
        "q",
        "--in",
        "1h",
        "--max-attempts",
        "3",
        "--key",
        "k",
        "--key-mode",
        "preserve_run_at",
        "--priority",
        "-2",
        "--flag",
        "a",
        "--flag",
        "b",
    ];
    let id = add(&all);
    let job = database.job(id).await;
    assert_eq!(
        (job.payload.as_str(), job.queue.as_deref(), job.key.as_deref()),
        (r#"{"n": 1.50}"#, Some("q"), Some("k"))
    );
    assert_eq!((job.priority, job.max_attempts), (-2, 3));
    assert!((3_000.0..=3_600.0).contains(&database.seconds_until_run(id).await));
    let flags = "select count(*) from graphile_worker.jobs where flags = '{\"a\": true, \"b\": true}'";
    assert_eq!(database.id_of(flags, &[]).await, 1);
    assert_eq!(add(&["greet", "{}", "--key", "k", "--key-mode", "unsafe-dedupe"]), id);
    for (args, complaint) in [
        (&["greet", "{}", "--key", ""][..], "a job key has 1 to 512 characters"),
        (&[&"x".repeat(129)], "at most 128 characters"),
    ] {
        refused(Taskbay::command("add").args(args).env("DATABASE_URL", database.url()), 1, complaint);
    }
}

#[tokio::test]
async fn a_run_without_any_task_is_not_silent() {
    let database = TestDatabase::installed().await;
    let folder = tempfile::tempdir().expect("a tasks folder");
    let once = Taskbay::command("run").arg(folder.path()).arg("--once").env("DATABASE_URL", database.url());
    refused(once, 1, "there is nothing to do: the tasks folder");
    let host = Taskbay::run(&database.url(), folder.path()).arg("--log-level=info").spawn();
    host.event("no_tasks", |line| line["level"] == "WARN").await;
    host.stop().await;
}

#[test]
fn check_tells_of_each_file_and_fails_if_one_is_bad() {
    let good = plugin("send-email");
    let output = Taskbay::command("check").arg(&good).output();
    let said = stdout(&output);
    assert!(output.status.success() && said.contains("send_email  Sends one e-mail."), "{said}");

    let said = stdout(&Taskbay::command("check").arg(plugin("daily-digest")).output());
    assert!(said.contains("schedule: 0 4 * * * ?fill=1d&tz=Europe/Berlin\n"), "{said}");

    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let output = Taskbay::command("check").arg(&good).arg(&text).arg("missing.so").arg("--json").output();
    assert_eq!(output.status.code(), Some(1));
    let reports: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(reports[0]["tasks"][0]["name"], "send_email");
    assert!(reports[1]["reason"].as_str().expect("a reason").contains("is not a compiled library"), "{reports}");
    assert!(reports[2]["reason"].as_str().expect("a reason").contains("does not exist"), "{reports}");
}

#[test]
fn plugins_lists_the_folder() {
    let call = Taskbay::command("plugins");
    let folder = call.home().join("tasks");
    fs::create_dir(&folder).expect("a tasks folder");
    fs::copy(plugin("send-email"), folder.join("libsend_email.so")).expect("a plugin");
    fs::write(folder.join("libempty.so"), "").expect("an empty file");
    let output = call.output();
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("libempty.so") && said.contains("is empty"), "{said}");
    assert!(said.contains("ok: 1 task"), "{said}");
    refused(Taskbay::command("plugins").arg("nowhere"), 1, "/nowhere does not exist");
}

#[test]
fn a_tasks_folder_that_is_missing_at_the_start_is_told_once() {
    let output = Taskbay::command("run").arg("nowhere").env("DATABASE_URL", "postgres://localhost:1/nowhere").output();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.matches("/nowhere does not exist").count()), (Some(1), 1), "{said}");
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let said = stdout(&Taskbay::command("completions").arg(shell).output());
        assert!(said.contains("migrate") && said.contains("poll-interval"), "{shell}: {said}");
        assert!(!said.contains("plugin-child"));
    }
}
