//! The wire protocol between the host and a plugin's process.
//!
//! A frame is `u32 length | u8 kind | u64 call | body`, little-endian; the length excludes itself. Both ends are the same
//! program, so the version in [`kind::HELLO`] only guards against a replaced program.

use std::io;

use serde::{Deserialize, Serialize};

use super::{JobInput, bounds::Bounds};

/// Must change with every change of the protocol.
pub(super) const PROTOCOL: u64 = 4;
/// The maximum length of a frame. Smaller while fuzzing: allocating room for long frames in random input takes most of the
/// time.
pub(super) const MAX_FRAME: usize = if cfg!(fuzzing) { 1 << 20 } else { 64 << 20 };

const HEAD: usize = 13;
/// The length that marks an absent text.
const ABSENT: u32 = u32::MAX;

/// The kinds of frames.
pub(super) mod kind {
    /// To the child, first: [`super::Hello`] as JSON; its call is the protocol's version.
    pub(in crate::plugin) const HELLO: u8 = 1;
    /// To the child: a job.
    pub(in crate::plugin) const RUN: u8 = 2;
    /// To the child: `u32` mode.
    pub(in crate::plugin) const CANCEL: u8 = 3;
    /// To the child: `u64` milliseconds.
    pub(in crate::plugin) const SHUT_DOWN: u8 = 4;
    /// To the child; its call is the request's: the ids as JSON and an absent text, or the other way round the reason.
    pub(in crate::plugin) const JOB_ADDED: u8 = 5;
    /// To the host: the plugin's code is about to be mapped.
    pub(in crate::plugin) const LOADING: u8 = 15;
    /// To the host: the manifest as JSON.
    pub(in crate::plugin) const MANIFEST: u8 = 16;
    /// To the host: the start-up succeeded.
    pub(in crate::plugin) const READY: u8 = 17;
    /// To the host: a launch error as JSON.
    pub(in crate::plugin) const REFUSED: u8 = 18;
    /// To the host: a call ended: `u32` status, a message and a detail.
    pub(in crate::plugin) const ENDED: u8 = 19;
    /// To the host: a line for the log: `u32` level, target, message, fields.
    pub(in crate::plugin) const LOG: u8 = 20;
    /// To the host: `u64` request and the description of a job or of several.
    pub(in crate::plugin) const ADD_JOB: u8 = 21;
}

/// The initial information for a child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The process that the child must not outlive.
    pub(super) parent: u32,
    /// Load the plugin and report its manifest, then end.
    pub(super) check_only: bool,
    pub(super) memory_limit: Option<u64>,
    pub(super) bounds: Bounds,
    /// As [`taskbay_abi::Host::max_level`].
    pub(super) max_level: u32,
    /// A JSON object.
    pub(super) settings: String,
}

/// A body that is too long for a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Appends a frame. If it is too long, the buffer stays unchanged.
pub(super) fn push(buffer: &mut Vec<u8>, kind: u8, call: u64, body: impl FnOnce(&mut Vec<u8>)) -> Result<(), TooLong> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    buffer.push(kind);
    buffer.extend_from_slice(&call.to_le_bytes());
    body(buffer);
    let length = buffer.len() - start - 4;
    if length > MAX_FRAME {
        buffer.truncate(start);
        // The memory allocated for it is not needed again.
        buffer.shrink_to(1 << 20);
        return Err(TooLong);
    }
    buffer[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

/// Appends a text that may be absent. A text longer than any frame is truncated; `push` then refuses the frame.
pub(super) fn put_text(buffer: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => buffer.extend_from_slice(&ABSENT.to_le_bytes()),
        Some(text) => {
            let bytes = &text.as_bytes()[..text.len().min(MAX_FRAME + 1)];
            buffer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            buffer.extend_from_slice(bytes);
        }
    }
}

