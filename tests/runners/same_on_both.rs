//! What holds wherever a plugin runs.

use super::*;

macro_rules! on_both_runners {
    ($($test:ident),* $(,)?) => {
        mod isolated {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Isolation::Child).await;
            })*
        }
        mod in_process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Isolation::InProcess).await;
            })*
        }
    };
}

on_both_runners! {
    each_way_to_end_is_told_apart,
    a_job_arrives_whole,
    the_account_of_failed_items_is_believed_only_if_it_can_be_true,
    late_double_and_unknown_ends_do_no_harm,
    log_lines_carry_job_task_plugin_and_build,
    a_plugin_adds_jobs,
    many_jobs_are_added_at_once,
    schedules_are_part_of_the_manifest,
    a_cancelled_job_may_end_by_itself,
    a_job_that_ignores_being_asked_is_aborted,
    a_job_that_takes_too_long_is_failed,
    a_thousand_jobs_run_at_once,
    retiring_waits_for_what_runs,
    killing_waits_for_nothing,
    a_failing_start_up_refuses_the_build,
    a_start_up_that_hangs_refuses_the_build,
    a_retired_build_is_gone_from_memory,
}

async fn each_way_to_end_is_told_apart(isolation: Isolation) {
    let plugin = Plugin::launch(isolation).await;
    assert_eq!(plugin.run("ok", "{}").await, Outcome::Done);
    assert_eq!(plugin.run("error", "{}").await, failed(FailureKind::Error, "no such address"));
    assert_eq!(plugin.run("discard", "{}").await, failed(FailureKind::Discard, "never will"));
    assert_eq!(plugin.run("panic", "{}").await, failed(FailureKind::Panic, "panicked at src/lib.rs:1:2: boom"));
    assert_eq!(plugin.generation.in_flight(), 0);
    assert_eq!(plugin.generation.plugin(), "raw");
    assert_eq!(plugin.generation.manifest().name, "raw");
    plugin.generation.retire().await;
}

