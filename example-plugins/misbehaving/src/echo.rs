//! The task that behaves, and leaves a trace by which a test sees which build ran which job, and when.

use std::{fs::File, io::Write, path::PathBuf, process, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use taskbay_plugin::{prelude::*, serde_json, tokio};

use crate::{Settings, markers};

#[derive(Deserialize, Default)]
struct Wishes {
    file: Option<PathBuf>,
    #[serde(default)]
    sleep_ms: u64,
    #[serde(default)]
    announce: bool,
    /// Runs until this file is there.
    until: Option<PathBuf>,
    /// Fails up to this attempt.
    #[serde(default)]
    fail_until: u32,
    /// Takes its process down.
    #[serde(default)]
    abort: bool,
}

/// A line of the file that `echo` writes.
#[derive(Serialize)]
struct Trace<'a> {
    /// `began` (only with `announce`) or `ended`.
    event: &'a str,
    job: i64,
    attempt: u32,
    label: &'a str,
    pid: u32,
    queue: Option<&'a str>,
    key: Option<&'a str>,
    /// When the task began to run, in microseconds, by the clock that nobody sets.
    began_us: u64,
    now_us: u64,
    /// The payload's exact text.
    payload: &'a str,
}

/// Appends a line about the job and the build to the payload's `file`, after the payload's `sleep_ms`.
#[task]
pub(crate) async fn echo(ctx: Context<Settings>) -> TaskResult {
    // The payload may be anything; only one that is an object can have wishes.
    let wishes: Wishes = serde_json::from_str(ctx.payload()).unwrap_or_default();
    let file = wishes.file.as_ref().or(ctx.state().echo_file.as_ref());
    let file =
        file.ok_or_else(|| TaskError::discard("neither the payload nor the settings name a file for the echo"))?;
    let began_us = now_us();
    let trace = |event| -> TaskResult {
        let label = markers::label();
        let trace = Trace {
            event,
            job: ctx.id(),
            attempt: ctx.attempt(),
            label: &label,
            pid: process::id(),
            queue: ctx.queue(),
            key: ctx.key(),
            began_us,
            now_us: now_us(),
            payload: ctx.payload(),
        };
        let mut line = serde_json::to_vec(&trace)?;
        line.push(b'\n');
        // One write of a file opened for appending is not mixed with those of others.
        let opened = File::options().append(true).create(true).open(file);
        opened.and_then(|mut file| file.write_all(&line)).or_fail(format_args!("cannot write {}", file.display()))
    };
    if wishes.announce {
        trace("began")?;
    }
    if wishes.abort || markers::crashes() {
        process::abort();
    }
    if wishes.sleep_ms > 0 {
        tokio::time::sleep(Duration::from_millis(wishes.sleep_ms)).await;
    }
    if let Some(file) = &wishes.until {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    trace("ended")?;
    if ctx.attempt() <= wishes.fail_until {
        bail!("failed as asked");
    }
    Ok(())
}

fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).map_or(0, |seconds| seconds * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000)
}
