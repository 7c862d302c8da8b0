//! One fresh Postgres for the whole comparison, as safe against a loss of power as Postgres is by default.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tokio_postgres::{Client, NoTls};

/// All that differs from what `initdb` writes. `fsync`, `synchronous_commit` and `full_page_writes` stay on.
pub const SETTINGS: [&str; 3] = ["shared_buffers=1GB", "max_connections=300", "max_wal_size=8GB"];

const DEADLINE: Duration = Duration::from_secs(60);

/// Stopped and removed when this is dropped, and also when this process is killed.
#[derive(Debug)]
pub struct Server {
    shell: Child,
    port: u16,
}

impl Server {
    /// Makes and starts one in a folder that does not exist yet.
    pub fn start(programs: &Path, folder: &Path) -> Result<Self> {
        let account = unprivileged_account()?;
        fs::create_dir(folder).context("make a folder for Postgres")?;
        if let Some((user, group)) = account {
            chown(folder, Some(user), Some(group)).context("hand the folder of Postgres over")?;
        }
        let mut initdb = Command::new(programs.join("initdb"));
        initdb
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres", "--no-sync", "-D"])
            .arg(folder.join("data"))
            .current_dir(folder);
        let output = as_account(&mut initdb, account).output().context("run initdb")?;
        ensure!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?.port();
        let shell = run(programs, folder, account, port)?;
        let mut server = Self { shell, port };
        server.wait_until_ready(folder)?;
        Ok(server)
    }

    /// For programs.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub async fn connect(&self, database: &str) -> Result<Client> {
        let url = self.url(database);
        let (client, connection) =
            tokio_postgres::connect(&url, NoTls).await.with_context(|| format!("connect to {url}"))?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn wait_until_ready(&mut self, folder: &Path) -> Result<()> {
        let asked = Instant::now();
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        while !log().contains("database system is ready to accept connections") {
            if self.shell.try_wait()?.is_some() || log().contains("FATAL") || asked.elapsed() > DEADLINE {
                bail!("Postgres did not start on port {}:\n{}", self.port, log());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Starts the server below a shell that waits for the end of its input, which comes when this process is gone, even if it
/// was killed. Then the shell stops the server and removes its files.
fn run(programs: &Path, folder: &Path, account: Option<(u32, u32)>, port: u16) -> Result<Child> {
    const SCRIPT: &str = r#"
        trap '' INT TERM HUP
        program=$1 folder=$2 port=$3
        shift 3
        "$program" -D "$folder/data" -k "$folder" -p "$port" -c listen_addresses=127.0.0.1 "$@" \
            >"$folder/log" 2>&1 </dev/null &
        read -r rope
        kill -QUIT $! && wait $!
        rm -rf "$folder"/*
    "#;
    let mut shell = Command::new("sh");
    shell
        .args(["-c", SCRIPT, "bench-postgres"])
        .arg(programs.join("postgres"))
        .arg(folder)
        .arg(port.to_string())
        .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // The terminal's Ctrl-C is for this process, which then stops all others in order.
        .process_group(0);
    as_account(&mut shell, account).spawn().context("start Postgres")
}

/// Postgres refuses to run as root, so root takes another account.
fn unprivileged_account() -> Result<Option<(u32, u32)>> {
    // SAFETY: takes nothing and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = ["postgres", "nobody"].iter().find_map(|wanted| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ensure!(
        found.is_some(),
        "Postgres does not run as root, and there is no account `postgres` or `nobody` to run it as"
    );
    Ok(found)
}

fn as_account(command: &mut Command, account: Option<(u32, u32)>) -> &mut Command {
    if let Some((user, group)) = account {
        command.uid(user).gid(group);
    }
    command
}
