//! The host's end of the connection to a plugin's process: sends calls, and receives their ends, log lines and requests.

use std::{
    io,
    os::unix::net::UnixStream,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::AbortOnDropHandle,
};

use super::{
    Accepted, HostServices, JobInput, LaunchError, ManifestInfo,
    calls::{Call, CallEnd, Calls},
    frames::{self, Frame, FrameReader, Hello, MAX_FRAME, PROTOCOL, TooLong, kind, put_text},
    host_calls::{AddJob, PluginLog, add},
    host_outbox::HostOutbox,
    host_table::LogLine,
};
use crate::{events::PluginBuild, parts::message_of};

/// The maximum size in bytes of a process's requests to add jobs that are not stored yet …
const MOST_ADDED: u32 = MAX_FRAME as u32;
/// … where each request counts as at least this many bytes.
const LEAST_ADDED: u32 = 64 << 10;

/// A step of a launch, as reported by the child.
#[derive(Debug)]
pub(super) enum Milestone {
    Loading,
    Loaded(ManifestInfo),
    Ready,
    Refused(LaunchError),
}

/// The result of starting a job.
#[derive(Debug)]
pub(super) enum Start<T> {
    Begun(T),
    /// The process is gone.
    Gone,
    /// The process has not read the earlier messages yet.
    Full,
}

/// A connection to a process.
#[derive(Debug)]
pub(super) struct Connection {
    calls: Arc<Calls>,
    log: PluginLog,
    /// None while a build is only checked.
    add_job: Option<Arc<dyn AddJob>>,
    /// Limits the size of the process's pending requests to add jobs.
    adding: Arc<Semaphore>,
    outbox: HostOutbox,
    /// Cancelled when nothing more will arrive.
    closed: CancellationToken,
    /// Cancelled to have the process killed, for the reason in `verdict`.
    terminated: CancellationToken,
    verdict: OnceLock<String>,
}

/// The tasks of a connection; dropping them closes it.
pub(super) type Ends = [AbortOnDropHandle<()>; 2];

impl Connection {
    /// Serves a connection on two tasks. `milestones` ends with the connection. The socket must be non-blocking.
    pub(super) fn open(
        socket: UnixStream,
        build: PluginBuild,
        services: Option<&HostServices>,
        milestones: mpsc::UnboundedSender<Milestone>,
    ) -> io::Result<(Arc<Self>, Ends)> {
        let connection = Arc::new(Self {
            calls: Arc::default(),
            log: PluginLog::new(build),
            add_job: services.map(|services| Arc::clone(&services.add_job)),
            adding: Arc::new(Semaphore::new(MOST_ADDED as usize)),
            outbox: HostOutbox::new(socket.try_into()?),
            closed: CancellationToken::new(),
            terminated: CancellationToken::new(),
            verdict: OnceLock::new(),
        });
        let reading = tokio::spawn({
            let connection = Arc::clone(&connection);
            async move { connection.contain("reading", Arc::clone(&connection).read(milestones)).await }
        });
        let writing = tokio::spawn({
            let connection = Arc::clone(&connection);
            async move { connection.contain("writing", connection.outbox.write()).await }
        });
        Ok((connection, [reading, writing].map(AbortOnDropHandle::new)))
    }

    pub(super) fn hello(&self, hello: &Hello) {
        // Settings of 64 MiB would be refused here and let the launch time out; no settings file is that long.
        let _ = self.send(kind::HELLO, PROTOCOL, |body| {
            serde_json::to_writer(body, hello).expect("its fields are numbers and texts");
        });
    }

