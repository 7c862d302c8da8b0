//! The socket of a plugin's process, for messages to the host.

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
};

use rustix::net::SendFlags;

/// The child's end.
#[derive(Debug)]
pub(super) struct ChildSocket(UnixStream);

impl ChildSocket {
    /// Writes as much as possible without blocking, and returns the number of bytes.
    pub(super) fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        match rustix::net::send(&self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map_err(io::Error::from) {
            Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => Ok(0),
            result => result,
        }
    }

    /// Writes everything, blocking if necessary.
    pub(super) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.0).write_all(bytes)
    }
}

impl From<UnixStream> for ChildSocket {
    fn from(socket: UnixStream) -> Self {
        Self(socket)
    }
}
