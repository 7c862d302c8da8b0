//! A job begins, sees its fields and its payload, and ends in one of the ways that a task can return.

use taskbay_abi::{STATUS_CANCELLED, STATUS_DISCARD, STATUS_ERROR, STATUS_OK};
use taskbay_plugin::{prelude::*, private::plugin_header};

use crate::fake_host::{DEADLINE, Ended, FakeHost, job};

fn ended(status: u32, message: &str) -> Ended {
    Ended { status, message: message.to_owned(), detail: String::new() }
}

#[derive(Deserialize)]
struct Order {
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    amount: u32,
}

#[task]
async fn sum(order: Order) -> TaskResult {
    let total: u32 = order.lines.iter().map(|line| line.amount).sum();
    bail!("the sum is {total}")
}

#[task]
fn plain_sum(_ctx: Context, order: Order) -> TaskResult {
    bail!("the plain sum is {}", order.lines.iter().map(|line| line.amount).sum::<u32>())
}

#[task]
async fn nothing() {}

#[task]
async fn standard_error(path: String) -> Result<(), std::io::Error> {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    std::fs::metadata(path).map(drop)
}

#[task]
fn text_error() -> Result<(), &'static str> {
    Err("too late")
}

#[task]
async fn question_mark(number: String) -> TaskResult {
    let number: u8 = number.parse().or_discard(format_args!("`{number}` is no byte"))?;
    info!(number);
    Ok(())
}

#[task]
async fn fields(ctx: Context) -> TaskResult {
    assert_eq!((ctx.id(), ctx.attempt(), ctx.max_attempts(), ctx.priority(), ctx.revision()), (42, 2, 5, -3, 7));
    assert_eq!((ctx.queue(), ctx.key(), ctx.last_error()), (Some("mail"), None, Some("timed out")));
    assert_eq!(ctx.flags(), ["big", "slow"]);
    assert_eq!((ctx.task(), ctx.payload()), ("fields", r#"{"a": [1, "\u0000"]}"#));
    assert_eq!(ctx.timeout(), Some(std::time::Duration::from_secs(60)));
    assert!(ctx.deadline().is_some_and(|at| at > std::time::Instant::now()));
    let since_epoch = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    assert_eq!(since_epoch(ctx.run_at()), 1_700_000_000_000_001);
    assert_eq!(since_epoch(ctx.created_at()), 1_600_000_000_000_002);
    assert_eq!(since_epoch(ctx.updated_at()), 1_600_000_000_000_003);
    assert!(!ctx.is_cancelled() && !ctx.is_last_attempt());
    Ok(())
}

/// Keeps the payload's exact text.
#[task]
async fn raw(json: Box<RawJson>) -> TaskResult {
    bail!("{}", json.get())
}

#[test]
fn jobs_end_as_their_tasks_return() {
    let host = FakeHost::serving(plugin_header!(
        sum,
        plain_sum,
        nothing,
        standard_error,
        text_error,
        question_mark,
        fields,
        raw
    ));
    let order = r#"{"lines": [{"amount": 1}, {"amount": 41}]}"#;
    assert_eq!(host.run("sum", order), ended(STATUS_ERROR, "the sum is 42"));
    assert_eq!(host.run("plain_sum", order), ended(STATUS_ERROR, "the plain sum is 42"));
    assert_eq!(host.run("nothing", "null"), ended(STATUS_OK, ""));
    assert_eq!(host.run("standard_error", "\"/\""), ended(STATUS_OK, ""));
    let missing = "No such file or directory (os error 2)";
    assert_eq!(host.run("standard_error", "\"/nowhere\""), ended(STATUS_ERROR, missing));
    assert_eq!(host.run("text_error", "null"), ended(STATUS_ERROR, "too late"));
    assert_eq!(host.run("question_mark", "\"7\""), ended(STATUS_OK, ""));
    let discarded = "`x` is no byte: invalid digit found in string";
    assert_eq!(host.run("question_mark", "\"x\""), ended(STATUS_DISCARD, discarded));
    assert_eq!(host.run("fields", r#"{"a": [1, "\u0000"]}"#), ended(STATUS_OK, ""));
    let raw = r#"{"n": 12345678901234567890123, "nul": "\u0000"}"#;
    assert_eq!(host.run("raw", raw), ended(STATUS_ERROR, raw));

    let misfit = "the payload does not fit the task `sum`: `lines[0].amount`: invalid type: string \"x\", expected u32 \
                  at line 1 column 24";
    assert_eq!(host.run("sum", r#"{"lines": [{"amount":"x"}]}"#), ended(STATUS_ERROR, misfit));
    let misfit = "the payload does not fit the task `plain_sum`: invalid type: null, expected struct Order at line 1 \
                  column 4";
    assert_eq!(host.run("plain_sum", "null"), ended(STATUS_ERROR, misfit));
}

#[task]
fn wait_for_the_other(ctx: Context) -> TaskResult {
    // Each of two jobs ends only after the other has begun.
    static TOGETHER: std::sync::Barrier = std::sync::Barrier::new(2);
    TOGETHER.wait();
    let thread = std::thread::current();
    info!(thread = thread.name(), "job {}", ctx.id());
    Ok(())
}

#[task]
async fn quick() {}

#[test]
fn plain_tasks_run_beside_each_other_and_do_not_hold_up_async_ones() {
    let host = FakeHost::serving(plugin_header!(wait_for_the_other, quick));
    let first = host.begin("wait_for_the_other", "null");
    assert_eq!(host.run("quick", "null").status, STATUS_OK);
    let second = host.begin("wait_for_the_other", "null");
    assert_eq!(host.outcome(first).status, STATUS_OK);
    assert_eq!(host.outcome(second).status, STATUS_OK);
    assert_eq!(host.line("job 42").fields["thread"], "tb:taskbay-plugin");
}

#[task]
async fn hold(ctx: Context) {
    ctx.cancelled().await;
}

#[test]
fn a_call_that_makes_no_sense_is_refused_and_harms_nobody() {
    let plugin = plugin_header!(hold, quick);
    let host = FakeHost::serving(plugin);
    assert_eq!(host.run("quick", "null").status, STATUS_OK);

    host.begin_as(1000, 7, &job("null"));
    assert_eq!(host.outcome(1000), ended(STATUS_ERROR, "the plugin has no task number 7"));

    host.begin_as(1001, 0, &job("null"));
    host.begin_as(1001, 0, &job("null"));
    host.line("call 1001 was started twice");
    host.cancel(1001, taskbay_abi::CANCEL_ASK);
    assert_eq!(host.outcome(1001).status, STATUS_OK);

    let small = taskbay_abi::Job { size: 8, ..job("null") };
    host.begin_as(1002, 1, &small);
    let older = "the host is older than this plugin: build the plugin against an older SDK";
    assert_eq!(host.outcome(1002), ended(STATUS_ERROR, older));
    assert_eq!((host.reports(1000), host.reports(1001)), (1, 1));

    assert_eq!(host.shutdown(DEADLINE), 0);
    host.begin_as(1003, 1, &job("null"));
    assert_eq!(host.outcome(1003), ended(STATUS_CANCELLED, "the plugin was shut down"));
}