async fn the_account_of_failed_items_is_believed_only_if_it_can_be_true(isolation: Isolation) {
    let plugin = Plugin::launch(isolation).await;
    let failed_items = FailedItems::new(3, vec![FailedItem { index: 1, discard: true }]).unwrap();
    assert_eq!(
        plugin.run("partly", r#"{"items":3,"failed":[{"index":1,"discard":true}]}"#).await,
        Outcome::PartlyFailed { items: failed_items, message: "some".to_owned() }
    );
    let many = (0..300_000).map(|index| format!("{{\"index\":{index}}}")).collect::<Vec<_>>().join(",");
    match plugin.run("partly", &format!("{{\"items\":300000,\"failed\":[{many}]}}")).await {
        Outcome::PartlyFailed { items, .. } => assert_eq!(items.left(false).0.len(), 300_000),
        other => panic!("{other:?}"),
    }
    for nonsense in [
        r#"{"items":1,"failed":[{"index":1}]}"#,
        r#"{"items":2,"failed":[{"index":1},{"index":1}]}"#,
        r#"{"items":2,"failed":[{"index":1},{"index":0}]}"#,
        r#"{"items":2,"failed":[{"index":18446744073709551615}]}"#,
        "[]",
        "",
        "nonsense",
        &"x".repeat(33 << 20),
    ] {
        let text = message(plugin.run("partly", nonsense).await, FailureKind::Error);
        assert!(text.starts_with("some (which ones"), "{text}");
    }
    plugin.generation.retire().await;
}

async fn a_job_arrives_whole(isolation: Isolation) {
    let plugin = Plugin::launch(isolation).await;
    let payload = format!("{{\"größe\":12345678901234567890,\"x\":\"{}\"}}", "y\\u0000".repeat(140_000));
    assert!(message(plugin.run("echo", &payload).await, FailureKind::Error) == payload);
    let full = JobInput {
        id: i64::MIN,
        attempt: 3,
        max_attempts: 7,
        priority: -9,
        revision: 2,
        run_at_us: i64::MAX,
        queue: Some("a queue"),
        key: Some(""),
        last_error: Some("it\nfailed"),
        flags: Some("{\"a\":true}"),
        ..job("null")
    };
    let outcome = plugin.generation.run(plugin.index("describe"), &full, &Cancel::default()).await;
    let expected = format!(
        "{} 3 7 -9 2 {} 2 3 0 Some(\"a queue\") Some(\"\") Some(\"it\\nfailed\") Some(\"{{\\\"a\\\":true}}\")",
        i64::MIN,
        i64::MAX
    );
    assert_eq!(message(outcome, FailureKind::Error), expected);
    plugin.generation.retire().await;
}

async fn late_double_and_unknown_ends_do_no_harm(isolation: Isolation) {
    let plugin = Plugin::launch(isolation).await;
    for _ in 0..50 {
        assert_eq!(plugin.run("twice", "{}").await, Outcome::Done);
        assert_eq!(plugin.run("error", "{}").await, failed(FailureKind::Error, "no such address"));
    }
    plugin.generation.retire().await;
}

async fn log_lines_carry_job_task_plugin_and_build(isolation: Isolation) {
    let text = format!("hello from {isolation:?}");
    let wanted = text.clone();
    let line = logs::wait_for(move |line| line.message == wanted);
    let plugin = Plugin::launch(isolation).await;
    assert_eq!(plugin.run("log", &text).await, Outcome::Done);
    let line = soon(line).await;
    let build = plugin.generation.build().to_string();
    assert_eq!((line.level.as_str(), line.job), ("INFO", Some(42)));
    for (name, value) in
        [("task", "log"), ("plugin", "raw"), ("build", &build), ("module", "raw::target"), ("fields", r#"{"n":1}"#)]
    {
        assert_eq!(line.fields.get(name).map(String::as_str), Some(value), "{name} in {line:?}");
    }
    plugin.generation.retire().await;
}

async fn a_plugin_adds_jobs(isolation: Isolation) {
    let plugin = Plugin::launch(isolation).await;
    let spec = r#"{"identifier":"other"}"#;
    assert_eq!(plugin.run("add-job", spec).await, failed(FailureKind::Error, "0 nothing 101"));
    assert_eq!(
        plugin.run("add-job", r#"{"identifier":"refused"}"#).await,
        failed(FailureKind::Error, "1 the database said no nothing")
    );
    assert_eq!(*plugin.jobs.0.lock().unwrap(), [spec]);
    plugin.generation.retire().await;
}

async fn many_jobs_are_added_at_once(isolation: Isolation) {
    let plugin = Plugin::launch(isolation).await;
    let specs = r#"[{"identifier":"one"},{"identifier":"two"}]"#;
    assert_eq!(plugin.run("add-job", specs).await, failed(FailureKind::Error, "0 nothing [101,102]"));
    assert_eq!(plugin.run("add-job", "[]").await, failed(FailureKind::Error, "0 nothing []"));
    assert_eq!(
        plugin.run("add-job", r#"[{"identifier":"refused"}]"#).await,
        failed(FailureKind::Error, "1 the database said no nothing")
    );
    plugin.generation.retire().await;
}

async fn schedules_are_part_of_the_manifest(isolation: Isolation) {
    let plugin = Plugin::launch(isolation).await;
    let tasks = plugin.generation.tasks();
    let schedules = &tasks[plugin.index("scheduled") as usize].schedules;
    assert_eq!(*schedules, ["0 4 * * * ?fill=1d {\"full\": true}", "*/5 * * * * ?id=often"]);
    assert!(tasks.iter().filter(|task| !task.schedules.is_empty()).count() == 1);
    plugin.generation.retire().await;
}

async fn a_cancelled_job_may_end_by_itself(isolation: Isolation) {
    let plugin = Plugin::launch(isolation).await;
    let cancel = Cancel::default();
    let asked = plugin.begin("ask", &cancel).await;
    let done = plugin.begin("release", &cancel).await;
    cancel.force.cancel();
    assert_eq!(soon(asked).await.unwrap(), failed(FailureKind::Cancelled, "stopped half-way"));
    assert_eq!(soon(done).await.unwrap(), Outcome::Done, "a job that succeeds after all has succeeded");
    plugin.generation.retire().await;
}

async fn a_job_that_ignores_being_asked_is_aborted(isolation: Isolation) {
    let plugin = Plugin::launch(isolation).await;
    let cancel = Cancel::default();
    let running = plugin.begin("abort-only", &cancel).await;
    cancel.force.cancel();
    assert_eq!(soon(running).await.unwrap(), failed(FailureKind::Cancelled, "was cancelled"));
    assert_eq!(plugin.run("ok", "{}").await, Outcome::Done);
    plugin.generation.retire().await;
}

async fn a_job_that_takes_too_long_is_failed(isolation: Isolation) {
    let settings = PluginSettings { timeout: Some(Duration::from_millis(150)), ..settings(isolation) };
    let plugin = Plugin::launch_with(image(), &settings).await;
    for task in ["ask", "abort-only"] {
        assert_eq!(plugin.run(task, "{}").await, failed(FailureKind::Timeout, "did not finish within 150ms"));
    }
    assert_eq!(plugin.run("ok", "{}").await, Outcome::Done);
    plugin.generation.retire().await;
}

async fn a_thousand_jobs_run_at_once(isolation: Isolation) {
    let plugin = Plugin::launch(isolation).await;
    let cancel = Cancel::default();
    let first = if isolation == Isolation::Child { 2_000_000 } else { 3_000_000 };
    let still_to_wait = AtomicU64::new(500);
    let all_wait = logs::wait_for(move |line| {
        line.message == "waiting"
            && line.job.is_some_and(|id| (first..first + 1_000).contains(&id))
            && still_to_wait.fetch_sub(1, Ordering::Relaxed) == 1
    });
    let running = futures_util::future::join_all((0..1_000).map(|n: i64| {
        let generation = Arc::clone(&plugin.generation);
        let (task, expected, cancel) = match n % 2 {
            0 => (plugin.index("release"), Outcome::Done, cancel.clone()),
            _ => (plugin.index("echo"), failed(FailureKind::Error, &n.to_string()), Cancel::default()),
        };
        tokio::spawn(async move {
            let payload = n.to_string();
            (generation.run(task, &JobInput { id: first + n, ..job(&payload) }, &cancel).await, expected)
        })
    }));
    soon(all_wait).await;
    cancel.force.cancel();
    for ended in soon(running).await {
        let (outcome, expected) = ended.unwrap();
        assert_eq!(outcome, expected);
    }
    assert_eq!(plugin.generation.in_flight(), 0);
    plugin.generation.retire().await;
}

async fn retiring_waits_for_what_runs(isolation: Isolation) {
    let mut plugin = Plugin::launch(isolation).await;
    let cancel = Cancel::default();
    let running = plugin.begin("release", &cancel).await;
    let generation = Arc::clone(&plugin.generation);
    let retiring = tokio::spawn(async move { generation.retire().await });
    let in_flight = plugin
        .event(|event| match event {
            Event::Draining { in_flight, .. } => Some(in_flight),
            _ => None,
        })
        .await;
    assert_eq!(in_flight, 1);
    assert_eq!(plugin.run("ok", "{}").await, Outcome::NotStarted);
    assert!(!retiring.is_finished());
    cancel.force.cancel();
    assert_eq!(soon(running).await.unwrap(), Outcome::Done);
    soon(retiring).await.unwrap();
    plugin.event(|event| matches!(event, Event::Retired { .. }).then_some(())).await;
    assert_eq!(*plugin.generation.availability().borrow(), Availability::Stopped);
    assert_eq!(plugin.run("ok", "{}").await, Outcome::NotStarted);
}

async fn killing_waits_for_nothing(isolation: Isolation) {
    let plugin = Plugin::launch(isolation).await;
    let running = plugin.begin("abort-only", &Cancel::default()).await;
    soon(plugin.generation.kill()).await;
    message(soon(running).await.unwrap(), FailureKind::Cancelled);
    assert_eq!(*plugin.generation.availability().borrow(), Availability::Stopped);
}

async fn a_failing_start_up_refuses_the_build(isolation: Isolation) {
    let mut settings = settings(isolation);
    settings.settings.insert("url".to_owned(), "x".into());
    let error = soon(Generation::launch(image_with("nothing", "fail"), &settings, &services().0)).await.unwrap_err();
    assert_eq!(error, LaunchError::StartFailed(r#"no database with {"url":"x"}"#.to_owned()));
}

async fn a_start_up_that_hangs_refuses_the_build(isolation: Isolation) {
    let limit = Duration::from_millis(700);
    let settings = PluginSettings { start_timeout: limit, ..settings(isolation) };
    let error = soon(Generation::launch(image_with("nothing", "hang"), &settings, &services().0)).await.unwrap_err();
    assert_eq!(error, LaunchError::StartTimedOut(limit));
}

/// Isolated, that is to say; in-process, what is mapped stays, and only its shutdown can be seen.
async fn a_retired_build_is_gone_from_memory(isolation: Isolation) {
    let plugin = Plugin::launch(isolation).await;
    let pid: u32 = message(plugin.run("pid", "{}").await, FailureKind::Error).parse().unwrap();
    assert_eq!(pid == std::process::id(), isolation == Isolation::InProcess);
    plugin.generation.retire().await;
    assert_eq!(PathBuf::from(format!("/proc/{pid}")).exists(), isolation == Isolation::InProcess);
}
