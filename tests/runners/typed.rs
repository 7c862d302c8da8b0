//! A plugin as people write them, on both runners.

use super::*;

async fn launch(isolation: Isolation) -> Plugin {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    Plugin::launch_with(
        seal(BYTES.get_or_init(|| std::fs::read(plugin("typed-plugin")).expect("read the compiled plugin"))),
        &settings(isolation),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn isolated() {
    every_way_to_end(Isolation::Child).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process() {
    every_way_to_end(Isolation::InProcess).await;
}

async fn every_way_to_end(isolation: Isolation) {
    let to = format!("{isolation:?}");
    let fields = format!("{{\"to\":\"{to}\"}}");
    let line = logs::wait_for(move |line| line.fields.get("fields") == Some(&fields));
    let plugin = launch(isolation).await;
    assert_eq!(plugin.run("greet", &format!(r#"{{"to":"{to}","times":3}}"#)).await, Outcome::Done);
    let line = soon(line).await;
    assert_eq!((line.message.as_str(), line.job), ("greeting", Some(42)));
    assert_eq!(line.fields["task"], "greet");

    let text = message(plugin.run("greet", r#"{"to":"x"}"#).await, FailureKind::Error);
    assert!(text.contains("times"), "{text}");
    for (task, said) in [("panics", "no luck today"), ("panics_plain", "no luck either")] {
        let text = message(plugin.run(task, "{}").await, FailureKind::Panic);
        assert!(text.contains(said) && text.contains("typed-plugin/src/lib.rs:"), "{text}");
    }
    let text = message(plugin.run("mail/fails:now", "{}").await, FailureKind::Discard);
    assert!(text.contains("the address does not exist"), "{text}");
    assert_eq!(plugin.run("sleeps_for_ever", "{}").await, failed(FailureKind::Timeout, "did not finish within 100ms"));
    let text = message(plugin.run("adds", "{}").await, FailureKind::Error);
    assert!(text.contains("added 101"), "{text}");
    assert_eq!(*plugin.jobs.0.lock().unwrap(), [r#"{"identifier":"other","payload":{"from":42}}"#]);

    let cancel = Cancel::default();
    let running = plugin.begin("notices", &cancel).await;
    cancel.force.cancel();
    let text = message(soon(running).await.unwrap(), FailureKind::Cancelled);
    assert!(text.contains("stopped after the first half"), "{text}");

    let text = message(plugin.run("works_for_ever", "{}").await, FailureKind::Timeout);
    let more = match isolation {
        Isolation::Child => "its plugin was restarted",
        Isolation::InProcess => "it still runs",
    };
    assert!(text.contains(more), "{text}");
    plugin.serving().await;
    while plugin.run("greet", r#"{"to":"","times":1}"#).await == Outcome::NotStarted {
        plugin.serving().await;
    }
    soon(plugin.generation.kill()).await;
}
