//! A real pgbouncer in transaction mode, which hands out another server connection for each transaction.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
    wait::{until, until_true},
};

pub(super) struct Pooler {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Pooler {
    async fn start(database: &TestDatabase) -> Self {
        Self::start_with(database, "select 1").await
    }

    /// `query` is run on each connection that it makes to the server.
    pub(super) async fn start_with(database: &TestDatabase, query: &str) -> Self {
        Self::start_as(&database.config(), query, "").await
    }

    /// For one user, with further settings.
    pub(super) async fn start_as(config: &tokio_postgres::Config, query: &str, settings: &str) -> Self {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let program = program.iter().find(|path| Path::new(path).exists());
        let program = program.expect("the tests need pgbouncer: apt-get install pgbouncer");
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("open it to the pooler");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={} connect_query='{}'\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 200\n\
             ignore_startup_parameters = extra_float_digits\n{settings}",
            config.get_ports()[0],
            query.replace('\'', "''")
        );
        // Any user by any name: `any` needs one for the server's side.
        let text = text.replace("port=", &format!("user={} port=", config.get_user().expect("a user")));
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, text).expect("write its settings");
        let mut command = Command::new(program);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        let process = command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start pgbouncer");
        let this = Self { process, port, _folder: folder };
        let listens = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        until_true("pgbouncer listens", listens).await;
        this
    }

    pub(super) fn config(&self, database: &TestDatabase) -> tokio_postgres::Config {
        self.url(database).parse().expect("its own address")
    }

    pub(super) fn url(&self, database: &TestDatabase) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, database.config().get_dbname().expect("a name"))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_worked_behind_a_pooler_in_transaction_mode() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let pooler = Pooler::start(&database).await;
    let host = Taskbay::run(&pooler.url(&database), folder.path())
        .args(["--no-prepared-statements", "--no-listen", "--no-liveness", "--poll-interval", "50ms", "-j", "8"])
        .spawn();
    host.event("worker_ready", |_| true).await;
    for n in 0..200 {
        database.add_to_queue("nothing", json!({}), &format!("q{}", n % 5)).await;
    }
    let failed = database.add("fail", json!({"message": "no luck"})).await;
    database.add("add", json!({"identifier": "nothing"})).await;
    host.event("job_failed", |line| line["job"] == failed).await;
    let unfinished = "select count(*) from graphile_worker._private_jobs where attempts = 0 or locked_at is not null";
    until("all jobs have run", async || match database.id_of(unfinished, &[]).await {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
    assert_eq!(host.events("database_trouble").len(), 0, "{:?}", host.events("database_trouble"));
    host.stop().await;
}

/// Listening goes on asking a server connection that is soon somebody else's; that may cost latency, but no job.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_listens_behind_a_pooler_says_that_nothing_arrives_and_polls() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let pooler = Pooler::start(&database).await;
    let host = Taskbay::run(&pooler.url(&database), folder.path())
        .args(["--no-prepared-statements", "--poll-interval", "50ms"])
        .spawn();
    let id = database.add("nothing", json!({})).await;
    host.event("job_done", |line| line["job"] == id).await;
    let missing = host.event("notifications_missing", |_| true).await;
    assert!(missing["message"].as_str().is_some_and(|text| text.contains("--no-listen")), "{missing}");
    let unseen = host.event("liveness_unavailable", |_| true).await;
    assert!(unseen["message"].as_str().is_some_and(|text| text.contains("--no-liveness")), "{unseen}");
    let id = database.add("nothing", json!({})).await;
    host.event("job_done", |line| line["job"] == id).await;
    host.stop().await;
}
