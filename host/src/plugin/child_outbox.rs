//! The outbox of a plugin's process: messages to the host on their way into the socket.
//!
//! A thread that adds a message while no thread is writing writes it at once, without blocking: the end of a job need not
//! wake another thread. The outbox's own thread takes over writes that would block, and bursts of messages.
//! Jobs that arrived together tend to end together, so their ends are held back until the last of them has ended, for at
//! most [`PATIENCE`].

use std::{cell::Cell, mem, time::Duration};

use super::{child_socket::ChildSocket, frames::push, libc_calls::exit_now};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard, PoisonError, thread_local};

/// The maximum time that the end of a job is held back for those of the jobs that arrived with it.
pub(super) const PATIENCE: Duration = Duration::from_micros(50);
/// A message added within this time after the last write is left to the outbox's thread, which combines several.
const THICK_AND_FAST: Duration = Duration::from_micros(20);
/// The maximum size of held-back messages.
const ENOUGH: usize = 32 << 10;
/// Log lines block while more than this is unwritten; ends of jobs never do.
const FULL: usize = 8 << 20;

thread_local! {
    static BEGINS_JOBS: Cell<bool> = const { Cell::new(false) };
}

#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<Pending>,
    socket: ChildSocket,
    /// Signalled when the thread has something to write.
    handed_over: Condvar,
    /// Signalled after a write.
    written: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    writer: Writer,
    /// An estimate of the recently arrived jobs that have not ended; it does not distinguish jobs.
    expected: usize,
    /// Whether a call of [`Outbox::release`] is due.
    kept_back: bool,
    /// The number of threads waiting for room or for the end of the writing.
    waiting: usize,
    last: Option<Instant>,
}

/// The current or next writer.
#[derive(Debug, Default, PartialEq, Eq)]
enum Writer {
    #[default]
    Nobody,
    Caller,
    Thread,
}

impl Outbox {
    pub(super) fn new(socket: impl Into<ChildSocket>) -> Self {
        let (handed_over, written) = (Condvar::new(), Condvar::new());
        Self { state: Mutex::default(), socket: socket.into(), handed_over, written }
    }

    /// Adds a frame; `false` if it is too long.
    pub(super) fn send(&self, kind: u8, call: u64, body: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut pending = self.lock();
        let sent = push(&mut pending.bytes, kind, call, body).is_ok();
        self.see_to_it(pending);
        sent
    }

    /// Adds the end of a job, which must fit into a frame.
    pub(super) fn send_end(&self, kind: u8, call: u64, body: impl FnOnce(&mut Vec<u8>)) {
        let mut pending = self.lock();
        pending.expected = pending.expected.saturating_sub(1);
        let pushed = push(&mut pending.bytes, kind, call, body);
        debug_assert!(pushed.is_ok(), "nobody would hear that the job has ended");
        self.see_to_it(pending);
    }

    /// Marks this thread as the one that starts jobs. A plugin that runs a job on it delays the start of the others, whose
    /// ends must then not be waited for.
    pub(super) fn this_thread_begins_jobs() {
        BEGINS_JOBS.with(|begins| begins.set(true));
    }

    /// Announces jobs that arrived together and are about to start. Ends may be held back until [`Outbox::release`].
    pub(super) fn expect(&self, jobs: usize) {
        if jobs > 0 {
            let mut pending = self.lock();
            pending.expected += jobs;
            pending.kept_back = true;
        }
    }

    /// All announced jobs have started. Returns whether [`Outbox::release`] must be called after a while.
    pub(super) fn all_begun(&self) -> bool {
        let mut pending = self.lock();
        // The last end is never held back.
        if pending.kept_back && pending.expected <= 1 && pending.bytes.is_empty() {
            pending.kept_back = false;
        }
        pending.kept_back
    }

    /// Writes the held-back messages. With `for_good`, none are held back again until another job arrives.
    pub(super) fn release(&self, for_good: bool) {
        let mut pending = self.lock();
        if for_good {
            pending.kept_back = false;
            pending.expected = 0;
        }
        if !pending.bytes.is_empty() && pending.writer == Writer::Nobody {
            self.write_now(pending);
        }
    }

    pub(super) fn wait_for_room(&self) {
        self.wait_while(self.lock(), |pending| pending.bytes.len() > FULL);
    }

    /// Waits until everything is written.
    pub(super) fn flush(&self) {
        let mut pending = self.lock();
        if !pending.bytes.is_empty() && pending.writer == Writer::Nobody {
            self.hand_over(pending);
            pending = self.lock();
        }
        self.wait_while(pending, |pending| pending.writer != Writer::Nobody);
    }

    /// The endless loop of the outbox's thread.
    pub(super) fn write_what_is_handed_over(&self) {
        let mut batch = Vec::new();
        let mut pending = self.lock();
        loop {
            let idle = |pending: &mut Pending| pending.writer != Writer::Thread;
            pending = self.handed_over.wait_while(pending, idle).unwrap_or_else(PoisonError::into_inner);
            mem::swap(&mut pending.bytes, &mut batch);
            drop(pending);
            if self.socket.write_all(&batch).is_err() {
                exit_now(1);
            }
            empty(&mut batch);
            pending = self.lock();
            if pending.bytes.is_empty() {
                pending.writer = Writer::Nobody;
                pending.last = Some(Instant::now());
            }
            self.tell(&pending);
        }
    }

    /// Writes the added messages, or leaves them to another writer.
    fn see_to_it(&self, pending: MutexGuard<'_, Pending>) {
        if pending.writer != Writer::Nobody || pending.bytes.is_empty() {
            return;
        }
        let kept_back = pending.kept_back && !BEGINS_JOBS.with(Cell::get);
        if kept_back && pending.expected > 0 && pending.bytes.len() < ENOUGH {
            return;
        }
        if !kept_back && pending.last.is_some_and(|last| last.elapsed() < THICK_AND_FAST) {
            return self.hand_over(pending);
        }
        self.write_now(pending);
    }

