//! Stands between a host and Postgres, counts what the two say to each other, and does harm at a message that it was given.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_util::sync::CancellationToken;

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToServer,
    ToHost,
}

/// What is done at a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    /// It and all that follows never arrives: both connections are closed.
    Cut,
    /// The host's connection is closed; what it had sent arrives all the same, after this time.
    Late(Duration),
    /// Nothing goes on for this time.
    Hold(Duration),
}

/// When what is done.
#[derive(Debug, Clone, Copy)]
struct Plan {
    way: Way,
    /// So many messages go this way before it.
    before: usize,
    harm: Harm,
}

#[derive(Debug, Default)]
struct Shared {
    plan: Mutex<Option<Plan>>,
    messages: AtomicU64,
}

/// A connection of a host.
#[derive(Debug)]
struct Link {
    shared: Arc<Shared>,
    /// It works jobs: it is not one that only listens, or shows life.
    works: AtomicBool,
    /// The host's side is closed.
    cut: CancellationToken,
    /// So is the server's.
    over: CancellationToken,
}

/// The proxy, for as long as the test's runtime lives.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Leads to a server on this machine.
    pub(super) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::<Shared>::default();
        let of_links = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((host, _)) = listener.accept().await {
                let shared = Arc::clone(&of_links);
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let (works, cut, over) =
                        (AtomicBool::new(false), CancellationToken::new(), CancellationToken::new());
                    let link = Arc::new(Link { shared, works, cut, over });
                    let ((from_host, to_host), (from_server, to_server)) = (host.into_split(), server.into_split());
                    tokio::spawn(pump(Arc::clone(&link), Way::ToServer, from_host, to_server));
                    tokio::spawn(pump(link, Way::ToHost, from_server, to_host));
                });
            }
        });
        Self { port, shared }
    }

    /// From now on counts messages that go this way on connections that work jobs, and does harm to the one after so many.
    pub(super) fn plan(&self, way: Way, before: usize, harm: Harm) {
        *self.shared.plan.lock().unwrap() = Some(Plan { way, before, harm });
    }

    /// Plans nothing any more. Tells whether what was planned has been done.
    pub(super) fn was_done(&self) -> bool {
        self.shared.plan.lock().unwrap().take().is_none()
    }

    /// Whether nothing is planned any more.
    pub(super) fn is_done(&self) -> bool {
        self.shared.plan.lock().unwrap().is_none()
    }

    /// Waits until nobody has said anything for a while.
    pub(super) async fn quiet(&self) {
        let mut before = u64::MAX;
        loop {
            let now = self.shared.messages.load(Ordering::Relaxed);
            if std::mem::replace(&mut before, now) == now {
                return;
            }
            // Silence sends no event.
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }
}

impl Link {
    /// What is to be done at this message.
    fn meets(&self, way: Way) -> Option<Harm> {
        if !self.works.load(Ordering::Relaxed) {
            return None;
        }
        self.shared.messages.fetch_add(1, Ordering::Relaxed);
        let mut plan = self.shared.plan.lock().unwrap();
        let planned = plan.as_mut().filter(|plan| plan.way == way)?;
        if planned.before > 0 {
            planned.before -= 1;
            return None;
        }
        plan.take().map(|plan| plan.harm)
    }
}

async fn pump(link: Arc<Link>, way: Way, from: OwnedReadHalf, to: OwnedWriteHalf) {
    // Whoever ends first ends the other one.
    let _ = link.over.clone().run_until_cancelled(carry(&link, way, from, to)).await;
    link.cut.cancel();
    link.over.cancel();
}

async fn carry(link: &Link, way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    let mut waiting = Vec::new();
    let mut began = way == Way::ToHost;
    loop {
        while let Some(length) = length(&waiting, began) {
            began = true;
            let message: Vec<u8> = waiting.drain(..length).collect();
            if way == Way::ToServer && message.windows(13).any(|part| part == b"_private_jobs") {
                link.works.store(true, Ordering::Relaxed);
            }
            match link.meets(way) {
                None => {}
                Some(Harm::Cut) => return Ok(()),
                Some(Harm::Hold(time)) => tokio::time::sleep(time).await,
                Some(Harm::Late(time)) => {
                    link.cut.cancel();
                    tokio::time::sleep(time).await;
                    to.write_all(&message).await?;
                    to.write_all(&waiting).await?;
                    // The server reads it before it sees the end.
                    return to.shutdown().await;
                }
            }
            to.write_all(&message).await?;
        }
        if way == Way::ToHost && link.cut.is_cancelled() {
            // Nobody is there to hear it.
            let mut nowhere = [0; 4096];
            while from.read(&mut nowhere).await? > 0 {}
            return Ok(());
        }
        let read = tokio::select! {
            read = from.read_buf(&mut waiting) => read?,
            () = link.cut.cancelled(), if way == Way::ToHost => {
                to.shutdown().await?;
                continue;
            }
        };
        if read == 0 {
            return Ok(());
        }
    }
}

/// How long the first message is, if it is there. The very first one of a host has no type.
fn length(bytes: &[u8], began: bool) -> Option<usize> {
    let kind = usize::from(began);
    let length = u32::from_be_bytes(*bytes.get(kind..)?.first_chunk()?) as usize + kind;
    (bytes.len() >= length).then_some(length)
}
