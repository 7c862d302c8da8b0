//! The runner in a separate process: keeps a process of a build running, despite crashes, until the build is retired.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::{sync::watch, time::sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Accepted, Availability, HostServices, Image, JobInput, LaunchError, ManifestInfo, PluginSettings,
    calls::Call,
    connection::{Connection, Start},
    process::{Ending, Process},
    restarts::{Next, Restarts},
};
use crate::events::{Event, PluginBuild};

/// A plugin in a separate process, which is restarted after a crash.
#[derive(Debug)]
pub(super) struct Child {
    /// The connection to the serving process, if there is one.
    current: Arc<ArcSwapOption<Connection>>,
    /// The order for the supervisor. Dropping it kills the process.
    orders: watch::Sender<Order>,
    /// Cancelled when the supervisor and the last process have ended.
    gone: CancellationToken,
    _supervisor: AbortOnDropHandle<()>,
}

/// The order for the process; a later one replaces the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Order {
    /// Serve, and restart after a crash.
    Serve,
    /// Finish the running jobs; do not restart.
    Drain,
    /// End within this time.
    ShutDown(Duration),
    /// End now.
    Kill,
}

impl Child {
    /// Starts the first process. `availability` receives every later change, after `crashes` is updated.
    pub(super) async fn launch(
        image: Arc<Image>,
        settings: &PluginSettings,
        services: &HostServices,
        availability: watch::Sender<Availability>,
        crashes: Arc<AtomicU32>,
    ) -> Result<(Self, ManifestInfo), LaunchError> {
        let (process, manifest) = Process::start(&image, settings, services).await?;
        let current = Arc::new(ArcSwapOption::from(Some(Arc::clone(&process.connection))));
        let (orders, heard) = watch::channel(Order::Serve);
        let gone = CancellationToken::new();
        let supervisor = Supervisor {
            build: PluginBuild { plugin: image.plugin.clone(), build: image.build },
            image,
            settings: settings.clone(),
            services: services.clone(),
            availability,
            current: Arc::clone(&current),
            orders: heard,
            restarts: Restarts::default(),
            crashes,
        };
        let ended = gone.clone().drop_guard();
        let task = services.events.parts().spawn("supervisor of a plugin's process", async move {
            let _ended = ended;
            supervisor.supervise(process).await;
        });
        Ok((Self { current, orders, gone, _supervisor: AbortOnDropHandle::new(task) }, manifest))
    }

    /// Starts a job; an error if the job is too large to send. The returned connection is the one for its cancellation.
    pub(super) fn start(
        &self,
        task: u32,
        job: &JobInput<'_>,
        timeout: Option<Duration>,
        accepted: Accepted<'_>,
    ) -> Result<Start<(Call, Arc<Connection>)>, String> {
        let Some(connection) = self.current.load_full() else { return Ok(Start::Gone) };
        Ok(match connection.start(task, job, timeout, accepted)? {
            Start::Begun(call) => Start::Begun((call, connection)),
            Start::Gone => Start::Gone,
            Start::Full => Start::Full,
        })
    }

    /// Waits until the process can accept more data, or is gone.
    pub(super) async fn room(&self) {
        if let Some(connection) = self.current.load_full() {
            connection.room().await;
        }
    }

    /// Prevents further restarts.
    pub(super) fn drain(&self) {
        self.order(Order::Drain);
    }

    /// Ends the plugin and its process, and kills the process after `limit`.
    pub(super) async fn shutdown(&self, limit: Duration) {
        self.order(Order::ShutDown(limit));
        self.gone.cancelled().await;
    }

    /// Ends the process at once.
    pub(super) async fn kill(&self) {
        self.order(Order::Kill);
        self.gone.cancelled().await;
    }

    fn order(&self, order: Order) {
        self.orders.send_if_modified(|current| {
            let later = *current < order;
            if later {
                *current = order;
            }
            later
        });
    }
}

struct Supervisor {
    build: PluginBuild,
    image: Arc<Image>,
    settings: PluginSettings,
    services: HostServices,
    availability: watch::Sender<Availability>,
    current: Arc<ArcSwapOption<Connection>>,
    orders: watch::Receiver<Order>,
    restarts: Restarts,
    crashes: Arc<AtomicU32>,
}

