//! Where settings come from, which of them counts, and how they are shown.

use std::{fs, path::Path, process::Output};

use serde_json::Value;
use taskbay::config::{self, FlagValue, Kind, PLUGIN_SETTINGS, SECTIONS, SETTINGS};

use crate::harness::{postgres::TestDatabase, program::Taskbay};

#[track_caller]
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A setting as `taskbay config --json` tells it.
#[track_caller]
fn setting(call: Taskbay, section: &str, key: &str) -> Value {
    let list: Value = serde_json::from_str(&stdout(&call.arg("--json").output())).expect("JSON");
    let found = list.as_array().expect("a list").iter().find(|one| one["section"] == section && one["key"] == key);
    found.unwrap_or_else(|| panic!("there is no {section}.{key} in {list:#}")).clone()
}

/// A host that took them would die of adding them to the present time, or never wake up.
#[test]
fn a_duration_that_no_clock_can_count_is_refused_with_its_place() {
    let timed = |kind: Kind| matches!(kind, Kind::Time | Kind::PositiveTime | Kind::Milliseconds);
    let of_host = SETTINGS.iter().filter(|setting| timed(setting.kind)).map(|setting| (setting.section, setting.key));
    let of_plugins =
        PLUGIN_SETTINGS.iter().filter(|setting| timed(setting.kind)).map(|one| ("plugins.default", one.key));
    for (section, key) in of_host.chain(of_plugins) {
        let call = Taskbay::command("config").settings(&format!("[{section}]\n{key} = \"584542046090 years\""));
        let said = stderr(&call.output());
        let expected = format!("taskbay.toml, line 2: {section}.{key}: ");
        assert!(said.contains(&expected) && said.contains("at most 36500 days"), "{said}");
    }
    let said = stderr(&Taskbay::command("config").env("TASKBAY_POLL_INTERVAL", "18446744073709551615").output());
    assert!(said.contains("TASKBAY_POLL_INTERVAL") && said.contains("at most 36500 days"), "{said}");
}

#[test]
fn the_largest_number_that_can_be_written_can_be_counted_with() {
    // One of them is left to follow from another one.
    let counts = SETTINGS.iter().filter(|setting| setting.section == "worker" && matches!(setting.kind, Kind::Count));
    let counts = counts.filter(|setting| setting.key != "refetch_max_abort_threshold");
    let lines: String = counts.map(|setting| format!("{} = {}\n", setting.key, i64::MAX)).collect();
    let call = Taskbay::command("config").settings(&format!("[worker]\nrefetch_delay = \"1s\"\n{lines}"));
    assert!(stdout(&call.output()).contains("local_queue_size = 9223372036854775807"));
}

#[test]
fn a_flag_counts_before_a_variable_before_the_file_before_the_default() {
    let file = || Taskbay::command("config").settings("# first line\n[worker]\nconcurrency = 3");
    let variable = || file().env("TASKBAY_CONCURRENCY", "4");
    for (call, value, source, place) in [
        (Taskbay::command("config"), 50, "default", Value::Null),
        (file(), 3, "file", "taskbay.toml".into()),
        (variable(), 4, "variable", "TASKBAY_CONCURRENCY".into()),
        (variable().args(["-j", "5"]), 5, "flag", "--jobs".into()),
    ] {
        let found = setting(call, "worker", "concurrency");
        assert_eq!((&found["value"], &found["source"], &found["place"]), (&value.into(), &source.into(), &place));
        assert_eq!(found["line"], if source == "file" { 3.into() } else { Value::Null });
    }
}

