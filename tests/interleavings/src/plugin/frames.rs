//! Frames without a body: a byte for the kind, and eight for the call.

/// Never, here.
#[derive(Debug)]
pub(super) struct TooLong;

/// What one takes up.
pub(super) const LENGTH: usize = 9;

pub(super) const CANCEL: u8 = 17;
pub(super) const RUN: u8 = 18;
pub(super) const ENDED: u8 = 19;
pub(super) const LOG: u8 = 20;

pub(super) fn push(buffer: &mut Vec<u8>, kind: u8, call: u64, body: impl FnOnce(&mut Vec<u8>)) -> Result<(), TooLong> {
    buffer.push(kind);
    buffer.extend_from_slice(&call.to_le_bytes());
    body(buffer);
    Ok(())
}

/// Takes the frames that are whole: the kind of each, and its call.
pub(super) fn take_frames(bytes: &mut Vec<u8>) -> Vec<(u8, u64)> {
    let whole = bytes.len() / LENGTH * LENGTH;
    let frames: Vec<u8> = bytes.drain(..whole).collect();
    let read = |frame: &[u8]| {
        assert!([CANCEL, RUN, ENDED, LOG].contains(&frame[0]), "frames do not get into each other: {frame:?}");
        (frame[0], u64::from_le_bytes(frame[1..].try_into().expect("eight bytes")))
    };
    frames.chunks(LENGTH).map(read).collect()
}
