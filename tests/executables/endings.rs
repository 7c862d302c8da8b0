//! How a run ends, by itself or not, and what is left of it.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{Workplace, exists, of_job};
use crate::harness::processes::{is_alive, wait_until_gone};

#[tokio::test(flavor = "multi_thread")]
async fn how_it_ended_is_in_the_jobs_error_with_the_end_of_what_it_complained_of() {
    let place = Workplace::new().await;
    let cases = [
        (
            "code",
            "echo fine; echo '  no such' >&2; echo customer >&2; exit 3",
            "exited with code 3:\n  no such\ncustomer",
        ),
        ("quiet", "exit 255", "exited with code 255"),
        ("signal", "kill -SEGV $$", "was killed by signal 11 (SIGSEGV, an invalid memory access or a stack overflow)"),
        ("bytes", r"printf '\377\000x' >&2; exit 1", "exited with code 1:\n\u{fffd}\\0x"),
        ("missing", "no-such-program", "exited with code 127:\n"),
    ];
    for (name, script, _) in cases {
        place.script(name, script);
        place.database.add(name, json!({})).await;
    }
    place.script("long", "for i in $(seq 1 3000); do echo \"line $i\" >&2; done; exit 1");
    place.script("wide", "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1");
    let long = place.database.add("long", json!({})).await;
    let wide = place.database.add("wide", json!({})).await;
    place.once().await;
    let jobs = place.database.jobs().await;
    for (name, _, expected) in cases {
        let job = jobs.iter().find(|job| job.task == name).expect("a failed job is kept");
        let error = job.last_error.as_deref().expect("it has an error");
        assert!(
            error.starts_with(expected) && (name == "missing" || error.len() == expected.len()),
            "{name}: {error:?}"
        );
        assert_eq!((job.attempts, &job.locked_by), (1, &None));
    }
    let error = place.database.job(long).await.last_error.expect("an error");
    assert!(error.starts_with("exited with code 1:\nline 2981\n") && error.ends_with("\nline 3000"), "{error}");
    let error = place.database.job(wide).await.last_error.expect("an error");
    assert!(error.len() < 4_200 && error.starts_with("exited with code 1:\n…xxx"), "{}", error.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_it_from_starting_is_named() {
    let place = Workplace::new().await;
    let interpreter = place.note("interpreter");
    std::os::unix::fs::symlink("/bin/sh", &interpreter).expect("make a link");
    crate::harness::plugins::install(
        place.tasks.path(),
        "task.sh",
        format!("#!{}\nexit 0\n", interpreter.display()).as_bytes(),
    );
    let host = place.ready(place.run()).await;
    fs::remove_file(&interpreter).expect("remove the interpreter");
    let id = place.database.add("task", json!({})).await;
    host.event("job_failed", of_job(id)).await;
    let error = place.database.job(id).await.last_error.expect("an error");
    let expected =
        format!("could not be started: its interpreter {} does not exist: install it", interpreter.display());
    assert!(error.starts_with(&expected), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_time_is_up_the_whole_group_ends() {
    let place = Workplace::new().await;
    // Neither of the two hears a polite word.
    place.script(
        "deaf",
        r#"trap '' TERM; echo started >&2; sleep 600 & echo $! > "$NOTES/child"; echo $$ > "$NOTES/self"; wait"#,
    );
    // One that tidies up.
    place.script("tidy", r#"trap 'echo tidied >&2; exit 9' TERM; echo up >&2; while :; do sleep 0.05; done"#);
    let settings =
        "[plugins.default]\ntimeout = \"300ms\"\ncancel_grace = \"300ms\"\n[plugins.tidy]\ncancel_grace = \"30s\"";
    let deaf = place.database.add("deaf", json!({})).await;
    let tidy = place.database.add("tidy", json!({})).await;
    let mut host = place.run().settings(settings).arg("--once").spawn();
    assert!(host.ended().await.success());
    let error = place.database.job(deaf).await.last_error.expect("an error");
    assert!(
        error.starts_with("did not finish within 300ms; told to end, it did not within 300ms and was killed:"),
        "{error}"
    );
    assert!(error.ends_with("\nstarted"), "{error}");
    for name in ["self", "child"] {
        wait_until_gone(place.noted_id(name).await).await;
    }
    let error = place.database.job(tidy).await.last_error.expect("an error");
    // Its shell says in between that the whole group was told.
    assert!(error.starts_with("did not finish within 300ms; told to end, it exited with code 9:\nup\n"), "{error}");
    assert!(error.ends_with("\ntidied"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_host_tells_its_executables_to_end_and_stores_how_they_did() {
    let place = Workplace::new().await;
    place.script(
        "tidy",
        r#"trap 'echo tidied >&2; exit 9' TERM; echo $$ > "$NOTES/tidy"; while :; do sleep 0.05; done"#,
    );
    place.script("deaf", r#"trap '' TERM; echo $$ > "$NOTES/deaf"; while :; do sleep 0.05; done"#);
    place.script("willing", r#"trap 'exit 0' TERM; echo $$ > "$NOTES/willing"; while :; do sleep 0.05; done"#);
    let host = place.ready(place.run().settings("[worker]\nabort_timeout = \"0s\"")).await;
    let [tidy, deaf, willing] = ["tidy", "deaf", "willing"];
    let mut ids = Vec::new();
    for task in [tidy, deaf, willing] {
        ids.push(place.database.add(task, json!({})).await);
        place.noted(task).await;
    }
    host.stop().await;
    let jobs = place.database.jobs().await;
    let errors: Vec<&str> = jobs.iter().map(|job| job.last_error.as_deref().unwrap_or_default()).collect();
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), ids[..2], "the willing one succeeded");
    assert!(errors[0].starts_with("was cancelled; told to end, it exited with code 9:\n"), "{}", errors[0]);
    assert!(errors[0].ends_with("tidied"), "{}", errors[0]);
    assert!(
        errors[1].starts_with("was cancelled; told to end, it did not within 500ms and was killed"),
        "{}",
        errors[1]
    );
    assert!(jobs.iter().all(|job| job.locked_by.is_none()));
    wait_until_gone(place.noted_id("deaf").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_takes_its_executables_along() {
    let place = Workplace::new().await;
    place.script("long", r#"echo $$ > "$NOTES/self"; exec sleep 600"#);
    let mut host = place.ready(place.run()).await;
    place.database.add("long", json!({})).await;
    let pid = place.noted_id("self").await;
    assert!(is_alive(pid));
    host.signal(Signal::KILL);
    host.ended().await;
    wait_until_gone(pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_left_behind_neither_holds_the_job_nor_dies_of_it() {
    let place = Workplace::new().await;
    place.script("daemon", r#"sleep 600 & echo $! > "$NOTES/left"; echo said"#);
    let host = place.ready(place.run()).await;
    let id = place.database.add("daemon", json!({})).await;
    host.event("job_done", of_job(id)).await;
    assert!(host.events("job_output").iter().any(|line| line["message"] == "said"));
    let left = place.noted_id("left").await;
    assert!(is_alive(left));
    kill_process(Pid::from_raw(i32::try_from(left).expect("an id")).expect("an id"), Signal::KILL).expect("kill it");
    assert!(!exists(&place.note("never")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_limit_holds_for_an_executable_and_is_named_by_the_failure() {
    let place = Workplace::new().await;
    let hungry = "x=$(head -c 100000000 /dev/zero | tr '\\0' x)";
    for name in ["limited", "free"] {
        place.script(name, hungry);
        place.database.add(name, json!({})).await;
    }
    let mut host = place.run().arg("--once").settings("[plugins.limited]\nmemory_limit = \"32MiB\"").spawn();
    assert!(host.ended().await.success());
    let failed = place.database.only_job().await;
    let error = failed.last_error.expect("it failed");
    assert!(failed.task == "limited" && error.ends_with("(its memory_limit is 33554432 bytes)"), "{error}");
}
