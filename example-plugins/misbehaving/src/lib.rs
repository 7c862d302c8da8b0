//! Everything that a plugin should not do, each as a task. Only the tests of the host use this; copy another one.
//!
//! A test makes a new build, or one that misbehaves while it loads or starts, without a compiler: see `markers.rs`.

mod crashes;
mod echo;
mod item_by_item;
mod markers;
mod surroundings;
mod talk;

use std::time::Duration;

use taskbay_plugin::{prelude::*, tokio};

use crashes::{abort, allocate, exit, overflow_stack, segfault, spin, spin_plain};
use item_by_item::{batch, batch_plain, batch_silent, batch_too_many, batch_whole};
use surroundings::look_around;
use talk::{add, add_plain, describe, log_lines, print};

/// Does nothing.
#[task]
async fn nothing() {}

/// Has every kind of character that a name may have.
#[task(name = "odd/name:with-all_of.them")]
async fn odd_name() {}

/// Panics with the payload's `message`.
#[task]
async fn panic(message: Message) {
    panic!("{}", message.message);
}

/// Panics with the payload's `message` on the pool for blocking work.
#[task]
fn panic_plain(message: Message) {
    panic!("{}", message.message);
}

#[derive(Deserialize)]
struct Message {
    message: String,
    /// How often it is said.
    #[serde(default = "once")]
    times: usize,
}

fn once() -> usize {
    1
}

/// Fails with the payload's `message`.
#[task]
async fn fail(message: Message) -> TaskResult {
    Err(TaskError::new(message.message.repeat(message.times)))
}

/// Fails for good with the payload's `message`.
#[task]
async fn discard(message: Message) -> TaskResult {
    Err(TaskError::discard(message.message))
}

/// Fails with a message that has a NUL byte in it, which Postgres cannot store.
#[task]
async fn fail_with_nul() -> TaskResult {
    Err(TaskError::new("before\0after"))
}

#[derive(Deserialize)]
struct Sleep {
    ms: u64,
}

/// Sleeps for the payload's `ms`, asynchronously, whether it is told to stop or not.
#[task]
async fn sleep(sleep: Sleep) {
    tokio::time::sleep(Duration::from_millis(sleep.ms)).await;
}

/// Sleeps for the payload's `ms` on the pool for blocking work, whether it is told to stop or not.
#[task]
fn sleep_plain(sleep: Sleep) {
    std::thread::sleep(Duration::from_millis(sleep.ms));
}

/// Waits until it is told to stop, and fails then.
#[task]
async fn wait_for_cancellation(ctx: Context) -> TaskResult {
    info!("waiting to be cancelled");
    ctx.cancelled().await;
    bail!("stopped because it was told to")
}

/// Waits until it is told to stop, and succeeds then.
#[task]
async fn finish_when_cancelled(ctx: Context) {
    info!("waiting to be cancelled");
    ctx.cancelled().await;
}

/// Succeeds only when its own limit of 200 ms is not kept.
#[task(timeout = "200ms")]
async fn too_slow() {
    std::future::pending::<()>().await;
}

/// Fails, and has its attempts cut to two.
#[task(max_attempts = 2)]
async fn fail_twice() -> TaskResult {
    bail!("failed as asked")
}

plugin! {
    state: markers::start,
    teardown: markers::stop,
    tasks: [
        echo::echo, panic, panic_plain, fail, discard, fail_with_nul, sleep, sleep_plain, wait_for_cancellation,
        finish_when_cancelled, too_slow, fail_twice, segfault, abort, exit, overflow_stack, allocate, spin, spin_plain,
        batch, batch_plain, batch_silent, batch_too_many, batch_whole, log_lines, print, add, add_plain, describe, nothing, odd_name, look_around,
    ],
}

/// The plugin's state: its settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Where `echo` writes if the payload names no file.
    echo_file: Option<std::path::PathBuf>,
    /// A file without which the start-up fails: what a database is to other plugins.
    needs: Option<std::path::PathBuf>,
}
