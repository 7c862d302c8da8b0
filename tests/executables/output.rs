//! What goes in and comes out, in any amount.

use std::fs;

use serde_json::json;

use super::{Workplace, of_job};

#[tokio::test(flavor = "multi_thread")]
async fn lines_come_into_the_log_with_the_job_that_wrote_them() {
    let place = Workplace::new().await;
    place.script("talk", "echo hello; echo trouble >&2; printf unfinished");
    let id = place.database.add("talk", json!({})).await;
    let host = place.once().await;
    let mut lines: Vec<_> = host
        .events("job_output")
        .iter()
        .map(|line| {
            [&line["level"], &line["message"], &line["task"], &line["plugin"]]
                .map(|one| one.as_str().unwrap_or("").to_owned())
        })
        .collect();
    lines.sort();
    let expected = [["ERROR", "trouble"], ["INFO", "hello"], ["INFO", "unfinished"]];
    assert_eq!(lines, expected.map(|[level, text]| [level, text, "talk", "talk"].map(str::to_owned)));
    assert!(host.events("job_output").iter().all(|line| line["job"] == id && line["build"].is_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_nobody_wants_does_no_harm() {
    let place = Workplace::new().await;
    place.script("exits", "exit 0");
    place.script("closes", "exec <&-; sleep 0.2; exit 0");
    place.script("a-little", "head -c 10 >/dev/null");
    place.script("slowly", r#"sleep 0.2; wc -c > "$NOTES/count""#);
    place.script("never", "exec sleep 600");
    place.script("other", "exit 0");
    let large = format!("{{\"text\": \"{}\"}}", "x".repeat(20 << 20));
    let sql = "select (graphile_worker.add_job($1, $2::text::json)).id";
    let host = place.ready(place.run()).await;
    let never = place.database.id_of(sql, &[&"never", &large]).await;
    host.event("job_started", of_job(never)).await;
    for task in ["exits", "closes", "a-little", "slowly"] {
        let id = place.database.id_of(sql, &[&task, &large]).await;
        host.event("job_done", of_job(id)).await;
    }
    let count: usize = place.read("count").trim().parse().expect("a number");
    assert_eq!(count, large.len() + r#"{"payload":}"#.len());
    let other = place.database.add("other", json!({})).await;
    host.event("job_done", of_job(other)).await;
    assert!(host.events("job_failed").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_amount_of_output_takes_no_memory() {
    let place = Workplace::new().await;
    // One line of a quarter of a gigabyte on each of the two.
    place.script("flood", "head -c 268435456 /dev/zero | tr '\\0' x; head -c 268435456 /dev/zero | tr '\\0' x >&2");
    let host = place.ready(place.run()).await;
    drop(host);
    let host = place.run().arg("--log-level=off").spawn();
    place.database.add("flood", json!({})).await;
    place.database.wait_until_no_jobs().await;
    let status = fs::read_to_string(format!("/proc/{}/status", host.id())).expect("read its status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    let kib: u64 = peak.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number");
    assert!(kib < 128 << 10, "its peak was {kib} KiB");
    println!("the peak of its memory was {kib} KiB");
}
