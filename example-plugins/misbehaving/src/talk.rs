//! Tasks that say something: to the log, to the process's output, to the queue.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use taskbay_plugin::{OnHost, prelude::*, tracing};

#[derive(Deserialize)]
pub(crate) struct LogLines {
    message: String,
    #[serde(default = "one")]
    count: u32,
}

fn one() -> u32 {
    1
}

/// Logs the payload's `message` at all five levels, with fields, inside a span, `count` times.
#[task]
pub(crate) async fn log_lines(lines: LogLines) {
    for n in 1..=lines.count {
        let _span = tracing::info_span!("lines", n).entered();
        error!(answer = 42, "{} (error)", lines.message);
        warn!(ratio = 0.5, "{} (warn)", lines.message);
        info!(name = "ada", "{} (info)", lines.message);
        debug!(fine = true, "{} (debug)", lines.message);
        trace!("{} (trace)", lines.message);
    }
}

#[derive(Deserialize)]
pub(crate) struct Print {
    text: String,
}

/// Writes the payload's `text` to the standard output and to the standard error, past the log.
#[task]
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "that is the task")]
pub(crate) fn print(print: Print) {
    println!("{} (stdout)", print.text);
    eprintln!("{} (stderr)", print.text);
}

#[derive(Deserialize)]
pub(crate) struct Add {
    task: String,
    payload: Box<RawJson>,
    key: Option<String>,
    queue: Option<String>,
    delay_ms: Option<u64>,
    priority: Option<i16>,
    max_attempts: Option<u16>,
}

impl Add {
    fn job(self, ctx: &Context) -> NewJob<OnHost> {
        let mut job = ctx.add_job(self.task, &self.payload);
        if let Some(key) = self.key {
            job = job.key(key);
        }
        if let Some(queue) = self.queue {
            job = job.queue(queue);
        }
        if let Some(delay) = self.delay_ms {
            job = job.run_at(SystemTime::now() + Duration::from_millis(delay));
        }
        if let Some(priority) = self.priority {
            job = job.priority(priority.into());
        }
        if let Some(attempts) = self.max_attempts {
            job = job.max_attempts(attempts.into());
        }
        job
    }
}

/// Adds a job for the payload's `task` with the payload's `payload`.
#[task]
pub(crate) async fn add(ctx: Context, add: Add) -> TaskResult {
    let id = add.job(&ctx).await?;
    info!(id, "added");
    Ok(())
}

/// The same, from the pool for blocking work.
#[task]
pub(crate) fn add_plain(ctx: Context, add: Add) -> TaskResult {
    let id = add.job(&ctx).wait()?;
    info!(id, "added");
    Ok(())
}

/// Logs all that it knows of its job.
#[task]
pub(crate) async fn describe(ctx: Context) {
    let micros = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros()).to_string();
    let job = json!({
        "id": ctx.id(), "attempt": ctx.attempt(), "max_attempts": ctx.max_attempts(), "priority": ctx.priority(),
        "run_at": micros(ctx.run_at()), "created_at": micros(ctx.created_at()), "updated_at": micros(ctx.updated_at()),
        "queue": ctx.queue(), "key": ctx.key(), "revision": ctx.revision(), "last_error": ctx.last_error(),
        "payload": ctx.payload(), "task": ctx.task(), "flags": ctx.flags(),
    });
    info!(described = %job, "my job");
}
