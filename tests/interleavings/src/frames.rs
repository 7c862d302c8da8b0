//! Frames as short as they can be: a byte for the kind, and one for the call.

/// Never, here.
#[derive(Debug)]
pub(super) struct TooLong;

pub(super) fn push(buffer: &mut Vec<u8>, kind: u8, call: u64, body: impl FnOnce(&mut Vec<u8>)) -> Result<(), TooLong> {
    buffer.push(kind);
    buffer.push(u8::try_from(call).map_err(|_| TooLong)?);
    body(buffer);
    Ok(())
}
