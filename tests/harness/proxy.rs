//! What lies between a host and its server, and can fail in ways in which neither of them does.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// What it does with what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Pass,
    /// Each piece comes so much later.
    Delay(Duration),
    /// Nothing arrives any more, and no connection ends. One that has lost something in this way is lost for good.
    Swallow,
    /// Nobody listens. Connections that are there go on.
    Refuse,
}

/// A proxy on a port of its own.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    way: watch::Sender<Way>,
    target: watch::Sender<u16>,
    cuts: watch::Sender<u64>,
    forgotten: watch::Sender<u64>,
    listens: watch::Receiver<bool>,
    _running: AbortOnDropHandle<()>,
}

impl Proxy {
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the proxy");
        let port = listener.local_addr().expect("its address").port();
        let (way, ways) = watch::channel(Way::Pass);
        let (target, to) = watch::channel(to);
        let (cuts, cut) = watch::channel(0);
        let (forgotten, forget) = watch::channel(0);
        let (say, listens) = watch::channel(true);
        let running = tokio::spawn(serve(listener, (port, to), ways, (cut, forget), say));
        Self { port, way, target, cuts, forgotten, listens, _running: AbortOnDropHandle::new(running) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on. Returns when it is so.
    pub async fn set(&self, way: Way) {
        self.way.send_replace(way);
        let mut listens = self.listens.clone();
        listens.wait_for(|listens| *listens == (way != Way::Refuse)).await.expect("the proxy runs");
    }

    /// New connections go to another server.
    pub fn aim(&self, to: u16) {
        self.target.send_replace(to);
    }

    /// Lets nothing through any more on the connections that are there, without ending them. New ones work.
    pub fn forget(&self) {
        self.forgotten.send_modify(|forgotten| *forgotten += 1);
    }

    /// Ends all connections that are there.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn serve(
    first: TcpListener,
    (port, to): (u16, watch::Receiver<u16>),
    mut ways: watch::Receiver<Way>,
    (cut, forget): (watch::Receiver<u64>, watch::Receiver<u64>),
    say: watch::Sender<bool>,
) {
    let mut listener = Some(first);
    let mut connections = JoinSet::new();
    loop {
        let refuses = *ways.borrow_and_update() == Way::Refuse;
        if refuses {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(("127.0.0.1", port)).await.expect("its port is still free"));
        }
        say.send_replace(!refuses);
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = ways.changed() => if changed.is_err() { return },
            Ok((client, _)) = accepted => {
                connections.spawn(connect(client, *to.borrow(), ways.clone(), cut.clone(), forget.clone()));
            }
        }
    }
}

async fn connect(
    client: TcpStream,
    to: u16,
    ways: watch::Receiver<Way>,
    mut cut: watch::Receiver<u64>,
    mut forget: watch::Receiver<u64>,
) {
    cut.mark_unchanged();
    forget.mark_unchanged();
    let lost = Arc::new(watch::Sender::new(false));
    let both = async {
        if *ways.borrow() == Way::Swallow {
            lost.send_replace(true);
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        // Whoever ends first ends both, unless the end is swallowed as well.
        tokio::select! {
            () = pass(from_client, to_server, ways.clone(), &lost) => {}
            () = pass(from_server, to_client, ways.clone(), &lost) => {}
        }
    };
    let forgotten = async {
        let _ = forget.changed().await;
        lost.send_replace(true);
        std::future::pending().await
    };
    tokio::select! {
        () = both => {}
        () = forgotten => {}
        _ = cut.changed() => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, ways: watch::Receiver<Way>, lost: &watch::Sender<bool>) {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut piece).await;
        let way = *ways.borrow();
        if way == Way::Swallow {
            lost.send_replace(true);
        }
        match read {
            _ if *lost.borrow() => match read {
                Ok(count) if count > 0 => {}
                // Nobody hears of this end.
                _ => return std::future::pending().await,
            },
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if let Way::Delay(time) = way {
                    tokio::time::sleep(time).await;
                }
                if to.write_all(&piece[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
