//! The host's end of the line to a plugin's process: calls go out, ends, log lines and requests come in.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{Notify, mpsc},
    task::yield_now,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::AbortOnDropHandle,
};

use super::{
    HostServices, JobInput, LaunchError, ManifestInfo,
    calls::{Call, CallEnd, Calls},
    frames::{self, Frame, FrameReader, Hello, MAX_FRAME, PROTOCOL, TooLong, kind, push, put_text},
    host_calls::{AddJob, PluginLog, add},
    host_table::LogLine,
};
use crate::events::PluginBuild;

/// A step of a launch that the child reports.
#[derive(Debug)]
pub(super) enum Milestone {
    Loading,
    Loaded(ManifestInfo),
    Ready,
    Refused(LaunchError),
}

/// A line to one process.
#[derive(Debug)]
pub(super) struct Connection {
    calls: Arc<Calls>,
    log: PluginLog,
    /// Nobody to store jobs with while a build is only checked.
    add_job: Option<Arc<dyn AddJob>>,
    outbox: Mutex<Outbox>,
    /// The outbox was filled and wants to be written.
    filled: Notify,
    /// Heard of only when there is something to read: else each piece that the process takes would wake this one.
    socket: AsyncFd<UnixStream>,
    /// Cancelled when nothing more will arrive.
    closed: CancellationToken,
    /// Cancelled when the process is to be killed, for the reason in `verdict`.
    condemned: CancellationToken,
    verdict: OnceLock<String>,
}

/// What is yet to be written.
#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    /// Somebody is about to write it.
    claimed: bool,
    /// Nobody would read it.
    closed: bool,
}

/// The tasks that serve a line; dropping them ends it.
pub(super) type Ends = [AbortOnDropHandle<()>; 2];

