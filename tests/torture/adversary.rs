//! Does harm, one thing after the other, some of them at the same time, and makes up for it later.

use std::{fs, time::Duration};

use rand::{Rng, rngs::StdRng};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::{
    arena::{Arena, FILE, HOSTS},
    harm::Harms,
};
use crate::harness::{
    cluster::End,
    plugins::{build_that, install},
    processes::children_of,
    proxy::Way,
};

/// What makes up for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relief {
    Start(usize),
    Continue(usize),
    Pass(usize),
    Postgres,
    ClockOfPostgres,
    Good,
}

const MINUTE: i64 = 60;
/// The clock of Postgres is at most so far ahead or behind. So no lock looks four hours old, which by graphile-worker's rule would
/// make it void; there is half an hour left for those that are.
const POSTGRES_JUMPS: i64 = 105 * MINUTE;
/// After an end of the server nobody is taken for dead for half a minute. So that this happens here at all, the server ends only in
/// this part of each minute.
const SERVER_ENDS: std::ops::Range<u64> = 35..50;
/// Nothing follows from a host's own clock.
const HOST_JUMPS: i64 = 24 * 60 * MINUTE;

pub(super) struct Adversary {
    random: StdRng,
    began: Instant,
    due: Vec<(Instant, Relief)>,
    pub(super) harm: Harms,
    /// What was done, and how often.
    pub(super) done: std::collections::BTreeMap<&'static str, usize>,
}

impl Adversary {
    pub(super) fn new(random: StdRng) -> Self {
        Self { random, began: Instant::now(), due: Vec::new(), harm: Harms::default(), done: Default::default() }
    }

    /// Makes up for what is due, does one more thing, and lets a moment pass.
    pub(super) async fn strike(&mut self, arena: &mut Arena) {
        let now = Instant::now();
        while let Some(place) = self.due.iter().position(|(due, _)| *due <= now) {
            let (_, relief) = self.due.remove(place);
            self.relieve(arena, relief).await;
        }
        arena.start_node().await;
        let slot = self.random.random_range(0..HOSTS);
        let thing = self.random.random_range(0..130);
        match thing {
            0..10 => self.kill_host(arena, slot),
            10..18 => self.kill_child(arena, slot),
            18..30 => self.stop_host(arena, slot),
            30..42 => self.end_backends(arena, slot).await,
            42..50 | 120..130 => self.end_postgres(arena).await,
            50..58 => self.cut(arena, slot),
            58..72 => self.spoil_path(arena, slot).await,
            72..90 => self.swap(arena),
            90..100 => self.bad_plugin(arena),
            100..110 => self.set_clock_of_host(arena, slot),
            _ => self.set_clock_of_postgres(arena),
        }
        sleep(Duration::from_millis(self.random.random_range(50..700))).await;
    }

    /// Makes up for everything.
    pub(super) async fn make_up(&mut self, arena: &mut Arena) {
        while let Some((_, relief)) = self.due.pop() {
            self.relieve(arena, relief).await;
        }
        arena.clocks.iter().for_each(|clock| clock.set(0));
        arena.install_good();
        arena.install_good_rows();
        println!("{:?}", self.done);
    }

    async fn relieve(&mut self, arena: &mut Arena, relief: Relief) {
        match relief {
            Relief::Start(slot) => arena.start(slot),
            Relief::Continue(slot) => {
                if let Some(host) = &arena.hosts[slot] {
                    host.signal(Signal::CONT);
                    self.ends(slot);
                }
            }
            Relief::Pass(slot) => {
                arena.proxies[slot].set(Way::Pass).await;
                self.ends(slot);
            }
            Relief::Postgres => {
                arena.place.cluster.start_again().await;
                self.harm.note(None);
            }
            Relief::ClockOfPostgres => {
                arena.place.cluster.clock().set(0);
                arena.bring_forward().await;
            }
            Relief::Good => arena.install_good(),
        }
    }

