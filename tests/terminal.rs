//! Names, errors and messages from outside reach a terminal as text: they cannot steer it, or forge, hide or reorder a line.

use std::{fs, os::unix::ffi::OsStrExt};

use serde_json::json;

use crate::harness::{
    plugins::{install, plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

/// Colour, a line break, a line in reverse, a line separator, C1 controls, a blank that is none.
const HOSTILE: &str = "x\u{1b}[31m\r\nFORGED\u{202e}\u{2028}\u{9b}\u{7f}\u{200b}\u{7}";

/// Asserts that output has nothing in it but visible text in lines of the program's own.
#[track_caller]
fn is_harmless(what: &str, output: &[u8]) {
    let text = std::str::from_utf8(output).unwrap_or_else(|error| panic!("{what} is no text: {error}"));
    let harmful = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let found: Vec<char> = text.chars().filter(|c| harmful(*c)).collect();
    assert!(found.is_empty(), "{what} has {found:?} in it: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("FORGED")), "{what} has a forged line:\n{text}");
}

/// Calls it, and looks at all that it prints.
#[track_caller]
fn prints_only_text(what: &str, call: Taskbay) -> String {
    let output = call.output();
    is_harmless(what, &output.stdout);
    is_harmless(what, &output.stderr);
    let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!all.is_empty(), "{what} says nothing, so nothing is shown by it");
    all
}

/// One job in each state, with hostile text wherever a job has text.
async fn hostile_jobs() -> TestDatabase {
    let database = TestDatabase::installed().await;
    let client = database.client().await;
    for state in ["ready", "running", "retrying", "failed", "keyed"] {
        let name = format!("{state}{HOSTILE}");
        let payload = json!({ HOSTILE: HOSTILE });
        client
            .execute(
                "select graphile_worker.add_job($1, $2, queue_name := $1, job_key := $1, flags := array[$1])",
                &[&name, &payload],
            )
            .await
            .expect("add a job");
    }
    let owner = format!("pool-{HOSTILE}");
    let set = |sql: &str| format!("update graphile_worker._private_jobs job set {sql}");
    client
        .execute(&set("locked_at = now(), locked_by = $1, attempts = 1 where key like 'running%'"), &[&owner])
        .await
        .expect("lock a job");
    client
        .execute(&set("attempts = 1, last_error = $1 where key like 'retrying%'"), &[&HOSTILE])
        .await
        .expect("change a job");
    client
        .execute(&set("attempts = max_attempts, last_error = $1 where key like 'failed%'"), &[&HOSTILE])
        .await
        .expect("change a job");
    database
}

#[tokio::test]
async fn whatever_jobs_hold_is_printed_as_text() {
    let database = hostile_jobs().await;
    let ids: Vec<String> = database.jobs().await.iter().map(|job| job.id.to_string()).collect();
    let [ready, running, retrying, ..] = ids.iter().map(String::as_str).collect::<Vec<_>>()[..] else { panic!() };
    let owner = format!("pool-{HOSTILE}");
    let key = format!("keyed{HOSTILE}");
    for args in [
        &["list"][..],
        &["list", "--failed"],
        &["list", "--summary"],
        &["stats"],
        &["workers"],
        &["show", ready],
        &["show", running],
        &["show", retrying],
        &["show", ready, "--payload"],
        &["show", "--key", HOSTILE],
        &["complete", running, "4711"],
        &["reschedule", ready, retrying, running, "--run-at", "now"],
        &["fail", ready, "--reason", HOSTILE],
        &["remove", "--key", HOSTILE],
        &["remove", "--key", &key],
        &["complete", "--task", HOSTILE],
        &["complete", HOSTILE],
        &["unlock", &owner, HOSTILE],
        &["complete", ready],
        &[HOSTILE],
        &["list", "--state", HOSTILE],
        &["list", &format!("--{HOSTILE}")],
    ] {
        let url = database.url();
        for json in [&["--json"][..], &[]] {
            // What both change is changed by the first of them, so the order of the loops matters little.
            let all = [args, json].concat();
            prints_only_text(&format!("{all:?}"), Taskbay::command("jobs").args(&all).env("DATABASE_URL", &url));
        }
    }
}

#[tokio::test]
async fn json_still_says_what_is_stored() {
    let database = hostile_jobs().await;
    let output = Taskbay::command("jobs").args(["list", "--json"]).env("DATABASE_URL", database.url()).output();
    is_harmless("jobs list --json", &output.stdout);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(list[0]["task_identifier"], format!("ready{HOSTILE}"));
    assert_eq!(list[0]["payload"], json!({ HOSTILE: HOSTILE }));
    let id = list[0]["id"].to_string();
    let show = Taskbay::command("jobs").args(["show", &id, "--payload"]).env("DATABASE_URL", database.url());
    let payload: serde_json::Value = serde_json::from_slice(&show.output().stdout).expect("JSON");
    assert_eq!(payload, json!({ HOSTILE: HOSTILE }));
}

#[tokio::test]
async fn what_the_server_says_is_printed_as_text() {
    let database = TestDatabase::installed().await;
    let url = database.url();
    let literal = HOSTILE.replace('\'', "''");
    database
        .execute(&format!(
            "create function refuse() returns trigger language plpgsql as $$
               begin raise exception using message = '{literal}', detail = '{literal}', hint = '{literal}'; end $$;
             select graphile_worker.add_job('a');
             create trigger refuse before insert or update or delete on graphile_worker._private_jobs
               for each row execute function refuse()"
        ))
        .await;
    let to = |command: &str, args: &[&str]| Taskbay::command(command).args(args).env("DATABASE_URL", &url);
    let file = tempfile::tempdir().expect("a folder");
    let lines = file.path().join(format!("jobs{HOSTILE}"));
    fs::write(&lines, "{\"identifier\": \"a\"}\n{\"identifier\": \"b\"}\n").expect("write a file");
    let lines = lines.to_str().expect("UTF-8");
    for (what, call) in [
        ("add", to("add", &["a"])),
        ("add --file", to("add", &["--file", lines])),
        ("complete", to("jobs", &["complete", "1"])),
        ("reschedule", to("jobs", &["reschedule", "1", "--run-at", "now"])),
        ("cleanup", to("cleanup", &["failed-jobs"])),
    ] {
        let said = prints_only_text(what, call);
        assert!(what == "cleanup" || said.contains("FORGED"), "{what} does not say the server's reason: {said}");
    }
}

#[tokio::test]
async fn what_is_typed_or_set_is_repeated_as_text() {
    let database = TestDatabase::installed().await;
    let url = database.url();
    let home = tempfile::tempdir().expect("a folder");
    let bad_lines = home.path().join(format!("bad{HOSTILE}"));
    fs::write(&bad_lines, format!("{{\"identifier\": \"a\", {:?}: 1}}\n", "x\u{202e}\u{9b}")).expect("write a file");
    let bad_lines = bad_lines.to_str().expect("UTF-8");
    let plain = |command: &str, args: &[&str]| Taskbay::command(command).args(args);
    let to = |command: &str, args: &[&str]| plain(command, args).env("DATABASE_URL", &url);
    let flag = format!("--{HOSTILE}");
    let long = HOSTILE.repeat(40);
    for (what, call) in [
        ("a command", plain(HOSTILE, &[])),
        ("a flag", plain("run", &[&flag])),
        ("a flag's value", plain("run", &["-j", HOSTILE])),
        ("a line break in a flag", plain("run", &["--poll-intervall\nFORGED"])),
        ("a log level", plain("run", &["--log-level", HOSTILE])),
        ("a settings file", plain("run", &["-C", HOSTILE])),
        ("an unknown setting", plain("config", &[]).settings("[worker]\n\"x\\u001b[31m\\nFORGED\\u202e\" = 3")),
        ("a wrong setting", plain("config", &[]).settings("[worker]\nconcurrency = \"x\\u001b[31m\\nFORGED\\u202e\"")),
        ("a variable", to("config", &[]).env("TASKBAY_\u{1b}[31m\nFORGED\u{202e}", "1")),
        ("a variable's value", to("config", &[]).env("TASKBAY_CONCURRENCY", HOSTILE)),
        ("a connection string", plain("migrate", &["-c", HOSTILE])),
        ("a host", plain("migrate", &["-c", "postgres://127.0.0.1:1/d"]).env("PGHOST", HOSTILE)),
        ("settings", to("config", &[HOSTILE, "--schema", HOSTILE])),
        ("settings as JSON", to("config", &[HOSTILE, "--schema", HOSTILE, "--json"])),
        ("a schema that is not there", to("jobs", &["list", "--schema", HOSTILE])),
        ("a plan", to("migrate", &["--schema", HOSTILE, "--dry-run"])),
        ("an installation", to("migrate", &["--schema", HOSTILE])),
        ("a task", to("add", &[&long])),
        ("a payload", to("add", &["a", HOSTILE])),
        ("a payload's file", to("add", &["a", &format!("@{HOSTILE}").replace('\0', "")])),
        ("a file of jobs", to("add", &["--file", HOSTILE])),
        ("a bad line", to("add", &["--file", bad_lines])),
        ("bad lines", to("add", &["--file", bad_lines, "--dry-run"])),
        ("a clean-up", to("cleanup", &[HOSTILE])),
        ("a folder for names", to("cleanup", &["task-names", "--tasks-dir", HOSTILE])),
        ("a folder of tasks", plain("plugins", &[HOSTILE])),
        ("a file", plain("check", &[HOSTILE])),
        ("files as JSON", plain("check", &[HOSTILE, "--json"])),
        ("a folder to develop in", plain("dev", &[HOSTILE])),
        ("a shell", plain("completions", &[HOSTILE])),
    ] {
        prints_only_text(what, call);
    }
}

#[test]
fn what_is_in_the_tasks_folder_is_printed_as_text() {
    let folder = tasks_folder();
    let path = folder.path();
    install(path, &format!("lib{HOSTILE}.so"), b"no library");
    install(path, HOSTILE, b"#!/bin/sh\n");
    install(path, "task\u{202e}", b"#!/bin/sh\n");
    install(path, "interpreter", "#!/bin/\u{1b}[31m\u{202e}\n".as_bytes());
    fs::write(path.join(std::ffi::OsStr::from_bytes(b"not\xffUTF-8\x1b")), "#!/bin/sh\n").expect("write a file");
    let mut library = fs::read(plugin("send-email")).expect("read a plugin");
    let (description, hostile) = (b"Sends one e-mail.", "\u{1b}[31m\nFORGED\u{202e}..");
    assert_eq!(description.len(), hostile.len());
    let at = library.windows(description.len()).position(|window| window == description).expect("its description");
    library[at..][..hostile.len()].copy_from_slice(hostile.as_bytes());
    install(path, "libdescribed.so", &library);
    let list = path.with_extension("list");
    fs::write(&list, HOSTILE).expect("write a list");
    for (what, call) in [
        ("plugins", Taskbay::command("plugins").arg(path)),
        ("plugins --json", Taskbay::command("plugins").arg(path).arg("--json")),
        ("an allow-list", Taskbay::command("plugins").arg(path).arg("--manifest").arg(&list)),
        ("check", Taskbay::command("check").arg(path.join(HOSTILE)).arg(path.join(format!("lib{HOSTILE}.so")))),
    ] {
        let said = prints_only_text(what, call);
        assert!(what != "plugins" || said.contains("send_email  \\u{1b}[31m\\nFORGED"), "{said}");
    }
    fs::remove_file(list).expect("remove the list");
}

/// A host with hostile jobs and files.
async fn host(format: &str) -> (TestDatabase, tempfile::TempDir, Taskbay) {
    let database = hostile_jobs().await;
    let folder = tasks_folder();
    install(folder.path(), &format!("lib{HOSTILE}.so"), b"no library");
    install(folder.path(), "talk", "#!/bin/sh\nprintf 'said \\033[31m\\r\u{202e}\u{2028}\\n'; exit 1\n".as_bytes());
    database.add("talk", json!({})).await;
    let call =
        Taskbay::command("run").arg(folder.path()).args(["--watch", "--log-level=trace", "--log-format", format]);
    let call = call.env("DATABASE_URL", database.url());
    (database, folder, call)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_text() {
    let (_database, _folder, call) = host("text").await;
    let crontab = call.home().join("crontab");
    fs::write(&crontab, "* * * * * x\u{1b}[31m\u{202e} ?nothing=1\n").expect("write a crontab");
    let mut host = call.arg("--crontab").arg(crontab).spawn();
    for event in ["FORGED", "said ", "job failed", "cannot be used"] {
        host.line(|line| line.to_string().contains(event)).await;
    }
    host.signal(rustix::process::Signal::TERM);
    host.ended().await;
    for line in host.lines() {
        is_harmless("a line of the log", line.as_str().expect("no JSON").as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_in_json_is_text() {
    let (_database, _folder, call) = host("json").await;
    let output = call.arg("--once").output();
    is_harmless("the log", &output.stderr);
    let lines = String::from_utf8(output.stderr).expect("UTF-8");
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let said = |line: &serde_json::Value| line["message"] == "said \u{1b}[31m\r\u{202e}\u{2028}";
    assert!(lines.iter().any(said), "JSON keeps what a task printed: {lines:?}");
}
