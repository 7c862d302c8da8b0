//! Tells other programs of this machine what the tasks folder of a running host has come to, which `taskbay plugins` asks for.
//!
//! Each host listens on a socket with an abstract name. Such a name needs no folder that can be written to, is gone with the
//! process however that ends, and is found in `/proc/net/unix`. But anybody may take one or connect to one, so each side asks the
//! kernel who the other is. The socket is there as long as the folder is watched; nothing is done until somebody asks.

use std::{collections::BTreeSet, fs, io, path::PathBuf, process, time::Duration};

use futures_util::{StreamExt, future, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tracing::debug;

use crate::tasks::{FolderHandle, FolderSnapshot};

/// What the names begin with, after the byte that makes them abstract.
const PREFIX: &str = "taskbay/host/";
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any snapshot has.
const LARGEST: u64 = 16 << 20;
/// So many hosts are asked at once: anybody can have sockets of these names.
const AT_ONCE: usize = 8;

/// What a running host said.
#[derive(Debug)]
pub(crate) struct HostStatus {
    pub(crate) process: u32,
    /// As whom it runs.
    pub(crate) user: u32,
    pub(crate) folder: FolderSnapshot,
}

/// Answers whoever asks, for ever. Where that cannot be, hosts are only not found.
pub(crate) async fn serve(folder: FolderHandle) {
    let name = format!("\0{PREFIX}{}/{:016x}", process::id(), rand::random::<u64>());
    let listener = match UnixListener::bind(PathBuf::from(name)) {
        Ok(listener) => listener,
        Err(error) => {
            debug!(event = "status_unavailable", "`taskbay plugins` cannot ask this host: {error}");
            return std::future::pending().await;
        }
    };
    loop {
        let answered = match listener.accept().await {
            Ok((stream, _)) => timeout(PATIENCE, answer(stream, &folder)).await.unwrap_or_else(|late| Err(late.into())),
            Err(error) => {
                // Such as too many open files, which takes a while to pass.
                tokio::time::sleep(Duration::from_secs(1)).await;
                Err(error)
            }
        };
        if let Err(error) = answered {
            debug!(event = "status_unanswered", "somebody asked for the state of the tasks folder in vain: {error}");
        }
    }
}

async fn answer(mut stream: UnixStream, folder: &FolderHandle) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != own_user() {
        return Err(io::Error::other(format!("user {peer} may not know it")));
    }
    let snapshot = folder.snapshot().await.ok_or(io::ErrorKind::NotFound)?;
    stream.write_all(&serde_json::to_vec(&snapshot)?).await?;
    stream.shutdown().await
}

/// What the hosts of this machine say that this user may ask: all, for root, and else those that run as this user or root.
pub(crate) async fn ask() -> Vec<HostStatus> {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    // Each name is there once more for every connection.
    let names: BTreeSet<String> = sockets
        .lines()
        .filter_map(|line| line.split_whitespace().last()?.strip_prefix('@'))
        .filter(|name| name.starts_with(PREFIX))
        .map(str::to_owned)
        .collect();
    let ask = |name: String| async move {
        let answer = timeout(PATIENCE, ask_one(&name)).await.unwrap_or_else(|late| Err(late.into()));
        answer.inspect_err(|error| debug!("{name} did not tell its state: {error}")).ok()
    };
    stream::iter(names).map(ask).buffer_unordered(AT_ONCE).filter_map(future::ready).collect().await
}

async fn ask_one(name: &str) -> io::Result<HostStatus> {
    let mut stream = UnixStream::connect(PathBuf::from(format!("\0{name}"))).await?;
    let peer = stream.peer_cred()?;
    if own_user() != 0 && peer.uid() != 0 && peer.uid() != own_user() {
        return Err(io::Error::other(format!("it is user {}'s", peer.uid())));
    }
    let mut bytes = Vec::new();
    (&mut stream).take(LARGEST).read_to_end(&mut bytes).await?;
    let process = peer.pid().map_or(0, i32::unsigned_abs);
    Ok(HostStatus { process, user: peer.uid(), folder: serde_json::from_slice(&bytes)? })
}

pub(crate) fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}
