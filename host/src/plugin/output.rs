//! The standard output and error of a plugin's process, line by line.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Child,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    events::{Event, Events, PluginBuild},
    parts::Parts,
};

/// Longer lines are split.
const MAX_LINE: usize = 8 << 10;
/// The number of lines of standard error kept to explain a crash.
const KEPT: usize = 20;

/// The captured output of one process.
#[derive(Debug)]
pub(super) struct Output {
    last_errors: Arc<Mutex<VecDeque<String>>>,
    /// Cancelled when the standard error was closed.
    errors_ended: CancellationToken,
    /// Dropping these ends the reading.
    readers: Vec<AbortOnDropHandle<()>>,
}

impl Output {
    /// Emits each line as an event, if there are services.
    pub(super) fn capture(child: &mut Child, build: &PluginBuild, events: Option<&Events>) -> Self {
        let (build, events) = (build.clone(), events.cloned());
        let parts = events.as_ref().map(|events| events.parts().clone()).unwrap_or_default();
        Self::follow(child, &parts, move |error, line| {
            if let Some(events) = &events {
                events.emit(Event::PluginOutput { build: build.clone(), error, line });
            }
        })
    }

    /// Passes on each line, and whether it came from standard error.
    pub(super) fn follow(
        child: &mut Child,
        parts: &Parts,
        each: impl Fn(bool, String) + Clone + Send + Sync + 'static,
    ) -> Self {
        const READER: &str = "reader of a plugin's output";
        let last_errors = Arc::new(Mutex::new(VecDeque::new()));
        let errors_ended = CancellationToken::new();
        let announce = |error: bool| {
            let each = each.clone();
            move |line: String| each(error, line)
        };
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(AbortOnDropHandle::new(parts.spawn(READER, read_lines(pipe, announce(false)))));
        }
        if let Some(pipe) = child.stderr.take() {
            let (kept, ended, announce) = (Arc::clone(&last_errors), errors_ended.clone().drop_guard(), announce(true));
            readers.push(AbortOnDropHandle::new(parts.spawn(READER, async move {
                let _ended = ended;
                read_lines(pipe, |line| {
                    keep(&kept, &line);
                    announce(line);
                })
                .await;
            })));
        }
        Self { last_errors, errors_ended, readers }
    }

    /// The last lines of standard error after the process has ended.
    pub(super) async fn last_words(&self) -> Vec<String> {
        // A process started by the plugin may keep the pipe open.
        let _ = timeout(Duration::from_millis(100), self.errors_ended.cancelled()).await;
        self.last_errors()
    }

    /// Waits until all output has been passed on, but no longer than this.
    pub(super) async fn drained(&mut self, limit: Duration) {
        let _ = timeout(limit, async {
            for reader in &mut self.readers {
                // A panic is reported to the host; there is nothing more to wait for.
                let _ = reader.await;
            }
        })
        .await;
        self.readers.clear();
    }

    /// The last lines of standard error so far.
    pub(super) fn last_errors(&self) -> Vec<String> {
        self.last_errors.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

fn keep(kept: &Mutex<VecDeque<String>>, line: &str) {
    if line.trim().is_empty() {
        return;
    }
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(line.trim_end().to_owned());
}

async fn read_lines(mut pipe: impl AsyncRead + Unpin, mut each: impl FnMut(String)) {
    let mut buffer = Vec::with_capacity(MAX_LINE);
    loop {
        let ended = !matches!(pipe.read_buf(&mut buffer).await, Ok(count) if count > 0);
        let mut rest = buffer.as_slice();
        while let Some((line, after)) = split_line(rest, ended) {
            each(String::from_utf8_lossy(line).into_owned());
            rest = after;
        }
        if ended {
            return;
        }
        let used = buffer.len() - rest.len();
        buffer.drain(..used);
    }
}

/// The first line of `bytes`, without its line end, and the rest. The line is complete, or of the maximum length, or the last
/// one.
fn split_line(bytes: &[u8], ended: bool) -> Option<(&[u8], &[u8])> {
    let within = &bytes[..bytes.len().min(MAX_LINE)];
    if let Some(end) = within.iter().position(|byte| *byte == b'\n') {
        let line = &bytes[..end];
        return Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + 1..]));
    }
    let takes_all = ended && !bytes.is_empty();
    (within.len() == MAX_LINE || takes_all).then(|| bytes.split_at(within.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        read_lines(bytes, |line| lines.push(line)).await;
        lines
    }

    #[tokio::test]
    async fn lines_are_told_apart_cut_and_made_readable() {
        assert_eq!(lines(b"one\r\n\ntwo \xff\nlast").await, ["one", "", "two \u{fffd}", "last"]);
        let long = "x".repeat(MAX_LINE * 2 + 5);
        let cut = lines(format!("{long}\nnext\n").as_bytes()).await;
        assert_eq!(cut.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE, MAX_LINE, 5, 4]);
        assert!(lines(b"").await.is_empty());
    }
}
