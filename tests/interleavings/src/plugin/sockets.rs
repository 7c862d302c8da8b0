//! A pair of sockets with little room.

use std::{io, sync::Arc};

use shuttle::sync::{Condvar, Mutex, MutexGuard};

/// What a process says to the other one.
#[derive(Debug)]
struct Pipe {
    state: Mutex<State>,
    changed: Condvar,
    room: usize,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// One of the two is gone.
    over: bool,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics")
    }

    fn wait_while(&self, waits: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.lock(), |state| waits(state)).expect("nobody panics")
    }

    /// How much of it there was room for; `None`, if nobody is there to read.
    fn write_some(&self, bytes: &[u8]) -> Option<usize> {
        let mut state = self.lock();
        if state.over {
            return None;
        }
        let count = bytes.len().min(self.room - state.bytes.len());
        state.bytes.extend_from_slice(&bytes[..count]);
        self.changed.notify_all();
        Some(count)
    }

    fn writable(&self) {
        drop(self.wait_while(|state| state.bytes.len() == self.room && !state.over));
    }

    /// At least a byte, unless that is the end.
    fn read(&self, most: usize) -> Vec<u8> {
        let mut state = self.wait_while(|state| state.bytes.is_empty() && !state.over);
        let count = most.min(state.bytes.len());
        self.changed.notify_all();
        state.bytes.drain(..count).collect()
    }

    fn end(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }
}

/// The two ends, each of which takes so many bytes before the other one has to read.
pub fn socket_pair(room: usize) -> (HostSocket, ChildSocket) {
    let pipe = || Arc::new(Pipe { state: Mutex::default(), changed: Condvar::new(), room });
    let (to_child, to_host) = (pipe(), pipe());
    let child = ChildSocket { to_host: Arc::clone(&to_host), to_child: Arc::clone(&to_child) };
    (HostSocket { to_child, to_host }, child)
}

/// The host's end. Clones are the same socket.
#[derive(Debug, Clone)]
pub struct HostSocket {
    to_child: Arc<Pipe>,
    to_host: Arc<Pipe>,
}

impl HostSocket {
    pub(super) fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        self.to_child.write_some(bytes).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.to_child.writable();
        Ok(())
    }

    pub(super) async fn read(&self, space: &mut [u8]) -> io::Result<usize> {
        let bytes = self.to_host.read(space.len());
        space[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// What has arrived by now.
    pub fn arrived(&self) -> usize {
        self.to_host.lock().bytes.len()
    }

    /// The calls of the frames that arrive until there are so many, in their order.
    pub fn calls(&self, count: usize) -> Vec<u64> {
        let (mut bytes, mut calls) = (Vec::new(), Vec::new());
        while calls.len() < count {
            bytes.extend(self.to_host.read(usize::MAX));
            calls.extend(super::frames::take_frames(&mut bytes).into_iter().map(|(_, call)| call));
        }
        calls
    }
}

/// The child's end. Clones are the same socket.
#[derive(Debug, Clone)]
pub struct ChildSocket {
    to_host: Arc<Pipe>,
    to_child: Arc<Pipe>,
}

impl ChildSocket {
    /// Of a process that is gone, nobody is there to see what becomes of it.
    pub(super) fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.to_host.write_some(bytes).unwrap_or(bytes.len()))
    }

    pub(super) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write_some(bytes)?;
            bytes = &bytes[count..];
            if count == 0 {
                self.to_host.writable();
            }
        }
        Ok(())
    }

    pub(super) fn read(&self) -> Vec<u8> {
        self.to_child.read(usize::MAX)
    }

    pub(super) fn is_readable(&self) -> bool {
        let state = self.to_child.lock();
        state.over || !state.bytes.is_empty()
    }

    /// The process is gone, at whatever point its threads are.
    pub(super) fn end(&self) {
        self.to_host.end();
        self.to_child.end();
    }
}

/// By the names under which the host's files look for them.
pub(super) mod child_socket {
    pub(in super::super) use super::ChildSocket;
}

pub(super) mod host_socket {
    pub(in super::super) use super::HostSocket;
}
