//! Tasks that say something: to the log, to the process's output, to the queue.

use taskbay_plugin::{prelude::*, tracing};

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
}

/// Adds a job for the payload's `task` with the payload's `payload`.
#[task]
pub(crate) async fn add(ctx: Context, add: Add) -> TaskResult {
    let mut job = ctx.add_job(add.task, &add.payload);
    if let Some(key) = add.key {
        job = job.key(key);
    }
    if let Some(queue) = add.queue {
        job = job.queue(queue);
    }
    let id = job.await?;
    info!(id, "added");
    Ok(())
}
