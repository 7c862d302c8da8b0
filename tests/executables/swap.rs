//! Replacing an executable while its jobs run.

use std::{collections::BTreeMap, fs, io::Write, time::Duration};

use serde_json::json;

use super::{Workplace, of_job};

#[tokio::test(flavor = "multi_thread")]
async fn under_load_each_job_runs_once_and_as_a_whole_on_one_of_the_files() {
    let place = Workplace::new().await;
    // The shell reads the second half when the first has run.
    let version = |version: u32| {
        format!(
            "echo \"$GRAPHILE_WORKER_JOB_ID {version}\" >> \"$NOTES/begun\"\nsleep 0.03\necho \"$GRAPHILE_WORKER_JOB_ID {version}\" >> \"$NOTES/ended\""
        )
    };
    place.script("task.sh", &version(0));
    let host = place.ready(place.run().args(["-j", "4"])).await;
    let mut ids = Vec::new();
    for round in 1..=10 {
        for _ in 0..20 {
            ids.push(place.database.add("task", json!({})).await);
        }
        host.event("job_started", of_job(ids[ids.len() - 15])).await;
        place.script("task.sh", &version(round));
        host.nth_event(&["plugin_loaded"], usize::try_from(round).expect("few") + 1).await;
    }
    place.database.wait_until_no_jobs().await;
    assert!(host.events("job_failed").is_empty());
    let read = |name| -> BTreeMap<i64, String> {
        let text = place.read(name);
        assert_eq!(text.lines().count(), ids.len(), "each ran once");
        text.lines()
            .map(|line| line.split_once(' ').expect("two words"))
            .map(|(id, version)| (id.parse().expect("an id"), version.to_owned()))
            .collect()
    };
    let (begun, ended) = (read("begun"), read("ended"));
    assert_eq!(begun, ended);
    let versions: std::collections::BTreeSet<_> = begun.values().collect();
    assert!(versions.len() > 5, "{versions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_is_being_written_does_not_run() {
    let place = Workplace::new().await;
    place.script("task.sh", r#"echo first >> "$NOTES/ran""#);
    let host = place.ready(place.run().args(["--poll-interval", "50ms"])).await;
    let id = place.database.add("task", json!({})).await;
    host.event("job_done", of_job(id)).await;

    let mut file =
        fs::OpenOptions::new().write(true).truncate(true).open(place.tasks.path().join("task.sh")).expect("open");
    file.write_all(b"#!/bin/sh\necho half >> \"$NOTES/ran\"\n").expect("write a half");
    let id = place.database.add("task", json!({})).await;
    // It was claimed in vain, or not at all, which nothing tells: the host may have noticed the change before.
    tokio::select! {
        _ = host.event("job_returned", of_job(id)) => {}
        () = tokio::time::sleep(Duration::from_secs(3)) => {}
    }
    file.write_all(b"echo whole >> \"$NOTES/ran\"\n").expect("write the rest");
    drop(file);
    host.event("job_done", of_job(id)).await;
    assert_eq!(place.read("ran"), "first\nhalf\nwhole\n");
    assert!(host.events("job_failed").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_into_a_running_script_is_named_as_the_cause() {
    let place = Workplace::new().await;
    place.script("task.sh", "echo $$ > \"$NOTES/self\"\nwhile ! test -e \"$NOTES/go\"; do sleep 0.02; done\nexit 1");
    let host = place.ready(place.run()).await;
    let id = place.database.add("task", json!({})).await;
    place.noted("self").await;
    let text = "#!/bin/sh\nexit 1\n".repeat(20);
    fs::write(place.tasks.path().join("task.sh"), text).expect("write into the script");
    fs::write(place.note("go"), "").expect("let it go on");
    let failed = host.event("job_failed", of_job(id)).await;
    let message = failed["message"].as_str().unwrap_or_default();
    assert!(message.contains("written to while it ran: replace it as a whole, with mv or install"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_in_place_under_load_is_run_as_a_whole_or_not() {
    let place = Workplace::new().await;
    let version = |version: u32| {
        let head = format!("#!/bin/sh\necho \"$GRAPHILE_WORKER_JOB_ID {version}\" >> \"$NOTES/begun\"\n");
        let tail = format!("echo \"$GRAPHILE_WORKER_JOB_ID {version}\" >> \"$NOTES/ended\"\n");
        format!("{head}{}{tail}", "# nothing\n".repeat(200))
    };
    crate::harness::plugins::install(place.tasks.path(), "task.sh", version(0).as_bytes());
    let host = place.ready(place.run().args(["-j", "8", "--poll-interval", "20ms"])).await;
    let many = "select graphile_worker.add_job('task', '{}') from generate_series(1, 150)";
    for round in 1..=8 {
        place.database.execute(many).await;
        host.nth_event(&["job_done"], 150 * (round - 1) + 30).await;
        let mut file = loop {
            match fs::OpenOptions::new().write(true).truncate(true).open(place.tasks.path().join("task.sh")) {
                Ok(file) => break file,
                // For the moment in which the system starts it.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => tokio::task::yield_now().await,
                Err(error) => panic!("the script cannot be opened: {error}"),
            }
        };
        let text = version(u32::try_from(round).expect("few"));
        let (one, other) = text.as_bytes().split_at(text.len() / 2);
        file.write_all(one).expect("write a half");
        // A moment in which half a script is there to be read: what the test is about.
        tokio::time::sleep(Duration::from_millis(3)).await;
        file.write_all(other).expect("write the other");
        drop(file);
        host.nth_event(&["plugin_loaded"], round + 1).await;
    }
    place.database.wait_until_no_jobs().await;
    assert!(host.events("job_failed").is_empty());
    let read = |name| place.read(name).lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(read("begun"), read("ended"));
    assert_eq!(read("ended").len(), 8 * 150);
}