impl Supervisor {
    /// Returns when the last process is gone.
    async fn supervise(mut self, first: Process) {
        let mut process = first;
        loop {
            let up_since = Instant::now();
            let Some((reason, in_flight)) = self.watch(&mut process).await else { return };
            let Some(next) = self.recover(reason, in_flight, up_since.elapsed()).await else { return };
            process = next;
            self.current.store(Some(Arc::clone(&process.connection)));
            self.availability.send_replace(Availability::Serving);
            self.services.events.emit(Event::PluginRestarted { build: self.build.clone() });
        }
    }

    /// Waits for a crash of the process, and returns its reason and the number of failed jobs; or for the order to end the
    /// process, and executes it.
    async fn watch(&mut self, process: &mut Process) -> Option<(String, usize)> {
        loop {
            tokio::select! {
                ending = process.ended() => {
                    self.crashes.fetch_add(1, Ordering::Release);
                    // Set before the jobs fail, so that an observer of a failed job does not see the process as serving.
                    self.availability.send_replace(Availability::Restarting);
                    let in_flight = self.fail_calls(process, &ending);
                    return Some((format!("its process {ending}"), in_flight));
                }
                order = next_order(&mut self.orders) => match order {
                    Order::Serve | Order::Drain => {}
                    Order::ShutDown(limit) => {
                        let mut orders = self.orders.clone();
                        tokio::select! {
                            () = process.shut_down(limit) => {}
                            () = wait_for(&mut orders, Order::Kill) => process.kill().await,
                        }
                        self.fail_calls(process, &Ending::new("was shut down"));
                        return None;
                    }
                    Order::Kill => {
                        process.kill().await;
                        self.fail_calls(process, &Ending::new("was stopped"));
                        return None;
                    }
                },
            }
        }
    }

    fn fail_calls(&self, process: &Process, ending: &Ending) -> usize {
        self.current.store(None);
        process.connection.fail_calls(&ending.under_a_job(&self.build))
    }

    /// Starts another process, with any number of tries; `None` after an order not to.
    async fn recover(&mut self, mut reason: String, mut in_flight: usize, healthy: Duration) -> Option<Process> {
        let mut next = self.restarts.crashed(Instant::now(), healthy);
        loop {
            if *self.orders.borrow() > Order::Serve {
                return None;
            }
            let delay = match next {
                Next::RestartIn(delay) => delay,
                Next::Quarantine => {
                    self.availability.send_replace(Availability::Quarantined { reason: reason.clone() });
                    self.services.events.emit(Event::PluginQuarantined { build: self.build.clone(), reason });
                    wait_for(&mut self.orders, Order::Drain).await;
                    return None;
                }
            };
            self.services.events.emit(Event::PluginCrashed {
                build: self.build.clone(),
                reason: reason.clone(),
                in_flight,
                restart_in: delay,
            });
            let mut orders = self.orders.clone();
            let started = tokio::select! {
                started = async {
                    sleep(delay).await;
                    Process::start(&self.image, &self.settings, &self.services).await
                } => started,
                () = wait_for(&mut orders, Order::Drain) => return None,
            };
            match started {
                Ok((process, _)) => return Some(process),
                Err(error) => {
                    next = if error.is_passing() {
                        self.restarts.did_not_start()
                    } else {
                        self.restarts.crashed(Instant::now(), Duration::ZERO)
                    };
                    reason = format!("it did not come up again: {error}");
                    in_flight = 0;
                }
            }
        }
    }
}

/// The next order other than `Serve`; a dropped sender counts as `Kill`.
async fn next_order(orders: &mut watch::Receiver<Order>) -> Order {
    match orders.changed().await {
        Ok(()) => *orders.borrow_and_update(),
        Err(_) => Order::Kill,
    }
}

/// Waits for this order or a stronger one.
async fn wait_for(orders: &mut watch::Receiver<Order>, least: Order) {
    // An error means that the sender was dropped, which is an order to end.
    let _ = orders.wait_for(|order| *order >= least).await;
}