/// Appends the body of [`kind::RUN`].
pub(super) fn put_job(buffer: &mut Vec<u8>, task: u32, timeout_ms: u64, job: &JobInput<'_>) {
    buffer.reserve(job.payload.len() + 128);
    for number in [task, job.attempt, job.max_attempts, job.priority.cast_unsigned(), job.revision.cast_unsigned()] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
    for number in [job.id, job.run_at_us, job.created_at_us, job.updated_at_us] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
    buffer.extend_from_slice(&timeout_ms.to_le_bytes());
    for text in [Some(job.payload), job.queue, job.key, job.last_error, job.flags] {
        put_text(buffer, text);
    }
}

/// Parses the body of [`kind::RUN`]: the task's index, the timeout in milliseconds, and the job, without its task's name.
pub(super) fn take_job<'a>(body: &mut Body<'a>) -> io::Result<(u32, u64, JobInput<'a>)> {
    let (task, attempt, max_attempts) = (body.u32()?, body.u32()?, body.u32()?);
    let (priority, revision) = (body.u32()?.cast_signed(), body.u32()?.cast_signed());
    let (id, run_at_us, created_at_us, updated_at_us) = (body.i64()?, body.i64()?, body.i64()?, body.i64()?);
    let timeout_ms = body.u64()?;
    let payload = body.text()?.ok_or_else(malformed)?;
    let (queue, key, last_error, flags) = (body.text()?, body.text()?, body.text()?, body.text()?);
    let job = JobInput {
        id,
        task: "",
        attempt,
        max_attempts,
        priority,
        revision,
        run_at_us,
        created_at_us,
        updated_at_us,
        payload,
        queue,
        key,
        last_error,
        flags,
    };
    Ok((task, timeout_ms, job))
}

/// A received frame.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) call: u64,
    pub(super) body: Body<'a>,
}

