//! What is known of a tasks folder. Its methods are in the files of their subjects.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    LiveTaskMap,
    folder_error::FolderError,
    handle::Request,
    known_file::KnownFile,
    launched::{Held, Launched},
    notices::Notices,
    scanner::Scans,
    trust::Trust,
};
use crate::{
    config::{FolderSettings, PluginLookup},
    events::Event,
    parts::Part,
    plugin::{Generation, HostServices},
};

/// So many builds are started at once.
const LAUNCHES_AT_ONCE: usize = 4;

/// The tasks folder, from its first listing to the end of its last build.
#[derive(Debug)]
pub struct TasksFolder {
    pub(super) settings: FolderSettings,
    /// As of the last scan.
    pub(super) trust: Trust,
    pub(super) plugins: PluginLookup,
    pub(super) services: HostServices,
    pub(super) part: Part,
    pub(super) map: Arc<LiveTaskMap>,
    pub(super) files: BTreeMap<String, KnownFile>,
    pub(super) scans: Scans,
    /// What the next scan reads although it may not have changed.
    pub(super) asked: BTreeSet<String>,
    pub(super) launches: JoinSet<Launched>,
    pub(super) launch_slots: Arc<Semaphore>,
    pub(super) last_launch: u64,
    pub(super) held: Vec<Held>,
    /// Replaced and removed builds that finish their jobs.
    pub(super) draining: Vec<Arc<Generation>>,
    /// Gives each of them when it has ended.
    pub(super) retiring: JoinSet<Arc<Generation>>,
    /// A build crashed, came back, or was quarantined.
    pub(super) availability: Arc<Notify>,
    /// Replaced and removed builds that are still in the map, and what is to be said when they no longer are.
    pub(super) outgoing: Vec<Arc<Generation>>,
    pub(super) news: Vec<Event>,
    /// It has been listed once, so that an error no longer ends the start.
    pub(super) listed: bool,
    /// Since when the folder cannot be used, and why.
    pub(super) unusable: Option<(Instant, FolderError)>,
    pub(super) notices: Notices,
    /// What others ask.
    pub(super) requests: mpsc::UnboundedReceiver<Request>,
}

impl TasksFolder {
    pub fn new(settings: FolderSettings, plugins: PluginLookup, services: HostServices, map: Arc<LiveTaskMap>) -> Self {
        Self {
            trust: Trust::of(&settings),
            scans: Scans::new(&settings),
            settings,
            plugins,
            part: services.events.parts().part("tasks folder"),
            notices: Notices::new(services.events.clone()),
            services,
            map,
            files: BTreeMap::new(),
            asked: BTreeSet::new(),
            launches: JoinSet::new(),
            launch_slots: Arc::new(Semaphore::new(LAUNCHES_AT_ONCE)),
            last_launch: 0,
            held: Vec::new(),
            draining: Vec::new(),
            retiring: JoinSet::new(),
            availability: Arc::new(Notify::new()),
            outgoing: Vec::new(),
            news: Vec::new(),
            listed: false,
            unusable: None,
            requests: mpsc::unbounded_channel().1,
        }
    }
}