impl Connection {
    /// Serves a line on two tasks of its own. `milestones` ends with the line. The socket must not block.
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
            outbox: Mutex::default(),
            filled: Notify::new(),
            socket: heard_of(socket, Interest::READABLE)?,
            closed: CancellationToken::new(),
            condemned: CancellationToken::new(),
            verdict: OnceLock::new(),
        });
        let reading = tokio::spawn(Arc::clone(&connection).read(milestones));
        let writing = tokio::spawn(Arc::clone(&connection).write());
        Ok((connection, [reading, writing].map(AbortOnDropHandle::new)))
    }

    pub(super) fn hello(&self, hello: &Hello) {
        // Settings of 64 MiB would be refused here, and then the launch times out; no file of settings is that long.
        let _ = self.send(kind::HELLO, PROTOCOL, |body| {
            serde_json::to_writer(body, hello).expect("its fields are numbers and texts");
        });
    }

    /// Begins a job: `Ok(None)` when the process is gone, an error when the job cannot travel.
    pub(super) fn start(
        &self,
        task: u32,
        job: &JobInput<'_>,
        timeout: Option<Duration>,
    ) -> Result<Option<Call>, String> {
        let Some(call) = self.calls.begin(job.id, task) else { return Ok(None) };
        let timeout_ms = timeout.map_or(0, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1));
        match self.send(kind::RUN, call.id, |body| frames::put_job(body, task, timeout_ms, job)) {
            Ok(()) => Ok(Some(call)),
            Err(TooLong) => Err(format!(
                "the job is too large for its plugin's process: its payload has {} bytes, and at most {} can be handed over; \
                 store the data elsewhere and pass a reference, or run the plugin in-process",
                job.payload.len(),
                MAX_FRAME
            )),
        }
    }

    pub(super) fn cancel(&self, call: u64, mode: u32) {
        let _ = self.send(kind::CANCEL, call, |body| body.extend_from_slice(&mode.to_le_bytes()));
    }

    pub(super) fn shut_down(&self, limit: Duration) {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let _ = self.send(kind::SHUT_DOWN, 0, |body| body.extend_from_slice(&millis.to_le_bytes()));
    }

    /// Has the process killed; `reason` is what its other jobs fail with. The first one counts.
    pub(super) fn condemn(&self, reason: String) {
        let _ = self.verdict.set(reason);
        self.condemned.cancel();
    }

    /// Why the process was condemned, if it was.
    pub(super) fn verdict(&self) -> Option<String> {
        self.verdict.get().cloned()
    }

    pub(super) fn condemned(&self) -> WaitForCancellationFuture<'_> {
        self.condemned.cancelled()
    }

    /// Returns when everything that the process ever sent has been worked through.
    pub(super) fn closed(&self) -> WaitForCancellationFuture<'_> {
        self.closed.cancelled()
    }

    /// Fails the calls under way and tells how many they were.
    pub(super) fn fail_calls(&self, reason: &str) -> usize {
        self.calls.close(reason)
    }

    fn send(&self, kind: u8, call: u64, body: impl FnOnce(&mut Vec<u8>)) -> Result<(), TooLong> {
        let mut outbox = self.outbox();
        if outbox.closed {
            return Ok(());
        }
        push(&mut outbox.bytes, kind, call, body)?;
        if outbox.claimed {
            return Ok(());
        }
        // Where no other job runs, there is nothing to wait for that could go in the same piece.
        if self.calls.running() <= 1
            && let Ok(count) = self.socket.get_ref().write(&outbox.bytes)
        {
            outbox.bytes.drain(..count);
        }
        if !outbox.bytes.is_empty() {
            outbox.claimed = true;
            drop(outbox);
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Writes all that has gathered in one piece, until the socket is closed.
    async fn write(self: Arc<Self>) {
        let mut batch = Vec::new();
        loop {
            self.filled.notified().await;
            // Whoever is to run now may have something to send as well.
            yield_now().await;
            while self.take_batch(&mut batch) {
                if self.write_all(&batch).await.is_err() {
                    // The reader notices as well, and its end is what counts.
                    return;
                }
            }
        }
    }

    /// Swaps what has gathered for what is written; `false` if there is nothing, and then the next to send has to say so.
    fn take_batch(&self, batch: &mut Vec<u8>) -> bool {
        batch.clear();
        batch.shrink_to(1 << 20);
        let mut outbox = self.outbox();
        std::mem::swap(&mut outbox.bytes, batch);
        outbox.claimed = !batch.is_empty();
        outbox.claimed
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.get_ref().write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.writable().await?,
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    async fn writable(&self) -> io::Result<()> {
        let socket = heard_of(self.socket.get_ref().try_clone()?, Interest::WRITABLE)?;
        socket.writable().await?.retain_ready();
        Ok(())
    }

    async fn read(self: Arc<Self>, milestones: mpsc::UnboundedSender<Milestone>) {
        let _closing = Closing(&self);
        let mut reader = FrameReader::new();
        loop {
            match self.take_frames(&mut reader, &milestones) {
                Ok(()) => {}
                Err(error) => return self.condemn(format!("was stopped because it sent {error}")),
            }
            match self.receive(reader.space()).await {
                Ok(count) if count > 0 => reader.filled(count),
                _ => return,
            }
        }
    }

    async fn receive(&self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| socket.get_ref().read(space)) {
                Ok(Ok(count)) => {
                    if count < space.len() {
                        // There is no more, which need not be asked for.
                        ready.clear_ready();
                    }
                    return Ok(count);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    fn take_frames(
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
                kind::ADD_JOB => self.add_job(&mut frame)?,
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

    fn add_job(self: &Arc<Self>, frame: &mut Frame<'_>) -> io::Result<()> {
        let request = frame.body.u64()?;
        let spec = frame.body.text()?.unwrap_or_default().to_owned();
        let connection = Arc::clone(self);
        // Not awaited by anybody: it ends with the statement, whether or not the process lives to hear of it.
        tokio::spawn(async move {
            let added = match &connection.add_job {
                Some(add_job) => add(&**add_job, spec).await,
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
        });
        Ok(())
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(deprecated, reason = "a socket keeps its one descriptor open, which is all that the unsafe successor asks for")]
fn heard_of(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}

/// Closes the line when the reading ends, however that comes.
struct Closing<'a>(&'a Connection);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.outbox().closed = true;
        self.0.closed.cancel();
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
