//! A plugin written as people write them, for what the runners make of its ways to end.

use std::time::Duration;

use taskbay_plugin::{prelude::*, tokio::time::sleep};

#[derive(Deserialize)]
struct Greeting {
    to: String,
    times: u32,
}

#[task]
async fn greet(_ctx: Context, greeting: Greeting) -> TaskResult {
    for _ in 0..greeting.times {
        info!(to = %greeting.to, "greeting");
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

#[task]
async fn panics() -> TaskResult {
    panic!("no luck today")
}

#[task]
fn panics_plain() -> TaskResult {
    panic!("no luck either")
}

#[task(name = "mail/fails:now")]
async fn fails() -> TaskResult {
    Err(TaskError::discard("the address does not exist"))
}

#[task(timeout = "100ms")]
async fn sleeps_for_ever() -> TaskResult {
    loop {
        sleep(Duration::from_secs(60)).await;
    }
}

#[task(timeout = "100ms")]
fn works_for_ever() -> TaskResult {
    loop {
        std::hint::spin_loop();
    }
}

#[task]
async fn notices(ctx: Context) -> TaskResult {
    info!("waiting");
    ctx.cancelled().await;
    bail!("stopped after the first half");
}

#[task]
async fn adds(ctx: Context) -> TaskResult {
    let id = ctx.add_job("other", &json!({ "from": ctx.id() })).await?;
    bail!("added {id}");
}

/// Adds a job for each name in one statement.
#[task]
async fn adds_many(ctx: Context, tasks: Vec<String>) -> TaskResult {
    let jobs = tasks.iter().map(|task| NewJob::new(task, &json!({ "of": task })).key(format!("key of {task}")));
    let ids = ctx.add_jobs(jobs).await?;
    bail!("added {ids:?}");
}

/// An item that is `bad` fails, and one that is `hopeless` fails for good.
fn handle(item: &RawJson) -> TaskResult {
    if item.get().contains("hopeless") {
        return Err(TaskError::discard(format_args!("never: {item}")));
    }
    if item.get().contains("bad") {
        bail!("not now: {item}");
    }
    Ok(())
}

#[task]
fn batch(items: Vec<Box<RawJson>>) -> BatchResult {
    items.iter().map(|item| handle(item)).collect()
}

#[task]
async fn batch_later(ctx: Context, items: Vec<Box<RawJson>>) -> Result<BatchResult, TaskError> {
    if items.iter().any(|item| item.get().contains("disaster")) {
        bail!("nothing works today");
    }
    let later = async |item: Box<RawJson>| {
        sleep(Duration::from_millis(1)).await;
        info!(id = ctx.id(), "handling");
        handle(&item)
    };
    Ok(BatchResult::concurrently(2, items.into_iter().map(later)).await)
}

/// Returns a result too many.
#[task]
fn batch_and_one(items: Json) -> BatchResult {
    let count = items.as_array().map_or(0, Vec::len);
    (0..=count).map(|number| if number == 0 { Err("lost") } else { Ok(()) }).collect()
}

/// Takes an array, and has nothing to say about its items.
#[task]
async fn takes_all(_items: Vec<Box<RawJson>>) {}

plugin!(
    greet,
    panics,
    panics_plain,
    fails,
    sleeps_for_ever,
    works_for_ever,
    notices,
    adds,
    adds_many,
    batch,
    batch_later,
    batch_and_one,
    takes_all,
);
