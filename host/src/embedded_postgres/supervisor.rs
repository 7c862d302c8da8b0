//! `taskbay postgres-child`: the process that owns the server, and the step from it to the server.
//!
//! It outlives the host that started it while others use the server, and ends with the last of them. If it is killed
//! itself, the kernel tells the server to stop.

use std::{
    env,
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    fs::FlockOperation,
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal, setsid},
};

use super::{
    account::{self, command},
    folder::{SERVER, USERS, try_lock, wait_for_lock},
};

/// How the server is told to stop, with the time that it has to do so: first without waiting for its clients, then without
/// writing out its memory (it recovers at the next start), then by force.
const STOPPING: [(Signal, Duration); 3] = [
    (Signal::INT, Duration::from_secs(10)),
    (Signal::QUIT, Duration::from_secs(5)),
    (Signal::KILL, Duration::from_secs(5)),
];

/// Runs the embedded Postgres for the host that started this process, which is the only way to call it.
pub fn postgres_child() -> ExitCode {
    let mut arguments = env::args_os().skip(2);
    let ended = match arguments.next().as_deref().and_then(|step| step.to_str()) {
        Some("supervise") => supervise(arguments.collect()),
        Some("serve") => serve(arguments.collect()),
        _ => Err(io::Error::other("the host starts this command by itself; it is of no use to people")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "taskbay postgres-child: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the server and stops it when nobody uses it any more.
fn supervise(arguments: Vec<OsString>) -> io::Result<()> {
    let [folder, postgres, socket_folder, port] =
        <[OsString; 4]>::try_from(arguments).map_err(|_| io::Error::other("wrong arguments"))?;
    let (folder, socket_folder) = (PathBuf::from(folder), PathBuf::from(socket_folder));
    // Out of the terminal's reach, whose Ctrl-C is for the host: it still has jobs to finish.
    setsid()?;
    env::set_current_dir("/")?;
    let account = account::for_server().map_err(io::Error::other)?;

    let open = |name: &str| OpenOptions::new().read(true).write(true).open(folder.join(name));
    let mut create = OpenOptions::new();
    create.read(true).write(true).create(true).truncate(false).mode(0o600);
    let running = create.open(folder.join(SERVER))?;
    if !try_lock(&running, FlockOperation::NonBlockingLockExclusive)? {
        return Err(io::Error::other("a server runs already"));
    }
    // All processes of the server inherit the lock.
    fcntl_setfd(&running, FdFlags::empty())?;
    let users = open(USERS)?;
    let log = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(folder.join("log"))?;

    let mut server = command("/proc/self/exe", account);
    server.arg0("taskbay").args(["postgres-child", "serve"]).arg(std::process::id().to_string()).arg(postgres);
    server.args(settings(&folder, &socket_folder, &port));
    server.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut server = server.spawn()?;
    let pid = Pid::from_child(&server);
    thread::spawn(move || {
        if wait_for_lock(&users, FlockOperation::LockExclusive).is_ok() {
            stop(pid);
        }
        // The lock is held to the end of this process: whoever comes now waits for it and then starts anew.
        thread::park();
        drop(users);
    });
    server.wait()?;
    if !socket_folder.starts_with(&folder) {
        let _ = fs::remove_dir(&socket_folder);
    }
    Ok(())
}

/// The server's settings, given on its command line so that the data stay as `initdb` makes them.
fn settings(folder: &Path, socket_folder: &Path, port: &OsString) -> Vec<OsString> {
    let set = |name: &str, value: &Path| {
        let mut setting = OsString::from(format!("{name}="));
        setting.push(value);
        ["-c".into(), setting]
    };
    let mut arguments: Vec<OsString> = vec!["-D".into(), folder.join("data").into(), "-p".into(), port.clone()];
    arguments.extend(set("hba_file", &folder.join("pg_hba.conf")));
    arguments.extend(set("unix_socket_directories", &quoted(socket_folder)));
    arguments.extend(set("listen_addresses", Path::new("127.0.0.1")));
    arguments.extend(set("password_encryption", Path::new("scram-sha-256")));
    // Restarts of the server after a crash of one of its processes are its own matter; its log goes where ours put it.
    arguments.extend(set("logging_collector", Path::new("off")));
    arguments
}

/// The setting is a list: a comma or a blank in a path must not divide it.
fn quoted(path: &Path) -> PathBuf {
    let mut quoted = OsString::from("\"");
    quoted.push(path.to_string_lossy().replace('"', "\"\"").as_str());
    quoted.push("\"");
    quoted.into()
}

fn stop(server: Pid) {
    for (signal, wait) in STOPPING {
        // The main thread ends this process once the server has ended.
        if kill_process(server, signal).is_err() {
            return;
        }
        thread::sleep(wait);
    }
}

/// Becomes the server. Asks the kernel to stop it with its supervisor; a change of user would undo that, so it is done
/// here, after it.
fn serve(mut arguments: Vec<OsString>) -> io::Result<()> {
    if arguments.len() < 2 {
        return Err(io::Error::other("wrong arguments"));
    }
    let supervisor = arguments.remove(0);
    let postgres = arguments.remove(0);
    set_parent_process_death_signal(Some(Signal::INT))?;
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get().to_string());
    if parent.as_deref() != supervisor.to_str() {
        return Err(io::Error::other("the supervisor ended before the server began"));
    }
    Err(Command::new(postgres).args(arguments).exec())
}