/// Each of them, so that none is read and then dropped.
#[test]
fn every_setting_of_the_file_is_in_force() {
    let call = || {
        Taskbay::command("config").settings(
            r#"
            [database]
            url = "postgres://me@db.example/app"
            schema = "jobs"
            max_pool_size = 7
            prepared_statements = false
            [tasks]
            directory = "/srv/tasks"
            settle = "51ms"
            settle_cap = "9s"
            rescan = "61s"
            missing_grace = "10m"
            strict_permissions = false
            manifest = "/srv/SHA256SUMS"
            trusted_keys = ["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"]
            [worker]
            concurrency = 11
            poll_interval = "3s"
            abort_timeout = "6s"
            stop_timeout = "7s"
            forbidden_flags = ["a"]
            listen = false
            liveness = false
            max_crashes = 4
            clock = "process"
            claim = "marked"
            local_queue_size = 20
            local_queue_ttl = "1m"
            refetch_delay = "1s"
            refetch_threshold = 2
            refetch_max_abort_threshold = 30
            complete_job_batch_delay = "1ms"
            fail_job_batch_delay = "2ms"
            min_reset_locked_interval = "1m"
            max_reset_locked_interval = "2m"
            [cron]
            crontab = "/srv/crontab"
            [log]
            format = "json"
            level = "warn"
            success = false
            [plugins.default]
            isolation = "in-process"
            memory_limit = "1GiB"
            open_files = 100
            processes = 200
            user = "nobody"
            database_url = true
            timeout = "2m"
            cancel_grace = "1s"
            start_timeout = "20s"
            roll_back = false
            settings = { a = 1 }
            "#,
        )
    };
    let list: Value = serde_json::from_str(&stdout(&call().arg("--json").output())).expect("JSON");
    for one in list.as_array().expect("a list") {
        assert_eq!(one["source"], "file", "{one}");
    }
    let text = stdout(&call().output());
    for line in ["prepared_statements = false", "settle = \"51ms\"", "memory_limit = \"1GiB\"", "settings = { a = 1 }"]
    {
        assert!(text.lines().any(|one| one.starts_with(line)), "{line} is not in {text}");
    }
}

#[test]
fn every_setting_has_a_variable_that_works() {
    let samples = |name: &str| match name {
        "TASKBAY_PREPARED_STATEMENTS"
        | "TASKBAY_LISTEN"
        | "TASKBAY_LIVENESS"
        | "TASKBAY_ROLL_BACK"
        | "TASKBAY_STRICT_PERMISSIONS"
        | "TASKBAY_PLUGIN_DATABASE_URL"
        | "TASKBAY_LOG_SUCCESS" => "false",
        "TASKBAY_CLOCK" => "process",
        "TASKBAY_CLAIM" => "marked",
        "TASKBAY_LOG_FORMAT" => "json",
        "TASKBAY_LOG_LEVEL" => "warn",
        "TASKBAY_ISOLATION" => "in-process",
        "TASKBAY_MEMORY_LIMIT" => "1GiB",
        "TASKBAY_CONCURRENCY"
        | "TASKBAY_MAX_CRASHES"
        | "TASKBAY_OPEN_FILES"
        | "TASKBAY_PROCESSES"
        | "TASKBAY_MAX_POOL_SIZE"
        | "TASKBAY_LOCAL_QUEUE_SIZE"
        | "TASKBAY_REFETCH_THRESHOLD"
        | "TASKBAY_REFETCH_MAX_ABORT_THRESHOLD" => "12",
        "TASKBAY_SETTLE_CAP" => "33m",
        "TASKBAY_SETTLE" => "33ms",
        "TASKBAY_MAX_RESET_LOCKED_INTERVAL" => "33m",
        "TASKBAY_TRUSTED_KEYS" => "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3",
        "TASKBAY_DATABASE_URL" => "postgres://me@db.example/app",
        "TASKBAY_SCHEMA"
        | "TASKBAY_TASKS_DIRECTORY"
        | "TASKBAY_MANIFEST"
        | "TASKBAY_PLUGIN_USER"
        | "TASKBAY_CRONTAB"
        | "TASKBAY_FORBIDDEN_FLAGS" => "x",
        _ => "3m",
    };
    let host = SETTINGS.iter().map(|setting| (setting.section, setting.key, setting.variables));
    let plugins = PLUGIN_SETTINGS.iter().map(|setting| ("plugins.default", setting.key, setting.variables));
    let mut call = Taskbay::command("config");
    let mut expected = Vec::new();
    for (section, key, variables) in host.chain(plugins) {
        // What is in parts in the file are the PG* variables here.
        let in_parts = section == "database" && ["host", "port", "user", "dbname", "sslmode"].contains(&key);
        let in_file_only = key == "settings" || in_parts;
        let ours = variables.iter().find(|variable| variable.name.starts_with("TASKBAY_"));
        assert_eq!(ours.is_none(), in_file_only, "{section}.{key}");
        if let Some(variable) = ours {
            call = call.env(variable.name, samples(variable.name));
            expected.push((section, key, variable.name));
        }
    }
    let output = call.arg("--json").output();
    let list: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    for (section, key, name) in expected {
        let found = list.as_array().expect("a list").iter().find(|one| one["section"] == section && one["key"] == key);
        assert_eq!(found.expect(key)["place"], name, "{section}.{key}");
    }
    assert!(!stderr(&output).contains("sets nothing"), "{}", stderr(&output));
}

