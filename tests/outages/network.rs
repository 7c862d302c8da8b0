//! A network that is slow, forgets connections, loses answers or finds no names.

use std::{env, ffi::OsStr, fs, process::Command, time::Duration};

use serde_json::Value;
use taskbay::queue::{Database, DatabaseSettings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{Place, STREAM, survive, wait_until_drained};
use crate::harness::{program::DEADLINE, proxy::Way};

/// Somebody in between, such as a firewall, has forgotten all connections of a host that had nothing to do, so that none of them
/// would have told it.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_rested_are_forgotten() {
    let place = Place::new(&[]).await;
    let host = place.host().await;
    place.add_stream(50).await;
    wait_until_drained(&place.cluster).await;
    let listened = host.events("listening").len();
    place.proxy.forget();
    host.nth_event(&["listening"], listened + 1).await;
    let job = place.add(&place.cluster).await;
    place.wait_for("ended", job).await;
    wait_until_drained(&place.cluster).await;
    assert!(place.ledger.runs().values().all(|runs| *runs == 1));
    host.stop().await;
}

/// The host has a file of names of its own, in which the server's name is missing for a while.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_name_is_not_found() {
    let flags = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let folder = tempfile::tempdir().expect("a folder");
    let (names, resolver) = (folder.path().join("hosts"), folder.path().join("resolv.conf"));
    fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").expect("write resolv.conf");
    let known = "127.0.0.1 localhost database.invalid\n";
    fs::write(&names, known).expect("write the names");
    let script = "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/resolv.conf && shift 2 && exec \"$@\"";
    let args = [OsStr::new(flags), "sh".as_ref(), "-c".as_ref(), script.as_ref(), "sh".as_ref()];
    let args: Vec<&OsStr> = args.into_iter().chain([names.as_os_str(), resolver.as_os_str()]).collect();
    let works = Command::new("unshare").args(&args).arg("true").output().is_ok_and(|output| output.status.success());
    if !works {
        assert!(env::var_os("CI").is_none(), "this would not be tested: no unshare {flags}, mount");
        eprintln!("not tested: this machine gives no process a file of names of its own (unshare {flags}, mount)");
        return;
    }
    let place = Place::new(&[]).await;
    let url = format!("postgres://postgres@database.invalid:{}/jobs", place.proxy.port());
    let host = place.command(&url).below("unshare", &args).listening().await;
    let away = async || {
        fs::write(&names, "127.0.0.1 localhost\n").expect("write the names");
        place.proxy.cut();
        let unknown = |line: &Value| line["message"].as_str().is_some_and(|m| m.contains("its address"));
        host.event("database_trouble", unknown).await;
    };
    let back = async || fs::write(&names, known).expect("write the names");
    survive(&place, &host, away, back, &place.cluster).await;
    host.stop().await;
}

/// Each answer takes its time; that is no outage.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_is_no_outage() {
    let place = Place::new(&[]).await;
    place.proxy.set(Way::Delay(Duration::from_millis(100))).await;
    let host = place.host().await;
    place.add_stream(STREAM).await;
    wait_until_drained(&place.cluster).await;
    assert_eq!(host.events("database_trouble"), Vec::<Value>::new());
    assert!(place.ledger.runs().values().all(|runs| *runs == 1));
    assert_eq!(place.ledger.runs().len() as i64, STREAM);
    host.stop().await;
}

/// Claims that the server has carried out and of which the host never heard are not left locked for as long as it lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_was_lost_is_made_good() {
    let place = Place::new(&[]).await;
    let url = place.cluster.url_by(place.proxy.port());
    let host = place.command(&url).args(["--claim", "marked"]).listening().await;
    for round in 1..=10 {
        place.add_stream(STREAM / 10).await;
        place.ledger.wait_for(round * 200).await;
        place.proxy.cut();
    }
    wait_until_drained(&place.cluster).await;
    let runs = place.ledger.runs();
    assert!(runs.values().all(|runs| *runs == 1));
    assert_eq!(runs.len() as i64, STREAM);
    host.stop().await;
}

/// A host that waits for this answer for ever claims nothing.
#[tokio::test]
async fn a_server_that_lets_a_host_in_and_answers_nothing_is_not_waited_for_to_show_life() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(listener.local_addr().expect("its address").port()).user("host").dbname("jobs");
    let server = AbortOnDropHandle::new(tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("a connection");
        loop {
            let length = client.read_i32().await.expect("a length");
            let mut message = vec![0; usize::try_from(length).expect("a length") - 4];
            client.read_exact(&mut message).await.expect("a message");
            // A request for TLS, which this server has not.
            if message != 80_877_103_i32.to_be_bytes() {
                break;
            }
            client.write_all(b"N").await.expect("answer");
        }
        client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.expect("let it in");
        std::future::pending::<()>().await;
    }));
    let database = Database::new(DatabaseSettings::new(config, "graphile_worker")).expect("settings");
    let shown = timeout(DEADLINE, database.show_life("taskbay-live-test")).await.expect("it ends");
    let error = shown.expect_err("nobody has answered").to_string();
    assert!(error.contains("has not answered for 8 s"), "{error}");
    drop(server);
}
