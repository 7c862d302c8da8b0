//! `.taskbay/postgres`: who may enter it, and the locks that say who starts, who uses, and whether the server runs.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    EmbeddedPostgresError,
    account::{self, Account},
    error::files,
};

/// Where root's clusters go whose own folder the server's user cannot reach, such as one below `/root`.
const REACHABLE: &str = "/var/lib/taskbay";

/// The folder of one cluster.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
    pub(super) account: Option<Account>,
}

/// What is known of the last start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) port: u16,
    pub(super) password: String,
    pub(super) socket_folder: PathBuf,
}

/// Keeps the server running. Ends with the process, whatever ends that.
#[derive(Debug)]
pub(super) struct Lease {
    /// The supervisor waits until it can lock this one alone.
    _users: File,
    /// Nobody waits for this one, so it can be asked whether others hold it.
    hosts: File,
}

/// Somebody else is starting a server.
#[derive(Debug)]
pub(super) struct StartInProgress {
    path: PathBuf,
    lock: File,
}

impl StartInProgress {
    /// Waits for the start to succeed or fail.
    pub(super) fn wait(self) -> Result<(), EmbeddedPostgresError> {
        wait_for_lock(&self.lock, FlockOperation::LockShared).map_err(files("lock", &self.path))
    }
}

impl Folder {
    /// Whether somebody is starting a server in the folder, which takes a while the first time.
    pub(super) fn start_in_progress(dir: &Path) -> Option<StartInProgress> {
        let path = dir.join(".taskbay/postgres").join(START);
        let lock = File::open(&path).ok()?;
        let free = matches!(try_lock(&lock, FlockOperation::NonBlockingLockShared), Ok(true));
        (!free).then_some(StartInProgress { path, lock })
    }

    /// Makes the folder if need be.
    pub(super) fn prepare(dir: &Path) -> Result<Self, EmbeddedPostgresError> {
        let account = account::for_server()?;
        let above = dir.join(".taskbay");
        if !above.is_dir() {
            fs::create_dir_all(&above).map_err(files("create", &above))?;
            // Nothing in it is for version control.
            let _ = fs::write(above.join(".gitignore"), "*\n");
        }
        let above = above.canonicalize().map_err(files("find", &above))?;
        let path = above.join("postgres");
        if path.symlink_metadata().is_err() {
            match account {
                Some(account) if !account.can_enter(&above) => {
                    let elsewhere = reachable(&above)?;
                    symlink(&elsewhere, &path).map_err(files("create", &path))?;
                }
                _ => make(&path, account)?,
            }
        }
        let path = path.canonicalize().map_err(files("find", &path))?;
        Ok(Self { path, account })
    }

    /// The folder as it is, if there was ever a server in it that this user may use.
    pub(super) fn find(dir: &Path) -> Option<Self> {
        let path = dir.join(".taskbay/postgres").canonicalize().ok()?;
        File::open(path.join("server.json")).ok()?;
        Some(Self { path, account: account::for_server().ok()? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Keeps others from starting the server until it is dropped. Waits for those who do.
    pub(super) fn lock_start(&self) -> Result<File, EmbeddedPostgresError> {
        self.lock(START, FlockOperation::LockExclusive)
    }

    /// Becomes a user of the server, running or not. Waits while it is being stopped.
    pub(super) fn lease(&self) -> Result<Lease, EmbeddedPostgresError> {
        let users = self.lock(USERS, FlockOperation::LockShared)?;
        let hosts = self.lock("hosts.lock", FlockOperation::LockShared)?;
        Ok(Lease { _users: users, hosts })
    }

    /// Whether the server runs, or ends right now: its processes hold this lock, also when their supervisor was killed.
    pub(super) fn server_runs(&self) -> bool {
        self.open(SERVER).is_ok_and(|file| matches!(try_lock(&file, FlockOperation::NonBlockingLockShared), Ok(false)))
    }

    pub(super) fn state(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.path.join("server.json")).ok()?).ok()
    }

    /// Stores the state, and beside it the address for other programs.
    pub(super) fn store(&self, state: &State, tcp_url: &str) -> Result<(), EmbeddedPostgresError> {
        let json = serde_json::to_vec(state).unwrap_or_default();
        self.write("server.json", &json, 0o600)?;
        self.write("url", format!("{tcp_url}\n").as_bytes(), 0o600)
    }

    /// Writes a file that is whole whenever it is read.
    pub(super) fn write(&self, name: &str, contents: &[u8], mode: u32) -> Result<(), EmbeddedPostgresError> {
        let (path, unfinished) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&unfinished);
        written
            .and_then(|mut file| io::Write::write_all(&mut file, contents))
            .and_then(|()| fs::rename(&unfinished, &path))
            .map_err(files("write", &path))
    }

    /// A folder that belongs to the server's user alone.
    pub(super) fn make_for_server(&self, path: &Path) -> Result<(), EmbeddedPostgresError> {
        make_closed(path, 0o700)?;
        account::give(path, self.account).map_err(files("give to the server's user", path))
    }

    /// A file of locks, opened.
    pub(super) fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(self.path.join(name))
    }

    fn lock(&self, name: &str, operation: FlockOperation) -> Result<File, EmbeddedPostgresError> {
        let locked = self.open(name).and_then(|file| {
            wait_for_lock(&file, operation)?;
            Ok(file)
        });
        locked.map_err(files("lock", &self.path.join(name)))
    }
}

const START: &str = "start.lock";
/// The names of the locks that the supervisor deals with too.
pub(super) const USERS: &str = "users.lock";
pub(super) const SERVER: &str = "server.lock";

impl Lease {
    /// Gives the lease up, and tells whether it was the last one.
    pub(super) fn release(self) -> bool {
        matches!(try_lock(&self.hosts, FlockOperation::NonBlockingLockExclusive), Ok(true))
    }
}

/// Locks a file, however long that takes.
pub(super) fn wait_for_lock(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

/// Locks a file unless somebody else has it locked.
pub(super) fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The cluster's folder: the server's user may pass through it, if it is another one, to what is its own.
fn make(path: &Path, account: Option<Account>) -> Result<(), EmbeddedPostgresError> {
    make_closed(path, if account.is_some() { 0o711 } else { 0o700 })
}

fn make_closed(path: &Path, mode: u32) -> Result<(), EmbeddedPostgresError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(files("create", path)(error)),
        // Set again, because the umask may have taken something away.
        _ => fs::set_permissions(path, Permissions::from_mode(mode)).map_err(files("set the permissions of", path)),
    }
}

fn reachable(above: &Path) -> Result<PathBuf, EmbeddedPostgresError> {
    let parent = Path::new(REACHABLE);
    fs::create_dir_all(parent).map_err(files("create", parent))?;
    let hash = Sha256::digest(above.as_os_str().as_encoded_bytes());
    let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let path = parent.join(name);
    make_closed(&path, 0o711)?;
    Ok(path)
}