/// The unread rest of a frame's body.
#[derive(Debug)]
pub(super) struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    pub(super) fn u32(&mut self) -> io::Result<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes were taken")))
    }

    pub(super) fn u64(&mut self) -> io::Result<u64> {
        self.take(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    pub(super) fn i64(&mut self) -> io::Result<i64> {
        self.u64().map(u64::cast_signed)
    }

    pub(super) fn text(&mut self) -> io::Result<Option<&'a str>> {
        match self.u32()? {
            ABSENT => Ok(None),
            length => str::from_utf8(self.take(length as usize)?).map(Some).map_err(|_| malformed()),
        }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a malformed message")
}

/// Splits received bytes into frames.
#[derive(Debug)]
pub(super) struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

const ROOM: usize = 64 << 10;

impl FrameReader {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; ROOM], start: 0, end: 0 }
    }

    /// The buffer for the next bytes. Pass their number to [`FrameReader::filled`].
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let wanted = self.frame_length().map_or(ROOM, |length| length.max(ROOM));
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        } else if wanted == ROOM && self.buffer.len() > 16 * ROOM {
            // A huge payload must not occupy memory for the rest of the process.
            self.buffer.truncate(ROOM);
            self.buffer.shrink_to_fit();
        }
        &mut self.buffer[self.end..]
    }

    pub(super) fn filled(&mut self, count: usize) {
        self.end += count;
    }

    /// The next complete frame.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame<'_>>> {
        let Some(length) = self.frame_length() else { return Ok(None) };
        if !(HEAD..=MAX_FRAME + 4).contains(&length) {
            return Err(malformed());
        }
        if self.end - self.start < length {
            return Ok(None);
        }
        let frame = &self.buffer[self.start..self.start + length];
        self.start += length;
        let call = u64::from_le_bytes(frame[5..HEAD].try_into().expect("eight bytes"));
        Ok(Some(Frame { kind: frame[4], call, body: Body(&frame[HEAD..]) }))
    }

    /// The number of complete frames of a kind.
    pub(super) fn count(&self, kind: u8) -> usize {
        let (mut rest, mut count) = (&self.buffer[self.start..self.end], 0);
        while let Some(head) = rest.first_chunk::<5>()
            && let Some(after) = rest.get(4 + u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize..)
        {
            count += usize::from(head[4] == kind);
            rest = after;
        }
        count
    }

    /// The size of the first frame, including its length field, once that has arrived.
    fn frame_length(&self) -> Option<usize> {
        let head = self.buffer[self.start..self.end].first_chunk::<4>()?;
        Some((u32::from_le_bytes(*head) as usize).saturating_add(4))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn frames_survive_any_way_of_arriving() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..200 {
            let bodies: Vec<String> = (0..random.random_range(1..20))
                .map(|_| {
                    "ä€x".repeat(if random.random_bool(0.1) {
                        random.random_range(0..100_000)
                    } else {
                        random.random_range(0..50)
                    })
                })
                .collect();
            let mut bytes = Vec::new();
            for (call, body) in bodies.iter().enumerate() {
                push(&mut bytes, kind::LOG, call as u64, |buffer| put_text(buffer, Some(body))).unwrap();
            }
            let (mut reader, mut sent, mut seen) = (FrameReader::new(), 0, Vec::new());
            while sent < bytes.len() {
                let space = reader.space();
                let count = random.random_range(1..=space.len()).min(bytes.len() - sent);
                space[..count].copy_from_slice(&bytes[sent..sent + count]);
                reader.filled(count);
                sent += count;
                let (whole, before) = (reader.count(kind::LOG), seen.len());
                while let Some(mut frame) = reader.next().unwrap() {
                    assert_eq!((frame.kind, frame.call), (kind::LOG, seen.len() as u64));
                    seen.push(frame.body.text().unwrap().unwrap().to_owned());
                }
                assert_eq!(seen.len() - before, whole);
            }
            assert_eq!(seen, bodies);
        }
    }

    #[test]
    fn a_job_arrives_as_it_was_sent() {
        let job = JobInput {
            id: -5,
            task: "",
            attempt: 2,
            max_attempts: 25,
            priority: -3,
            revision: 7,
            run_at_us: i64::MAX,
            created_at_us: -1,
            updated_at_us: 0,
            payload: "{\"a\":[1,2]}",
            queue: Some(""),
            key: None,
            last_error: Some("größer\n"),
            flags: None,
        };
        let mut bytes = Vec::new();
        push(&mut bytes, kind::RUN, 9, |buffer| put_job(buffer, 4, 30_000, &job)).unwrap();
        let mut reader = FrameReader::new();
        reader.space()[..bytes.len()].copy_from_slice(&bytes);
        reader.filled(bytes.len());
        let mut frame = reader.next().unwrap().unwrap();
        let (task, timeout, received) = take_job(&mut frame.body).unwrap();
        assert_eq!((task, timeout), (4, 30_000));
        assert_eq!(format!("{received:?}"), format!("{job:?}"));
        assert!(frame.body.rest().is_empty());
    }

    #[test]
    fn what_is_too_long_is_refused_and_leaves_no_trace() {
        let mut bytes = b"before".to_vec();
        let huge = "x".repeat(MAX_FRAME);
        assert!(push(&mut bytes, kind::RUN, 1, |buffer| put_text(buffer, Some(&huge))).is_err());
        assert_eq!(bytes, b"before");
    }

    #[test]
    fn nonsense_is_an_error_instead_of_a_panic() {
        let mut random = StdRng::seed_from_u64(2);
        for _ in 0..2_000 {
            let mut reader = FrameReader::new();
            let mut bytes = vec![0; random.random_range(0..200)];
            random.fill(&mut bytes[..]);
            if let Some(first) = bytes.get_mut(1..4) {
                first.fill(0);
            }
            reader.space()[..bytes.len()].copy_from_slice(&bytes);
            reader.filled(bytes.len());
            reader.count(kind::RUN);
            while let Ok(Some(mut frame)) = reader.next() {
                let _ = take_job(&mut frame.body);
            }
        }
    }
}
