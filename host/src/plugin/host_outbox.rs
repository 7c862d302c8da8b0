//! The outbox of the host's connection to a plugin's process: combines messages into one write.

use std::{io, mem, pin::pin};

use super::{
    frames::{TooLong, push},
    host_socket::HostSocket,
};
use crate::sync::{Mutex, MutexGuard, Notify, PoisonError, yield_now};

/// While more than this is unwritten, no job is sent: a process that does not read must not fill the host's memory.
const FULL: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct HostOutbox {
    state: Mutex<Unwritten>,
    /// Signalled when there is something to write.
    filled: Notify,
    /// Signalled when there is room again, or when the outbox is closed.
    room: Notify,
    socket: HostSocket,
}

#[derive(Debug, Default)]
struct Unwritten {
    bytes: Vec<u8>,
    /// The number of bytes taken by the writer and not written yet.
    taken: usize,
    /// Whether the writer is about to write.
    claimed: bool,
    /// Whether the connection is closed.
    closed: bool,
}

impl HostOutbox {
    pub(super) fn new(socket: HostSocket) -> Self {
        Self { state: Mutex::default(), filled: Notify::new(), room: Notify::new(), socket }
    }

    /// Sends a frame, unless the connection is closed. With `alone`, no other frames are expected to join it.
    pub(super) fn send(
        &self,
        kind: u8,
        call: u64,
        alone: bool,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), TooLong> {
        let mut unwritten = self.lock();
        if unwritten.closed {
            return Ok(());
        }
        push(&mut unwritten.bytes, kind, call, body)?;
        if unwritten.claimed {
            return Ok(());
        }
        if alone && let Ok(count) = self.socket.write_some(&unwritten.bytes) {
            unwritten.bytes.drain(..count);
        }
        if !unwritten.bytes.is_empty() {
            unwritten.claimed = true;
            drop(unwritten);
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Whether there is room for a job; `None` if the connection is closed.
    pub(super) fn has_room(&self) -> Option<bool> {
        let unwritten = self.lock();
        (!unwritten.closed).then(|| !unwritten.is_full())
    }

    /// Waits until there is room or the connection is closed.
    pub(super) async fn room(&self) {
        loop {
            let mut freed = pin!(self.room.notified());
            freed.as_mut().enable();
            if !self.lock().is_full() {
                return;
            }
            freed.await;
        }
    }

    /// Refuses further frames, and discards the unwritten ones.
    pub(super) fn close(&self) {
        let mut unwritten = self.lock();
        unwritten.closed = true;
        unwritten.bytes = Vec::new();
        drop(unwritten);
        self.room.notify_waiters();
    }

    /// Writes the collected frames in one piece, repeatedly until the socket is closed.
    pub(super) async fn write(&self) {
        let mut batch = Vec::new();
        loop {
            self.filled.notified().await;
            // Other tasks that are ready may have frames to add.
            yield_now().await;
            while self.take(&mut batch) {
                if self.write_all(&batch).await.is_err() {
                    // The reader notices too, and its end decides.
                    return self.close();
                }
            }
        }
    }

    /// Reads the available bytes, at least one; zero means the end.
    pub(super) async fn read(&self, space: &mut [u8]) -> io::Result<usize> {
        self.socket.read(space).await
    }

    /// Swaps the collected frames with the written buffer; `false` if there are none, and the next sender must then signal.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        batch.clear();
        batch.shrink_to(1 << 20);
        let mut unwritten = self.lock();
        let was_full = unwritten.is_full();
        mem::swap(&mut unwritten.bytes, batch);
        unwritten.taken = batch.len();
        let (claimed, is_full) = (!batch.is_empty(), unwritten.is_full());
        unwritten.claimed = claimed;
        drop(unwritten);
        if was_full && !is_full {
            self.room.notify_waiters();
        }
        claimed
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.write_some(bytes)? {
                0 => self.socket.writable().await?,
                count => bytes = &bytes[count..],
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Unwritten> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unwritten {
    fn is_full(&self) -> bool {
        !self.closed && self.bytes.len() + self.taken > FULL
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
        sync::Arc,
        time::Duration,
    };

    use tokio::{task::JoinHandle, time::timeout};

    use super::*;
    use crate::plugin::frames::{FrameReader, kind, put_text};

    fn open() -> (Arc<HostOutbox>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for socket in [&ours, &theirs] {
            socket.set_nonblocking(true).unwrap();
        }
        (Arc::new(HostOutbox::new(ours.try_into().unwrap())), theirs)
    }

    fn writing(outbox: &Arc<HostOutbox>) -> JoinHandle<()> {
        let outbox = Arc::clone(outbox);
        tokio::spawn(async move { outbox.write().await })
    }

    fn frames(bytes: &[u8]) -> Vec<u64> {
        let mut reader = FrameReader::new();
        reader.space()[..bytes.len()].copy_from_slice(bytes);
        reader.filled(bytes.len());
        let mut calls = Vec::new();
        while let Some(frame) = reader.next().unwrap() {
            calls.push(frame.call);
        }
        calls
    }

    #[tokio::test]
    async fn what_is_sent_alone_is_written_at_once_and_what_is_sent_together_in_one_piece() {
        let (outbox, mut theirs) = open();
        outbox.send(kind::RUN, 1, true, |_| ()).unwrap();
        let mut bytes = [0; 1 << 10];
        let count = theirs.read(&mut bytes).unwrap();
        assert_eq!(frames(&bytes[..count]), [1], "nobody else has run");

        let writing = writing(&outbox);
        let sending: Vec<_> = (2..30)
            .map(|call| {
                let outbox = Arc::clone(&outbox);
                tokio::spawn(async move { outbox.send(kind::RUN, call, false, |_| ()).unwrap() })
            })
            .collect();
        for sent in sending {
            sent.await.unwrap();
        }
        let count = loop {
            match theirs.read(&mut bytes) {
                Ok(count) => break count,
                Err(_) => yield_now().await,
            }
        };
        assert_eq!(frames(&bytes[..count]), (2..30).collect::<Vec<_>>());
        writing.abort();
    }

    #[tokio::test]
    async fn what_the_socket_has_no_room_for_follows_when_it_has() {
        let (outbox, mut theirs) = open();
        let writing = writing(&outbox);
        let text = "x".repeat(3 << 20);
        for (call, alone) in [(1, true), (2, true), (3, false)] {
            outbox.send(kind::RUN, call, alone, |body| put_text(body, Some(&text))).unwrap();
        }
        let (mut reader, mut seen) = (FrameReader::new(), Vec::new());
        timeout(Duration::from_secs(30), async {
            while seen.len() < 3 {
                match theirs.read(reader.space()) {
                    Ok(count) => reader.filled(count),
                    Err(_) => yield_now().await,
                }
                while let Some(mut frame) = reader.next().unwrap() {
                    assert_eq!(frame.body.text().unwrap().map(str::len), Some(text.len()));
                    seen.push(frame.call);
                }
            }
        })
        .await
        .unwrap();
        assert_eq!(seen, [1, 2, 3]);
        writing.abort();
    }

    #[tokio::test]
    async fn it_is_full_until_what_gathered_was_written_or_it_is_closed() {
        let (outbox, mut theirs) = open();
        let writing = writing(&outbox);
        let text = "x".repeat(FULL);
        outbox.send(kind::RUN, 1, false, |body| put_text(body, Some(&text))).unwrap();
        assert_eq!(outbox.has_room(), Some(false));
        let mut bytes = vec![0; 1 << 20];
        let reading = async {
            loop {
                // There is nothing to wait for where the room is waited for.
                if theirs.read(&mut bytes).is_err() {
                    yield_now().await;
                }
            }
        };
        timeout(Duration::from_secs(30), async {
            tokio::select! { () = outbox.room() => {}, () = reading => {} }
        })
        .await
        .unwrap();
        outbox.send(kind::RUN, 2, false, |body| put_text(body, Some(&text))).unwrap();
        assert_eq!(outbox.has_room(), Some(false));
        drop(theirs);
        // Writing fails, since nobody would read it.
        timeout(Duration::from_secs(30), outbox.room()).await.unwrap();
        writing.await.unwrap();
        assert_eq!(outbox.has_room(), None);
    }

    #[tokio::test]
    async fn a_line_that_is_closed_keeps_nothing() {
        let (outbox, mut theirs) = open();
        outbox.close();
        outbox.send(kind::RUN, 1, true, |_| ()).unwrap();
        assert!(theirs.read(&mut [0; 8]).is_err());
        assert!(outbox.lock().bytes.is_empty());
    }

    #[tokio::test]
    async fn all_that_was_written_before_the_end_is_read_and_then_the_end() {
        let (outbox, mut theirs) = open();
        let mut space = [0; 1 << 10];
        theirs.write_all(b"one").unwrap();
        assert_eq!(outbox.read(&mut space).await.unwrap(), 3);
        theirs.write_all(b"two").unwrap();
        drop(theirs);
        assert_eq!(outbox.read(&mut space).await.unwrap(), 3);
        assert_eq!(timeout(Duration::from_secs(30), outbox.read(&mut space)).await.unwrap().unwrap(), 0);
    }
}
