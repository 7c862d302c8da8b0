//! A plugin written as people write them, for what the runners make of its ways to end.

use std::{path::PathBuf, time::Duration};

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

/// Keeps its thread until a file is there, as an async task should not.
#[task]
async fn blocks_until(file: PathBuf) {
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(5));
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

/// Fails for each item in which the word `bad` is.
#[task]
async fn batch_of_anything(items: Vec<Box<RawJson>>) -> BatchResult {
    let look = async |item: Box<RawJson>| {
        sleep(Duration::from_millis(1)).await;
        if item.get().contains("bad") { Err(TaskError::new("bad")) } else { Ok(()) }
    };
    Ok(concurrently(2, items.into_iter().map(look)).await)
}

plugin!(
    greet,
    panics,
    panics_plain,
    fails,
    sleeps_for_ever,
    works_for_ever,
    blocks_until,
    notices,
    adds,
    adds_many,
    batch_of_anything,
);
