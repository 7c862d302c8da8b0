//! What a plugin logs reaches the host with its fields, and with the job it is about.

use taskbay_abi::{LEVEL_DEBUG, LEVEL_INFO, LEVEL_WARN};
use taskbay_plugin::{prelude::*, private::plugin_header, tracing};

use crate::fake_host::FakeHost;

#[task(name = "log/async")]
async fn speak() -> TaskResult {
    let span = tracing::info_span!("order", order = 7, who = "outer", later = tracing::field::Empty);
    span.record("later", 2.5);
    let _entered = span.entered();
    let inner = tracing::info_span!("line", who = "inner").entered();
    let error = std::io::Error::other("out of ink");
    warn!(ok = true, huge = u64::MAX, bad = f64::NAN, error = &error as &dyn std::error::Error, to = %"ada", "printing {}", 1);
    drop(inner);
    debug!(target: "my::target", "bare");
    Ok(())
}

#[task]
fn speak_plainly() {
    info!("from a plain task");
    log::info!(target: "old::library", "from the log crate {}", 5);
}

#[task]
fn speak_from_a_runtime_of_its_own(ctx: Context) -> TaskResult {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async { ctx.spawn(async { info!("within") }).await })?;
    info!("afterwards");
    Ok(())
}

#[task]
async fn speak_beside(ctx: Context) -> TaskResult {
    Ok(ctx.spawn(async { info!("from beside") }).await?)
}

#[test]
fn lines_carry_fields_spans_and_the_job() {
    let host = FakeHost::serving(plugin_header!(speak, speak_plainly, speak_beside, speak_from_a_runtime_of_its_own));
    let call = host.begin("log/async", "null");
    host.outcome(call);
    let line = host.line("printing 1");
    assert_eq!((line.call, line.level), (call, LEVEL_WARN));
    assert!(line.target.ends_with("log_lines"), "{}", line.target);
    let expected = json!({
        "order": 7, "later": 2.5, "who": "inner",
        "ok": true, "huge": u64::MAX, "bad": "NaN", "error": "out of ink", "to": "ada",
    });
    assert_eq!(line.fields, expected);

    let line = host.line("bare");
    assert_eq!((line.level, &*line.target), (LEVEL_DEBUG, "my::target"));
    assert_eq!(line.fields, json!({ "order": 7, "later": 2.5, "who": "outer" }));

    let call = host.begin("speak_plainly", "null");
    host.outcome(call);
    let line = host.line("from a plain task");
    assert_eq!((line.call, line.level, line.fields), (call, LEVEL_INFO, Json::Null));
    let line = host.line("from the log crate 5");
    assert_eq!((line.call, line.level, &*line.target), (call, LEVEL_INFO, "old::library"));

    let call = host.begin("speak_beside", "null");
    host.outcome(call);
    assert_eq!(host.line("from beside").call, call);
    assert_eq!(host.lines().iter().filter(|line| line.message == "from beside").count(), 1);

    let call = host.begin("speak_from_a_runtime_of_its_own", "null");
    host.outcome(call);
    assert_eq!((host.line("within").call, host.line("afterwards").call), (call, call));
}