    fn did(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// Unless something else is still done to it.
    fn ends(&mut self, slot: usize) {
        if self.waits_for(Relief::Continue(slot)) || self.waits_for(Relief::Pass(slot)) {
            return;
        }
        self.harm.ends(slot);
    }

    fn later(&mut self, ms: std::ops::Range<u64>, relief: Relief) {
        let when = Instant::now() + Duration::from_millis(self.random.random_range(ms));
        self.due.push((when, relief));
    }

    fn waits_for(&self, relief: Relief) -> bool {
        self.due.iter().any(|(_, due)| *due == relief)
    }

    fn kill_host(&mut self, arena: &mut Arena, slot: usize) {
        // What is still to be done for it is not to meet the next one.
        if arena.kill(slot) {
            self.due.retain(|(_, relief)| *relief != Relief::Continue(slot));
            self.ends(slot);
            self.later(0..4_000, Relief::Start(slot));
            self.harm.kills(slot);
            self.did("hosts killed");
        }
    }

    fn kill_child(&mut self, arena: &Arena, slot: usize) {
        let Some(host) = &arena.hosts[slot] else { return };
        self.harm.kills(slot);
        if let Some((child, _)) = children_of(host.id()).first()
            && let Some(child) = i32::try_from(*child).ok().and_then(Pid::from_raw)
        {
            // It may have ended by itself a moment ago.
            let _ = kill_process(child, Signal::KILL);
            self.did("children killed");
        }
    }

    fn stop_host(&mut self, arena: &Arena, slot: usize) {
        let Some(host) = &arena.hosts[slot] else { return };
        if !self.waits_for(Relief::Continue(slot)) {
            host.signal(Signal::STOP);
            self.harm.begins(slot);
            self.later(200..8_000, Relief::Continue(slot));
            self.did("hosts stopped");
        }
    }

    async fn end_backends(&mut self, arena: &Arena, slot: usize) {
        let Ok(client) = arena.place.cluster.try_client("jobs").await else { return };
        let modulus = self.random.random_range(1..4);
        let sql = format!(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where application_name = 'host{slot}' and pid % {modulus} = 0"
        );
        let _ = client.batch_execute(&sql).await;
        self.harm.note(Some(slot));
        self.did("backends ended");
    }

    async fn end_postgres(&mut self, arena: &Arena) {
        if SERVER_ENDS.contains(&(self.began.elapsed().as_secs() % 60)) && !self.waits_for(Relief::Postgres) {
            let how = [End::Fast, End::Immediate, End::Kill][self.random.random_range(0..3)];
            arena.place.cluster.end(how).await;
            self.harm.note(None);
            self.later(0..3_000, Relief::Postgres);
            self.did("servers ended");
        }
    }

    fn cut(&mut self, arena: &Arena, slot: usize) {
        arena.proxies[slot].cut();
        self.harm.note(Some(slot));
        self.did("connections cut");
    }

    async fn spoil_path(&mut self, arena: &Arena, slot: usize) {
        if self.waits_for(Relief::Pass(slot)) {
            return;
        }
        let (way, ms, what) = match self.random.random_range(0..3) {
            0 => (Way::Delay(Duration::from_millis(50)), 500..3_000, "paths slowed"),
            1 => (Way::Swallow, 500..12_000, "paths that swallowed"),
            _ => (Way::Refuse, 500..4_000, "paths closed"),
        };
        arena.proxies[slot].set(way).await;
        if !matches!(way, Way::Delay(_)) {
            self.harm.begins(slot);
        }
        self.later(ms, Relief::Pass(slot));
        self.did(what);
    }

    fn swap(&mut self, arena: &mut Arena) {
        if self.random.random() {
            arena.install_good()
        } else {
            arena.install_good_rows()
        }
        self.did("plugins swapped");
    }

    /// Which is no harm.
    fn set_clock_of_host(&mut self, arena: &Arena, slot: usize) {
        arena.clocks[slot].set(self.random.random_range(-HOST_JUMPS..HOST_JUMPS));
        self.did("clocks of hosts set");
    }

    /// Nor is this, but what is not due by it waits.
    fn set_clock_of_postgres(&mut self, arena: &Arena) {
        if !self.waits_for(Relief::ClockOfPostgres) {
            arena.place.cluster.clock().set(self.random.random_range(-POSTGRES_JUMPS..POSTGRES_JUMPS));
            self.later(200..4_000, Relief::ClockOfPostgres);
            self.did("clocks of Postgres set");
        }
    }

    fn bad_plugin(&mut self, arena: &Arena) {
        let folder = arena.place.folder.path();
        match self.random.random_range(0..5) {
            0 => install(folder, FILE, b"this is no plugin"),
            1 => install(folder, FILE, &build_that("load-crash")),
            2 => install(folder, FILE, &build_that("start-fail")),
            3 => install(folder, FILE, &build_that("start-crash")),
            // Cut off in the middle of being written.
            _ => fs::write(folder.join(FILE), &build_that("normal")[..20_000]).expect("write half a plugin"),
        }
        if !self.waits_for(Relief::Good) {
            self.later(100..2_000, Relief::Good);
        }
        self.did("bad plugins");
    }
}