    /// Starts a job; an error if the job is too large to send.
    pub(super) fn start(
        &self,
        task: u32,
        job: &JobInput<'_>,
        timeout: Option<Duration>,
        accepted: Accepted<'_>,
    ) -> Result<Start<Call>, String> {
        match self.outbox.has_room() {
            Some(true) => {}
            Some(false) => return Ok(Start::Full),
            None => return Ok(Start::Gone),
        }
        let Some(call) = self.calls.begin(job.id, task).inspect(|_| accepted()) else { return Ok(Start::Gone) };
        let timeout_ms = timeout.map_or(0, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1));
        match self.send(kind::RUN, call.id, |body| frames::put_job(body, task, timeout_ms, job)) {
            Ok(()) => Ok(Start::Begun(call)),
            Err(TooLong) => Err(format!(
                "the job is too large for its plugin's process: its payload has {} bytes, and at most {} can be handed over; \
                 store the data elsewhere and pass a reference, or run the plugin in-process",
                job.payload.len(),
                MAX_FRAME
            )),
        }
    }

    /// Waits until [`Connection::start`] has room for a job.
    pub(super) async fn room(&self) {
        self.outbox.room().await;
    }

    pub(super) fn cancel(&self, call: u64, mode: u32) {
        let _ = self.send(kind::CANCEL, call, |body| body.extend_from_slice(&mode.to_le_bytes()));
    }

    pub(super) fn shut_down(&self, limit: Duration) {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let _ = self.send(kind::SHUT_DOWN, 0, |body| body.extend_from_slice(&millis.to_le_bytes()));
    }

    /// Terminates the process; its other jobs fail with `reason`. The first reason counts.
    pub(super) fn terminate(&self, reason: String) {
        let _ = self.verdict.set(reason);
        self.terminated.cancel();
    }

    /// The reason for the process's termination, if it was terminated.
    pub(super) fn verdict(&self) -> Option<String> {
        self.verdict.get().cloned()
    }

    pub(super) fn terminated(&self) -> WaitForCancellationFuture<'_> {
        self.terminated.cancelled()
    }

    /// Waits until all messages of the process have been handled.
    pub(super) fn closed(&self) -> WaitForCancellationFuture<'_> {
        self.closed.cancelled()
    }

    /// Fails the calls in progress and returns their number.
    pub(super) fn fail_calls(&self, reason: &str) -> usize {
        self.calls.close(reason)
    }

    fn send(&self, kind: u8, call: u64, body: impl FnOnce(&mut Vec<u8>)) -> Result<(), TooLong> {
        self.outbox.send(kind, call, self.calls.running() <= 1, body)
    }

    /// A panic comes from a message from or to the process, and must not affect more than that process.
    async fn contain(&self, what: &str, work: impl Future<Output = ()>) {
        if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
            self.terminate(format!(
                "was stopped because of an internal error of the host in {what}: {}",
                message_of(&*panic)
            ));
        }
    }

    async fn read(self: Arc<Self>, milestones: mpsc::UnboundedSender<Milestone>) {
        let _closing = Closing(&self);
        let mut reader = FrameReader::new();
        loop {
            match self.take_frames(&mut reader, &milestones).await {
                Ok(()) => {}
                Err(error) => return self.terminate(format!("was stopped because it sent {error}")),
            }
            match self.outbox.read(reader.space()).await {
                Ok(count) if count > 0 => reader.filled(count),
                _ => return,
            }
        }
    }

    async fn take_frames(
        self: &Arc<Self>,
        reader: &mut FrameReader,
        milestones: &mpsc::UnboundedSender<Milestone>,
    ) -> io::Result<()> {
        while let Some(mut frame) = reader.next()? {
            match frame.kind {
                kind::ENDED => {
                    let status = frame.body.u32()?;
                    let message = frame.body.text()?.map(str::to_owned);
                    let detail = frame.body.text()?.map(str::to_owned);
                    self.calls.finish(frame.call, CallEnd::Reported { status, message, detail });
                }
                kind::LOG => self.write_log(&mut frame)?,
                kind::ADD_JOB => self.add_job(&mut frame).await?,
                kind::LOADING => drop(milestones.send(Milestone::Loading)),
                kind::MANIFEST => {
                    let manifest: ManifestInfo = serde_json::from_slice(frame.body.rest())?;
                    self.log.name_tasks(&manifest.tasks);
                    let _ = milestones.send(Milestone::Loaded(manifest));
                }
                kind::READY => drop(milestones.send(Milestone::Ready)),
                kind::REFUSED => {
                    let _ = milestones.send(Milestone::Refused(serde_json::from_slice(frame.body.rest())?));
                }
                other => return Err(io::Error::other(format!("a message of the unknown kind {other}"))),
            }
        }
        Ok(())
    }

    fn write_log(&self, frame: &mut Frame<'_>) -> io::Result<()> {
        let body = &mut frame.body;
        let line = LogLine {
            level: body.u32()?,
            target: body.text()?.unwrap_or_default(),
            message: body.text()?.unwrap_or_default(),
            fields: body.text()?,
        };
        self.log.write(self.calls.describe(frame.call), line);
        Ok(())
    }

    /// Adds jobs. Waits while too many requests of the process are pending or it does not read the answers; this stops
    /// further reading from it.
    async fn add_job(self: &Arc<Self>, frame: &mut Frame<'_>) -> io::Result<()> {
        let request = frame.body.u64()?;
        let spec = frame.body.text()?.unwrap_or_default().to_owned();
        self.outbox.room().await;
        // Each request counts as at least the minimum, and at most as the whole limit.
        let size = u32::try_from(spec.len()).unwrap_or(MOST_ADDED).clamp(LEAST_ADDED, MOST_ADDED);
        let adding = Arc::clone(&self.adding).acquire_many_owned(size).await.expect("nobody closes it");
        let connection = Arc::clone(self);
        // Not awaited: it ends with the statement, even if the process is gone by then.
        tokio::spawn(async move {
            let added = match &connection.add_job {
                Some(add_job) => {
                    let added = AssertUnwindSafe(add(&**add_job, spec)).catch_unwind().await;
                    added.unwrap_or_else(|panic| Err(format!("internal error of the host: {}", message_of(&*panic))))
                }
                None => Err("no jobs can be added while a plugin is only checked".to_owned()),
            };
            let (ids, reason) = match &added {
                Ok(ids) => (Some(ids.as_str()), None),
                Err(reason) => (None, Some(reason.as_str())),
            };
            let _ = connection.send(kind::JOB_ADDED, request, |body| {
                put_text(body, ids);
                put_text(body, reason);
            });
            drop(adding);
        });
        Ok(())
    }
}

/// Closes the connection when the reading ends for any reason.
struct Closing<'a>(&'a Connection);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.outbox.close();
        self.0.closed.cancel();
    }
}

#[cfg(test)]
mod tests;
