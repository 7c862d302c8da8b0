//! Tasks that tell how each item of their payload ended.

use std::time::Duration;

use taskbay_abi::{STATUS_CANCELLED, STATUS_DISCARD, STATUS_ERROR, STATUS_OK, STATUS_PANIC, STATUS_PARTLY_FAILED};
use taskbay_plugin::{prelude::*, private::plugin_header};

use crate::fake_host::{Ended, FakeHost};

fn read(text: &str) -> Result<u8, TaskError> {
    if text.is_empty() {
        return Err(TaskError::discard("empty"));
    }
    Ok(text.parse()?)
}

#[task]
fn plain(texts: Vec<String>) -> Vec<Result<u8, TaskError>> {
    texts.iter().map(|text| read(text)).collect()
}

#[task]
async fn later(ctx: Context, texts: Vec<String>) -> BatchResult {
    let ctx = &ctx;
    let item = async |text: String| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        info!(job = ctx.id(), "reading");
        read(&text)
    };
    Ok(concurrently(2, texts.into_iter().map(item)).await)
}

struct Limits {
    longest: usize,
}

fn limits(_: &Setup) -> Result<Limits, TaskError> {
    Ok(Limits { longest: 2 })
}

/// As the documentation shows it: items and the shared state, both borrowed.
#[task]
async fn borrowing(ctx: Context<Limits>, texts: Vec<String>) -> BatchResult {
    Ok(concurrently(4, texts.iter().map(|text| read_short(&ctx, text))).await)
}

/// The same with what the task has made itself, and by a block.
#[task]
async fn borrowing_more(ctx: Context<Limits>, texts: Vec<String>) -> BatchResult {
    let (limits, said) = (ctx.state(), &String::from("too long"));
    let items = texts.iter().enumerate().filter(|(_, text)| !text.is_empty());
    let results = concurrently(
        4,
        items.map(|(_, text)| async move {
            tokio::task::yield_now().await;
            if text.len() > limits.longest { bail!("{said}: {text}") } else { Ok::<_, TaskError>(text.len()) }
        }),
    );
    Ok(results.await)
}

async fn read_short(ctx: &Context<Limits>, text: &str) -> Result<u8, TaskError> {
    tokio::task::yield_now().await;
    if text.len() > ctx.state().longest { bail!("too long: {text}") } else { read(text) }
}

#[task]
async fn perhaps(texts: Vec<String>) -> BatchResult {
    let first = texts.first().ok_or_else(|| TaskError::discard("nothing to do"))?;
    if first == "panic" {
        panic!("no luck");
    }
    let _: u8 = first.parse().or_fail("the first")?;
    Ok(texts.iter().map(|text| read(text).map(drop)).collect())
}

#[task]
fn own_error(texts: Vec<String>) -> Result<Vec<Result<(), &'static str>>, std::num::ParseIntError> {
    let limit: u8 = texts[0].parse()?;
    Ok(texts.iter().map(|text| if text.len() > limit.into() { Err("too long") } else { Ok(()) }).collect())
}

#[task]
async fn endless(numbers: Vec<u8>) -> BatchResult {
    let item = |_| std::future::pending::<TaskResult>();
    Ok(concurrently(5, numbers.into_iter().map(item)).await)
}

fn ended(status: u32, message: &str, detail: &str) -> Ended {
    Ended { status, message: message.to_owned(), detail: detail.to_owned() }
}

#[test]
fn items_may_borrow_the_shared_state() {
    let host = FakeHost::serving(plugin_header! { state: limits, tasks: [borrowing, borrowing_more] });
    for task in ["borrowing", "borrowing_more"] {
        let end = host.run(task, r#"["12", "345", "6"]"#);
        assert_eq!((end.status, &*end.message), (STATUS_PARTLY_FAILED, "1 of 3 items failed:\nitem 1: too long: 345"));
    }
}

#[test]
fn each_item_that_failed_is_told_with_its_place_and_reason() {
    let host = FakeHost::serving(plugin_header!(plain, later, perhaps, own_error));
    let message = "2 of 4 items failed:\nitem 1: invalid digit found in string\nitem 3 (for good): empty";
    let detail = r#"{"items":4,"failed":[{"index":1},{"index":3,"discard":true}]}"#;
    for task in ["plain", "later", "perhaps"] {
        let told = host.run(task, r#"["1", "x", "3", ""]"#);
        assert_eq!(told, ended(STATUS_PARTLY_FAILED, message, detail), "{task}");
    }
    assert_eq!(host.line("reading").fields["job"], 42);
    let told = host.run("own_error", r#"["1", "22"]"#);
    let detail = r#"{"items":2,"failed":[{"index":1}]}"#;
    assert_eq!(told, ended(STATUS_PARTLY_FAILED, "1 of 2 items failed:\nitem 1: too long", detail));
    for (task, payload) in [("plain", r#"["1", "2"]"#), ("later", "[]")] {
        assert_eq!(host.run(task, payload), ended(STATUS_OK, "", ""));
    }
}

#[test]
fn a_job_can_fail_as_a_whole() {
    let host = FakeHost::serving(plugin_header!(plain, later, perhaps, own_error));
    let failed = |status, message: &str| ended(status, message, "");
    assert_eq!(host.run("perhaps", r#"["x", "1"]"#), failed(STATUS_ERROR, "the first: invalid digit found in string"));
    assert_eq!(host.run("perhaps", "[]"), failed(STATUS_DISCARD, "nothing to do"));
    assert_eq!(host.run("own_error", r#"["x"]"#), failed(STATUS_ERROR, "invalid digit found in string"));
    let panicked = host.run("perhaps", r#"["panic"]"#);
    assert!(panicked.status == STATUS_PANIC && panicked.message.contains("no luck"), "{panicked:?}");
    let wrong = host.run("plain", r#"{"to": "ada"}"#);
    assert!(wrong.status == STATUS_ERROR && wrong.message.contains("expected a sequence"), "{wrong:?}");
}

#[test]
fn concurrent_items_are_dropped_when_their_job_is_aborted() {
    let host = FakeHost::serving(plugin_header!(endless));
    let call = host.begin("endless", "[1, 2, 3]");
    host.cancel(call, taskbay_abi::CANCEL_ABORT);
    assert_eq!(host.outcome(call).status, STATUS_CANCELLED);
}
