//! A private Postgres cluster for development, made with the machine's own server programs.
//!
//! ```text
//! DIR/.taskbay/postgres/      of the user who runs this, closed to others
//!     data/                   the cluster, kept between runs; of the server's user
//!     socket/                 the server's socket; of the server's user, closed to others
//!     server.json             port and password, for those who join
//!     log                     of the server, since its last start
//!     *.lock                  who starts, who uses, and whether the server runs
//! ```
//!
//! The server belongs to a process that supervises it and waits for a lock that all users of the server hold together. A
//! user's lock ends with its process however that ends, so the server stops when its last user is gone, and only then.

mod account;
mod cluster;
mod error;
mod folder;
mod programs;
mod server;
mod supervisor;

use std::{
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

pub use error::EmbeddedPostgresError;
use folder::{Folder, Lease};
use server::{Server, in_background};
pub use supervisor::postgres_child;

/// How long the server may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// A running server in a folder. It runs on at least until this is dropped.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    folder: Folder,
    server: Server,
    lease: Lease,
    /// The process that supervises the server, if it was started here.
    supervisor: Option<Child>,
}

impl EmbeddedPostgres {
    /// Starts the server of a folder, or joins it if it runs. Its data are made at the first start.
    pub async fn start(dir: &Path) -> Result<Self, EmbeddedPostgresError> {
        Self::start_with(dir, Path::new("/proc/self/exe")).await
    }

    /// The same for programs that are not `taskbay` themselves: `program` is, and runs the server when called as
    /// `taskbay postgres-child`.
    pub async fn start_with(dir: &Path, program: &Path) -> Result<Self, EmbeddedPostgresError> {
        let dir = dir.to_owned();
        let (folder, starting, lease) = in_background(move || {
            let folder = Folder::prepare(&dir)?;
            let starting = folder.lock_start()?;
            let lease = folder.lease()?;
            Ok((folder, starting, lease))
        })
        .await?;
        let (server, supervisor) = server::start_or_join(&folder, program).await?;
        drop(starting);
        Ok(Self { folder, server, lease, supervisor })
    }

    /// The server that runs in a folder or in the nearest one above it, if one does. Waits for one that is being started.
    pub async fn find_running(dir: &Path) -> Result<Option<Self>, EmbeddedPostgresError> {
        for dir in dir.ancestors() {
            if let Some(starting) = Folder::start_in_progress(dir) {
                in_background(move || starting.wait()).await?;
            }
            let Some(folder) = Folder::find(dir) else { continue };
            if !folder.server_runs() {
                continue;
            }
            let held = folder.clone();
            let lease = in_background(move || held.lease()).await?;
            // It may have stopped while the lease was waited for.
            if folder.server_runs() {
                let server = server::join(&folder).await?;
                return Ok(Some(Self { folder, server, lease, supervisor: None }));
            }
        }
        Ok(None)
    }

    /// The folder whose server was started there before and does not run now: this folder, or the nearest one above it.
    pub fn find_stopped(dir: &Path) -> Option<PathBuf> {
        let is_stopped = |dir: &&Path| Folder::find(dir).is_some_and(|folder| !folder.server_runs());
        dir.ancestors().find(is_stopped).map(Path::to_owned)
    }

    /// How to connect from this machine as this user: through the socket, without a password.
    pub fn url(&self) -> &str {
        &self.server.url
    }

    /// How to connect through the loopback port, for programs that know no sockets. Contains the password.
    pub fn tcp_url(&self) -> &str {
        &self.server.tcp_url
    }

    /// Where the data and the server's log are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether the server was running already.
    pub fn was_running(&self) -> bool {
        self.supervisor.is_none()
    }

    /// Gives the server up, and waits for its end if nobody else uses it. Tells whether it has ended.
    pub async fn stop(self) -> bool {
        let Self { folder, lease, supervisor, .. } = self;
        if !lease.release() {
            return false;
        }
        let deadline = Instant::now() + STOP_WITHIN;
        while folder.server_runs() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Some(mut supervisor) = supervisor {
            let _ = supervisor.try_wait();
        }
        !folder.server_runs()
    }
}
