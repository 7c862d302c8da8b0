//! Tasks that do what tasks should not. Only the tests use them.

use std::{
    fs::OpenOptions,
    hint::black_box,
    io::Write,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use taskbay_plugin::{
    prelude::*,
    tokio::{self, time::sleep},
};

/// The tests change the digits in a copy of the compiled file, which makes it another build.
#[used]
static LABEL: [u8; 24] = *b"taskbay-label:0000000000";

/// Read at run time: the compiler must not know the digits.
fn label() -> u32 {
    let label = black_box(&LABEL);
    std::str::from_utf8(&label[14..]).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX)
}

#[derive(Deserialize)]
struct Settings {
    /// Where `echo` notes each of its runs.
    ledger: Option<PathBuf>,
}

fn read_settings(setup: Setup) -> Result<Settings, TaskError> {
    setup.settings()
}

#[derive(Serialize)]
struct Note<'a> {
    label: u32,
    job: i64,
    payload: &'a RawValue,
}

/// Notes the run, the build and the payload in the ledger.
#[task]
fn echo(ctx: Context<Settings>) -> TaskResult {
    let ledger = ctx.state().ledger.as_ref().ok_or("the plugin's settings name no ledger")?;
    // The payload's own text, whose white space would break the line format, is checked by length instead of shown.
    let payload = RawValue::from_string(ctx.payload().replace('\n', " "))?;
    let mut line = serde_json::to_string(&Note { label: label(), job: ctx.id(), payload: &payload })?;
    line.push('\n');
    // One write of a file opened for appending: the lines of many jobs do not mix.
    OpenOptions::new().create(true).append(true).open(ledger)?.write_all(line.as_bytes())?;
    Ok(())
}

/// Does nothing.
#[task]
async fn nothing() {}

#[derive(Deserialize)]
struct Sleep {
    milliseconds: u64,
}

/// Sleeps, whatever it is told.
#[task(name = "sleep")]
async fn sleep_through(payload: Sleep) {
    sleep(Duration::from_millis(payload.milliseconds)).await;
}

/// Sleeps in a plain function, which nobody can stop.
#[task]
fn block(payload: Sleep) {
    std::thread::sleep(Duration::from_millis(payload.milliseconds));
}

/// Sleeps for up to a minute, and ends when it is told to.
#[task]
async fn obedient(ctx: Context) -> TaskResult {
    tokio::select! {
        () = ctx.cancelled() => Err("told to stop")?,
        () = sleep(Duration::from_secs(60)) => Ok(()),
    }
}

/// Has a limit of its own that it does not keep.
#[task(timeout = "200ms")]
async fn slow() {
    sleep(Duration::from_secs(60)).await;
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

/// Fails with the payload's message.
#[task]
async fn fail(payload: Message) -> TaskResult {
    Err(TaskError::new(payload.message))
}

/// Fails for good.
#[task]
async fn discard(payload: Message) -> TaskResult {
    Err(TaskError::discard(payload.message))
}

/// May be tried twice, however often its jobs may.
#[task(max_attempts = 2)]
async fn fail_twice() -> TaskResult {
    Err("again")?
}

/// Fails with a message that Postgres cannot store.
#[task]
async fn fail_with_nul() -> TaskResult {
    Err("before\0after")?
}

/// Panics with the payload's message.
#[task]
async fn panic(payload: Message) {
    panic!("{}", payload.message);
}

/// Panics on the blocking pool.
#[task]
fn panic_blocking(payload: Message) {
    panic!("{}", payload.message);
}

/// Writes to address zero.
#[task]
async fn segfault() {
    // SAFETY: none; that is the point.
    unsafe { black_box(std::ptr::null_mut::<u8>()).write_volatile(1) }
}

/// Aborts the process.
#[task]
async fn abort() {
    std::process::abort();
}

/// Exits the process.
#[task]
async fn exit() {
    std::process::exit(3);
}

/// Recurses until the stack is full.
#[task]
fn overflow_stack() {
    #[allow(unconditional_recursion, reason = "that is the point")]
    fn deeper(depth: u64) -> u64 {
        let room = black_box([depth; 128]);
        deeper(depth + 1) + room[usize::try_from(depth % 128).unwrap_or(0)]
    }
    black_box(deeper(0));
}

/// Allocates until there is no more.
#[task]
fn allocate() {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1_u8; 16 << 20]));
    }
}

/// Never comes back, and never waits.
#[task(timeout = "300ms")]
async fn spin() {
    loop {
        black_box(());
    }
}

/// Logs at each level, inside a span.
#[task]
async fn log(payload: Message) {
    let span = taskbay_plugin::tracing::info_span!("work", step = 7);
    let _inside = span.enter();
    trace!("{} at trace", payload.message);
    debug!("{} at debug", payload.message);
    info!(number = 42, text = "some", "{} at info", payload.message);
    warn!("{} at warn", payload.message);
    error!("{} at error", payload.message);
}

/// Writes to standard output and error.
#[task]
async fn print(payload: Message) {
    println!("{} to stdout", payload.message);
    eprintln!("{} to stderr", payload.message);
}

#[derive(Deserialize)]
struct Add {
    task: String,
    payload: Box<RawValue>,
    delay_ms: Option<u64>,
    queue: Option<String>,
    key: Option<String>,
    priority: Option<i32>,
    max_attempts: Option<u32>,
}

impl Add {
    fn job(self, ctx: &Context) -> NewJob {
        let mut job = ctx.add_job(self.task, self.payload);
        if let Some(delay) = self.delay_ms {
            job = job.run_at(SystemTime::now() + Duration::from_millis(delay));
        }
        if let Some(queue) = self.queue {
            job = job.queue(queue);
        }
        if let Some(key) = self.key {
            job = job.key(key);
        }
        if let Some(priority) = self.priority {
            job = job.priority(priority);
        }
        if let Some(attempts) = self.max_attempts {
            job = job.max_attempts(attempts);
        }
        job
    }
}

/// Adds a job.
#[task]
async fn add(ctx: Context, add: Add) -> TaskResult {
    let id = add.job(&ctx).await?;
    info!(id, "added");
    Ok(())
}

/// Adds a job from the blocking pool.
#[task]
fn add_blocking(ctx: Context, add: Add) -> TaskResult {
    let id = add.job(&ctx).wait()?;
    info!(id, "added");
    Ok(())
}

/// Has every kind of character that a name may have.
#[task(name = "odd/name:with-all_of.them")]
async fn odd_name() {}

/// Logs all that it knows of its job.
#[task]
async fn describe(ctx: Context) {
    let micros = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let fields = json!({
        "id": ctx.id(), "task": ctx.task(), "attempt": ctx.attempt(), "max_attempts": ctx.max_attempts(),
        "priority": ctx.priority(), "run_at": micros(ctx.run_at()).to_string(),
        "created_at": micros(ctx.created_at()).to_string(), "updated_at": micros(ctx.updated_at()).to_string(),
        "queue": ctx.queue(), "key": ctx.key(), "revision": ctx.revision(), "flags": ctx.flags(),
        "last_error": ctx.last_error(), "payload": ctx.payload(), "timeout_ms": ctx.timeout().map(|t| t.as_millis().to_string()),
    });
    info!(described = %fields, "my job");
}

plugin! {
    tasks: [
        echo, nothing, sleep_through, block, obedient, slow, fail, discard, fail_twice, fail_with_nul, panic,
        panic_blocking, segfault, abort, exit, overflow_stack, allocate, spin, log, print, add, add_blocking, odd_name,
        describe,
    ],
    state: read_settings,
    worker_threads: 2,
}
