//! The host's socket to a plugin's process.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
};

use tokio::io::{Interest, unix::AsyncFd};

/// The host's end. Registered for readability only, because otherwise each read by the process would wake the reader.
#[derive(Debug)]
pub(super) struct HostSocket(AsyncFd<UnixStream>);

impl HostSocket {
    /// Writes as much as possible without blocking, and returns the number of bytes.
    pub(super) fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.get_ref().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                result => return result,
            }
        }
    }

    /// Waits until there is room.
    pub(super) async fn writable(&self) -> io::Result<()> {
        let socket = heard_of(self.0.get_ref().try_clone()?, Interest::WRITABLE)?;
        socket.writable().await?.retain_ready();
        Ok(())
    }

    /// Reads the available bytes, at least one; zero means the end.
    pub(super) async fn read(&self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
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
}

/// The socket must be non-blocking.
impl TryFrom<UnixStream> for HostSocket {
    type Error = io::Error;

    fn try_from(socket: UnixStream) -> io::Result<Self> {
        heard_of(socket, Interest::READABLE).map(Self)
    }
}

#[allow(deprecated, reason = "a socket keeps its one descriptor open, which is all that the unsafe successor asks for")]
fn heard_of(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}
