//! A socket with little room, and the host's end of it.

use std::{io, sync::Arc};

use shuttle::sync::{Condvar, Mutex};

/// The child's end. Clones are the same socket.
#[derive(Debug, Clone)]
pub struct ChildSocket {
    shared: Arc<Shared>,
    room: usize,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: Mutex<Vec<u8>>,
    changed: Condvar,
}

impl ChildSocket {
    /// Takes so many bytes before somebody has to read.
    pub fn with_room(room: usize) -> Self {
        Self { shared: Arc::default(), room }
    }

    pub(super) fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut there = self.shared.bytes.lock().expect("nobody panics");
        let count = bytes.len().min(self.room - there.len());
        there.extend_from_slice(&bytes[..count]);
        self.shared.changed.notify_all();
        Ok(count)
    }

    pub(super) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write_some(bytes)?;
            bytes = &bytes[count..];
            if count == 0 {
                let there = self.shared.bytes.lock().expect("nobody panics");
                drop(self.shared.changed.wait_while(there, |there| there.len() == self.room));
            }
        }
        Ok(())
    }

    /// What has arrived, at least a byte.
    pub fn read(&self) -> Vec<u8> {
        let there = self.shared.bytes.lock().expect("nobody panics");
        let mut there = self.shared.changed.wait_while(there, |there| there.is_empty()).expect("nobody panics");
        self.shared.changed.notify_all();
        std::mem::take(&mut *there)
    }

    /// What has arrived by now.
    pub fn arrived(&self) -> usize {
        self.shared.bytes.lock().expect("nobody panics").len()
    }
}
