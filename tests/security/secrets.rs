//! No password is in a log line, an error, a process list, or the environment of a plugin.

use std::{fs, path::Path, process::Output, sync::OnceLock};

use serde_json::json;

use super::Workplace;
use crate::harness::{
    plugins::{install, install_plugin, tasks_folder},
    postgres::PrivateServer,
    processes::children_of,
    program::Taskbay,
};

const SECRET: &str = "tops3cret-Pa55";

/// A server that asks for the password.
fn server() -> &'static PrivateServer {
    static SERVER: OnceLock<PrivateServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let rules = "local all all trust\nhost all postgres all trust\nhost all keeper all scram-sha-256\n";
        let server = PrivateServer::start(rules, &[], |_| {});
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let url = format!("postgres://postgres@127.0.0.1:{}/postgres", server.port);
                let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connect");
                tokio::spawn(connection);
                let role = format!("create role keeper superuser login password '{SECRET}'");
                client.batch_execute(&role).await.expect("make a role");
            });
            server
        })
        .join()
        .expect("the server is prepared")
    })
}

fn with_password(password: &str, port: u16) -> String {
    format!("postgres://keeper:{password}@127.0.0.1:{port}/postgres")
}

fn all_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn keeps_it(what: &str, text: &str) {
    assert!(!text.is_empty(), "{what} says nothing");
    let at = text.find(SECRET).map(|at| text[..at].lines().count().saturating_sub(1));
    assert!(at.is_none(), "{what} tells the password: {}", text.lines().nth(at.unwrap_or(0)).unwrap_or_default());
}

/// The arguments of a process and of all that it has started.
fn process_list(host: u32) -> String {
    let own = fs::read_to_string(format!("/proc/{host}/cmdline")).expect("the host's command line").replace('\0', " ");
    let children: Vec<String> = children_of(host).into_iter().map(|(_, command)| command).collect();
    assert!(!children.is_empty(), "the plugin has a process");
    format!("{own}\n{}", children.join("\n"))
}

fn environment_of(process: u32) -> String {
    fs::read_to_string(format!("/proc/{process}/environ")).expect("the environment of a process").replace('\0', "\n")
}

async fn add_job(task: &str, port: u16) {
    let (client, connection) =
        tokio_postgres::connect(&with_password(SECRET, port), tokio_postgres::NoTls).await.expect("connect");
    tokio::spawn(connection);
    let payload = json!({"message": "as asked"});
    client.execute("select graphile_worker.add_job($1, $2)", &[&task, &payload]).await.expect("add a job");
}

fn run(folder: &Path) -> Taskbay {
    Taskbay::command("run").arg(folder).args(["--log-level=trace"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_in_no_log_line_no_process_list_and_no_plugins_environment() {
    let port = server().port;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    install(folder.path(), "broken.so", b"no plugin");
    for (number, format) in ["text", "json"].into_iter().enumerate() {
        let base = run(folder.path()).arg("--watch").args(["--log-format", format]);
        // A URL of the environment; the parts, and the password by its variable.
        let call = match number {
            0 => base.env("DATABASE_URL", with_password(SECRET, port)),
            _ => base.env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string()).env("PGUSER", "keeper"),
        };
        let call = if number == 0 { call } else { call.env("PGDATABASE", "postgres").env("PGPASSWORD", SECRET) };
        let mut host = call.spawn();
        let told = |text: &'static str| move |line: &serde_json::Value| line.to_string().contains(text);
        host.line(told("ready for jobs")).await;
        for task in ["look_around", "nothing", "fail"] {
            add_job(task, port).await;
        }
        host.line(told("what I see")).await;
        host.line(told("as asked")).await;
        keeps_it("the list of processes", &process_list(host.id()));
        for (process, _) in children_of(host.id()) {
            keeps_it("the environment of a plugin", &environment_of(process));
        }
        // Only now, because it ends the process that was just looked at.
        add_job("abort", port).await;
        host.line(told("SIGABRT")).await;
        host.signal(rustix::process::Signal::TERM);
        host.ended().await;
        let lines: Vec<String> = host.lines().iter().map(ToString::to_string).collect();
        assert!(lines.iter().any(|line| line.contains("DEBUG")), "that is no log of level trace: {lines:?}");
        keeps_it("the log", &lines.join("\n"));
    }
}

/// What `taskbay` prints of a database that it does not get into.
#[test]
fn a_password_is_in_no_error() {
    let port = server().port;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    let wrong = || Taskbay::command("run").arg(folder.path()).args(["--no-wait", "--log-level=trace"]);
    let unreachable = with_password(SECRET, 1);
    let parts = format!("host=127.0.0.1 port={port} user=keeper dbname=postgres password={SECRET}x");
    for (what, call) in [
        ("a wrong password in the URL", wrong().env("DATABASE_URL", with_password(&format!("{SECRET}x"), port))),
        (
            "a wrong password in a variable",
            wrong().env("DATABASE_URL", with_password("", port)).env("PGPASSWORD", format!("{SECRET}x")),
        ),
        ("a wrong password in parts", wrong().env("DATABASE_URL", &parts)),
        ("a server that is not there", wrong().env("DATABASE_URL", &unreachable)),
        (
            "a database that is not there",
            wrong().env(
                "DATABASE_URL",
                with_password(SECRET, port).replace("/postgres", "/none").replacen("/none:", "/postgres:", 1),
            ),
        ),
        (
            "a URL that is none",
            wrong().env("DATABASE_URL", format!("postgres://keeper:{SECRET}@127.0.0.1:port/postgres")),
        ),
        (
            "a settings file that is broken",
            wrong().settings(&format!("[database]\nurl = \"postgres://keeper:{SECRET}@h/d")),
        ),
        ("a settings file with a wrong key", wrong().settings(&format!("[database]\npassword = \"{SECRET}\""))),
        ("a settings file with a wrong value", wrong().settings(&format!("[database]\nurl = [\"{SECRET}\"]"))),
        ("adding a job", Taskbay::command("add").args(["task", "{}"]).env("DATABASE_URL", &unreachable)),
        ("listing jobs", Taskbay::command("jobs").arg("list").env("DATABASE_URL", &unreachable)),
        ("migrating", Taskbay::command("migrate").env("DATABASE_URL", &unreachable)),
    ] {
        let output = call.output();
        assert!(!output.status.success(), "{what} is no error");
        keeps_it(what, &all_of(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_gets_the_database_only_where_its_settings_say_so() {
    let place = Workplace::new().await;
    let host = place.run().env("PGPASSWORD", SECRET).spawn();
    let seen = place.look_around(&host).await;
    assert_eq!((seen.variable("DATABASE_URL"), seen.variable("PGPASSWORD")), (None, None));
    host.stop().await;
    let host = place.run().env("PGPASSWORD", SECRET).settings("[plugins.misbehaving]\ndatabase_url = true").spawn();
    let seen = place.look_around(&host).await;
    assert_eq!(seen.variable("DATABASE_URL"), Some(&*place.database.url()));
    assert_eq!(seen.variable("PGPASSWORD"), Some(SECRET));
    host.stop().await;
    // It is told of the file's database as well.
    let call = Taskbay::command("run").arg(place.folder.path()).args(["--log-format", "json"]);
    let file = format!("[database]\nurl = {:?}\n[plugins.misbehaving]\ndatabase_url = true", place.database.url());
    let host = call.settings(&file).spawn();
    assert_eq!(place.look_around(&host).await.variable("DATABASE_URL"), Some(&*place.database.url()));
    host.stop().await;
}