#[test]
fn graphile_workers_variables_are_understood() {
    let call = Taskbay::command("config").env("GRAPHILE_WORKER_SCHEMA", "theirs");
    assert_eq!(setting(call, "database", "schema")["value"], "theirs");
    for name in ["GRAPHILE_LOGGER_DEBUG", "GRAPHILE_WORKER_DEBUG"] {
        let level = setting(Taskbay::command("config").env(name, "1"), "log", "level");
        assert_eq!((&level["value"], &level["place"]), (&"debug".into(), &name.into()));
    }
    assert_eq!(setting(Taskbay::command("config").env("NO_LOG_SUCCESS", "1"), "log", "success")["value"], false);
}

#[test]
fn a_wrong_or_mistyped_variable_is_named() {
    let output = Taskbay::command("config").env("TASKBAY_CONCURRENCY", "many").output();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("TASKBAY_CONCURRENCY is \"many\": it must be a whole number from 1"), "{said}");
    let output = Taskbay::command("config").env("TASKBAY_CONCURENCY", "3").output();
    assert!(
        output.status.success() && stderr(&output).contains("did you mean TASKBAY_CONCURRENCY?"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn passwords_are_not_shown() {
    for call in [
        Taskbay::command("config").env("DATABASE_URL", "postgres://me:topsecret@db.example:5433/app?sslmode=require"),
        Taskbay::command("config").args(["-c", "host=db.example port=5433 user=me dbname=app password=topsecret"]),
        Taskbay::command("config")
            .settings("[database]\nhost = \"db.example\"\nport = 5433\nuser = \"me\"\ndbname = \"app\"")
            .env("PGPASSWORD", "topsecret"),
        Taskbay::command("config")
            .settings("[plugins.mail.settings]\nsmtp = { password = \"topsecret\" }\napi_token = \"topsecret\"")
            .env("DATABASE_URL", "postgres://me:topsecret@db.example:5433/app"),
    ] {
        let text = stdout(&call.output());
        assert!(!text.contains("topsecret"), "{text}");
        assert!(text.contains("postgres://me:***@db.example:5433/app"), "{text}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_both_named() {
    let call = || Taskbay::command("run").env("DATABASE_URL", "postgres://127.0.0.1:1/none");
    let output = call()
        .settings("[worker]\nmin_reset_locked_interval = \"10m\"")
        .env("TASKBAY_MAX_RESET_LOCKED_INTERVAL", "1m")
        .output();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains(
            "worker.min_reset_locked_interval = \"10m\" (taskbay.toml, line 2) is more than \
             worker.max_reset_locked_interval = \"1m\" (TASKBAY_MAX_RESET_LOCKED_INTERVAL)"
        ),
        "{said}"
    );
    for (alone, other) in [
        ("local_queue_ttl = \"1s\"", "local_queue_size"),
        ("refetch_delay = \"1s\"", "local_queue_size"),
        ("local_queue_size = 5\nrefetch_threshold = 1", "refetch_delay"),
        ("refetch_max_abort_threshold = 1", "refetch_delay"),
    ] {
        let said = stderr(&call().settings(&format!("[worker]\n{alone}")).output());
        assert!(said.contains(&format!("has no effect without worker.{other}: set {other} too")), "{said}");
    }
    let said = stderr(&call().args(["--trusted-key", "nonsense"]).output());
    assert!(said.contains("tasks.trusted_keys (--trusted-key) has \"nonsense\", which is no public key"), "{said}");
    let said = stderr(&call().args(["-m", "1"]).output());
    assert!(said.contains("database.max_pool_size = 1 (--max-pool-size) is too small"), "{said}");
    let said =
        stderr(&Taskbay::command("config").settings("[database]\nurl = \"postgres://a\"\nhost = \"b\"").output());
    assert!(said.contains("taskbay.toml, line 3: database.host contradicts database.url"), "{said}");
}

#[test]
fn the_example_file_is_a_settings_file_that_changes_nothing() {
    let example = stdout(&Taskbay::command("config").arg("--example").output());
    let plain = stdout(&Taskbay::command("config").output());
    let used = stdout(&Taskbay::command("config").settings(&example).output());
    let without_folder =
        |text: &str| text.lines().filter(|line| !line.starts_with("directory")).collect::<Vec<_>>().join("\n");
    assert_eq!(without_folder(&used), without_folder(&plain));
    // Uncommented, every line is right: but one cannot have both a URL and its parts.
    let (database, others) = example.split_at(example.find("[tasks]").expect("the section"));
    let in_parts = |line: &str| {
        ["host", "port", "user", "dbname", "sslmode"].iter().any(|key| line.starts_with(&format!("# {key} =")))
    };
    let uncommented: String = database
        .lines()
        .filter(|line| !in_parts(line))
        .chain(others.lines())
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.starts_with('[') => setting,
            Some(setting) if setting.split_once(" = ").is_some_and(|(key, _)| !key.contains([' ', '.'])) => setting,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let output = Taskbay::command("config").settings(&uncommented).args(["--json"]).output();
    let list: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    for one in list.as_array().expect("a list") {
        assert_eq!(one["source"], "file", "{one} is not in the example");
    }
}

#[test]
fn the_documentation_has_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let document = fs::read_to_string(&path).expect("docs/settings.md");
    for (section, _) in SECTIONS {
        let table = config::markdown_table(section);
        assert!(document.contains(&table), "the table of [{section}] in docs/settings.md must be:\n\n{table}");
    }
}

#[test]
fn the_help_has_every_flag() {
    let output = Taskbay::command("run").arg("--help").output();
    let help = stdout(&output);
    let flags = SETTINGS
        .iter()
        .flat_map(|setting| setting.flags)
        .chain(PLUGIN_SETTINGS.iter().flat_map(|setting| setting.flags));
    for flag in flags {
        assert!(help.contains(&format!("--{}", flag.long)), "--{} is not in the help", flag.long);
        if let FlagValue::Named(value) = flag.value {
            assert!(help.contains(&format!("--{} <{value}>", flag.long)), "--{} {value}", flag.long);
        }
    }
    // Those of graphile-worker.
    for flag in [
        "--connection",
        "--once",
        "--watch",
        "--jobs",
        "--poll-interval",
        "--schema-only",
        "--max-pool-size",
        "--schema",
        "--no-prepared-statements",
        "--crontab",
        "--config",
        "--cleanup",
        "--help",
        "--version",
    ] {
        assert!(help.contains(flag), "{flag} is not in the help");
    }
}

#[tokio::test]
async fn jobs_that_are_done_are_logged_unless_they_shall_not_be() {
    let database = TestDatabase::installed().await;
    let folder = tempfile::tempdir().expect("a tasks folder");
    crate::harness::plugins::install_plugin(folder.path(), "misbehaving");
    for (quiet, lines) in [(false, 1), (true, 0)] {
        database.add("nothing", serde_json::json!({})).await;
        let call = Taskbay::run(&database.url(), folder.path()).arg("--once");
        let call = if quiet { call.env("NO_LOG_SUCCESS", "1") } else { call };
        let mut host = call.spawn();
        assert!(host.ended().await.success());
        assert_eq!(host.events("job_done").len(), lines);
        assert_eq!(host.events("job_started").len(), 1);
    }
}