    /// Writes as much as possible without blocking, and leaves the rest to the outbox's thread.
    fn write_now(&self, mut pending: MutexGuard<'_, Pending>) {
        pending.writer = Writer::Caller;
        let mut batch = mem::take(&mut pending.bytes);
        drop(pending);
        let Ok(count) = self.socket.write_some(&batch) else { exit_now(1) };
        let all = count == batch.len();
        let mut pending = self.lock();
        if !all {
            batch.drain(..count);
            batch.append(&mut pending.bytes);
        }
        if all && pending.bytes.is_empty() {
            // Reuses the buffer.
            empty(&mut batch);
            pending.bytes = batch;
            pending.writer = Writer::Nobody;
            pending.last = Some(Instant::now());
            self.tell(&pending);
        } else {
            if !all {
                pending.bytes = batch;
            }
            self.hand_over(pending);
        }
    }

    fn hand_over(&self, mut pending: MutexGuard<'_, Pending>) {
        pending.writer = Writer::Thread;
        // The thread must not be woken only to wait for this write.
        drop(pending);
        self.handed_over.notify_one();
    }

    fn tell(&self, pending: &Pending) {
        // Notifying nobody still costs a system call.
        if pending.waiting > 0 {
            self.written.notify_all();
        }
    }

    fn wait_while(&self, mut pending: MutexGuard<'_, Pending>, until: impl Fn(&Pending) -> bool) {
        pending.waiting += 1;
        let mut pending =
            self.written.wait_while(pending, |pending| until(pending)).unwrap_or_else(PoisonError::into_inner);
        pending.waiting -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn empty(batch: &mut Vec<u8>) {
    batch.clear();
    batch.shrink_to(1 << 20);
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream, sync::Arc, thread};

    use super::*;
    use crate::plugin::frames::{FrameReader, kind, put_text};

    fn open() -> (Arc<Outbox>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(Outbox::new(ours)), theirs)
    }

    fn with_thread(outbox: &Arc<Outbox>) {
        let outbox = Arc::clone(outbox);
        thread::spawn(move || outbox.write_what_is_handed_over());
    }

    /// The calls of the frames that can be read at once.
    fn piece(theirs: &mut UnixStream) -> Vec<u64> {
        theirs.set_nonblocking(true).unwrap();
        let mut reader = FrameReader::new();
        let count = theirs.read(reader.space()).unwrap_or(0);
        reader.filled(count);
        let mut calls = Vec::new();
        while let Some(frame) = reader.next().unwrap() {
            calls.push(frame.call);
        }
        calls
    }

    fn end(outbox: &Outbox, call: u64) {
        outbox.send_end(kind::ENDED, call, |_| ());
    }

    #[test]
    fn the_end_of_a_job_that_came_alone_is_written_at_once_by_whoever_reports_it() {
        let (outbox, mut theirs) = open();
        outbox.expect(1);
        assert!(!outbox.all_begun(), "there is nothing to keep back");
        end(&outbox, 1);
        assert_eq!(piece(&mut theirs), [1]);
    }

    #[test]
    fn ends_of_jobs_that_came_together_go_in_one_piece_once_the_last_has_ended() {
        let (outbox, mut theirs) = open();
        outbox.expect(3);
        end(&outbox, 1);
        assert!(outbox.all_begun());
        end(&outbox, 2);
        assert!(piece(&mut theirs).is_empty());
        end(&outbox, 3);
        assert_eq!(piece(&mut theirs), [1, 2, 3]);
    }

    #[test]
    fn the_end_of_a_job_that_was_run_in_place_waits_for_no_other() {
        let (outbox, mut theirs) = open();
        Outbox::this_thread_begins_jobs();
        outbox.expect(3);
        end(&outbox, 1);
        assert_eq!(piece(&mut theirs), [1]);
    }

    #[test]
    fn what_is_kept_back_comes_when_it_is_released_and_then_nothing_is_kept_back() {
        let (outbox, mut theirs) = open();
        with_thread(&outbox);
        outbox.expect(3);
        end(&outbox, 1);
        outbox.release(true);
        assert_eq!(piece(&mut theirs), [1]);
        end(&outbox, 2);
        outbox.flush();
        assert_eq!(piece(&mut theirs), [2]);
    }

    #[test]
    fn nothing_is_lost_or_changes_places_when_the_socket_is_full_and_many_threads_send() {
        const EACH: u64 = 2_000;
        let (outbox, mut theirs) = open();
        with_thread(&outbox);
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let outbox = Arc::clone(&outbox);
                let text = "x".repeat(1_000);
                thread::spawn(move || {
                    for number in 0..EACH {
                        if number % 7 == 0 {
                            outbox.expect(1);
                        }
                        outbox.wait_for_room();
                        outbox.send(kind::LOG, sender << 32 | number, |body| put_text(body, Some(&text)));
                    }
                    outbox.release(true);
                })
            })
            .collect();
        let (mut reader, mut next, mut total) = (FrameReader::new(), [0; 4], 0);
        while total < 4 * EACH {
            let count = theirs.read(reader.space()).unwrap();
            reader.filled(count);
            while let Some(mut frame) = reader.next().unwrap() {
                let sender = (frame.call >> 32) as usize;
                assert_eq!(frame.call & u64::from(u32::MAX), next[sender]);
                assert_eq!(frame.body.text().unwrap().map(str::len), Some(1_000));
                next[sender] += 1;
                total += 1;
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
    }
}
