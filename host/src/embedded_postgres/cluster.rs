//! The data of the server: made once, and checked before each start.

use std::{fs, path::Path, process::Stdio};

use super::{
    EmbeddedPostgresError,
    account::command,
    error::files,
    folder::Folder,
    programs::{self, Programs},
};

/// Who may connect: whoever can enter the socket's folder, and on the loopback port whoever knows the password.
const ACCESS: &str = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";

/// Makes the data if there are none, and finds the programs to run them with.
pub(super) fn prepare(folder: &Folder) -> Result<Programs, EmbeddedPostgresError> {
    let data = folder.data();
    let installed = programs::find_all();
    let newest = installed.first().ok_or(EmbeddedPostgresError::NoPrograms)?;
    folder.write("pg_hba.conf", ACCESS.as_bytes(), 0o644)?;
    let programs = match made_by(&data) {
        None => {
            init(folder, newest)?;
            newest
        }
        Some(made) => installed.iter().find(|programs| programs.version == made).ok_or_else(|| {
            let installed = installed.iter().map(|programs| programs.version.to_string()).collect();
            EmbeddedPostgresError::OtherVersion { data: data.clone(), made, installed }
        })?,
    };
    remove_stale_pid(&data)?;
    Ok(programs.clone())
}

/// The version that made the data, if there are any.
fn made_by(data: &Path) -> Option<u32> {
    fs::read_to_string(data.join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// Made beside and renamed, so that what an interrupted start leaves is never taken for a cluster.
fn init(folder: &Folder, programs: &Programs) -> Result<(), EmbeddedPostgresError> {
    let (data, unfinished) = (folder.data(), folder.path().join("data.new"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(files("remove", &unfinished))?;
    }
    folder.make_for_server(&unfinished)?;
    let mut initdb = command(&programs.initdb, folder.account);
    initdb.arg("--pgdata").arg(&unfinished);
    initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]);
    let output = initdb.stdin(Stdio::null()).output().map_err(files("run", &programs.initdb))?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(EmbeddedPostgresError::Init { data, output });
    }
    fs::rename(&unfinished, &data).map_err(files("create", &data))
}

/// A server that was killed leaves its process number behind, which another process may have by now; Postgres would take
/// that one for a server and refuse to start. No server of ours runs, as the caller knows.
fn remove_stale_pid(data: &Path) -> Result<(), EmbeddedPostgresError> {
    let file = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&file) else { return Ok(()) };
    if let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok())
        && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data)
    {
        return Err(EmbeddedPostgresError::Foreign { pid, data: data.to_owned() });
    }
    fs::remove_file(&file).map_err(files("remove", &file))
}
