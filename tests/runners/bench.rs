//! What a job costs on each runner.

use super::*;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints measurements; run it with --release --ignored --nocapture"]
async fn cost_of_a_job() {
    println!("{:12} {:>14} {:>14}", "runner", "alone", "64 at once");
    for isolation in [Isolation::InProcess, Isolation::Child] {
        let plugin = Plugin::launch(isolation).await;
        let ok = plugin.index("ok");
        let cancel = Cancel::default();
        let payload = format!("{{\"x\":\"{}\"}}", "y".repeat(190));
        let started = Instant::now();
        for _ in 0..20_000 {
            plugin.generation.run(ok, &job(&payload), &cancel).await;
        }
        let alone = started.elapsed() / 20_000;
        let started = Instant::now();
        let lanes = (0..64).map(|_| async {
            for _ in 0..3_000 {
                plugin.generation.run(ok, &job(&payload), &cancel).await;
            }
        });
        futures_util::future::join_all(lanes).await;
        println!("{:12} {:>14?} {:>14?}", format!("{isolation:?}"), alone, started.elapsed() / (64 * 3_000));
        plugin.generation.retire().await;
    }
}
