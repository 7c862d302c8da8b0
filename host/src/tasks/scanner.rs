//! The scanner: lists the folder and reads its files on a thread that may block, and sends what it finds, file by file.
//!
//! It knows what lies in the folder, and nothing of builds that are launched or serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{JoinHandle, spawn_blocking},
};

use super::{
    file_reader::{FileReader, Finding, ReadBy},
    folder::Folder,
    folder_error::FolderError,
    listing::{Kind, Skipped},
    trust::Trust,
    watcher::Watcher,
};
use crate::{blocking::off_the_runtime, config::FolderSettings, events::Events};

/// Links to files elsewhere and the allow-list are read this often, since no event reports a change of them.
const LINKED_RESCAN: Duration = Duration::from_secs(1);

/// What a scan finds. A listing comes first, then the files in the order of their names.
#[derive(Debug)]
pub(super) enum Found {
    Unusable(FolderError),
    Listing(Listed),
    File(String, Finding),
}

/// What lies in the folder.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) files: BTreeMap<String, Kind>,
    pub(super) skipped: BTreeMap<String, Skipped>,
    /// Why the folder would be refused under strict permissions.
    pub(super) warning: Option<String>,
    /// With the allow-list as it is now.
    pub(super) trust: Trust,
    pub(super) list_changed: bool,
}

/// What to scan by.
#[derive(Debug)]
pub(super) struct ScanRequest {
    pub(super) settings: FolderSettings,
    /// Files to report on even if they have not changed.
    pub(super) asked: BTreeSet<String>,
}

/// The scanner, and the scan that runs, if one does.
#[derive(Debug)]
pub(super) struct Scans {
    /// Away while a scan runs.
    scanner: Option<Box<Scanner>>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    findings: UnboundedReceiver<Found>,
    end: JoinHandle<(Box<Scanner>, Rescan)>,
}

/// What happens to the scanner.
#[derive(Debug)]
pub(super) enum ScanEvent {
    /// Something in the folder has changed.
    Changed,
    Found(Box<Found>),
    Ended(Rescan),
}

/// Whether a scan has to be followed by another one: what changed in a folder before it was watched would be missed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rescan {
    Now,
    WhenDue,
}

#[derive(Debug)]
struct Scanner {
    settings: FolderSettings,
    trust: Trust,
    files: BTreeMap<String, FileReader>,
    /// None until the folder is followed.
    watcher: Option<Watcher>,
}

impl Scans {
    pub(super) fn new(settings: &FolderSettings) -> Self {
        let (settings, trust) = (settings.clone(), Trust::of(settings));
        Self {
            scanner: Some(Box::new(Scanner { settings, trust, files: BTreeMap::new(), watcher: None })),
            running: None,
        }
    }

    /// Follows changes of the folder from here on.
    pub(super) async fn watch(&mut self, events: Events) {
        let Some(scanner) = &mut self.scanner else { return };
        let FolderSettings { path, settle, settle_cap, .. } = scanner.settings.clone();
        scanner.watcher = Some(off_the_runtime(move || Watcher::new(&path, settle, settle_cap, events)).await);
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins a scan, unless one is running.
    pub(super) fn start(&mut self, request: ScanRequest) {
        let Some(mut scanner) = self.scanner.take() else { return };
        let (sender, findings) = unbounded_channel();
        let end = spawn_blocking(move || {
            let rescan = scanner.scan(request, &sender);
            (scanner, rescan)
        });
        self.running = Some(Running { findings, end });
    }

    /// What happens next. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> ScanEvent {
        let Some(running) = &mut self.running else {
            match self.scanner.as_mut().and_then(|scanner| scanner.watcher.as_mut()) {
                Some(watcher) => watcher.changed().await,
                None => std::future::pending().await,
            }
            return ScanEvent::Changed;
        };
        if let Some(found) = running.findings.recv().await {
            return ScanEvent::Found(Box::new(found));
        }
        let (scanner, rescan) = match (&mut running.end).await {
            Ok(ended) => ended,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => std::future::pending().await,
            },
        };
        (self.scanner, self.running) = (Some(scanner), None);
        ScanEvent::Ended(rescan)
    }

    /// The finding that is there already, if one is.
    pub(super) fn try_next(&mut self) -> Option<Found> {
        self.running.as_mut()?.findings.try_recv().ok()
    }

    /// When an unfinished file is to be read again.
    pub(super) fn next_read(&self) -> Option<Instant> {
        self.scanner.as_ref()?.files.values().filter_map(FileReader::next_read).min()
    }

    /// Whether this file will be read again anyway.
    pub(super) fn will_read(&self, file: &str) -> bool {
        let reader = self.scanner.as_ref().and_then(|scanner| scanner.files.get(file));
        reader.is_none_or(|reader| reader.next_read().is_some())
    }

    /// The longest time until the next scan, whether or not anything is heard of a change.
    pub(super) fn pause(&self) -> Duration {
        self.scanner.as_ref().map_or(LINKED_RESCAN, |scanner| scanner.pause())
    }
}

impl Scanner {
    fn scan(&mut self, request: ScanRequest, findings: &UnboundedSender<Found>) -> Rescan {
        // The reloader may be gone.
        let send = |found| drop(findings.send(found));
        self.go_by(request.settings);
        if let Some(watcher) = &mut self.watcher {
            watcher.arm();
        }
        let opened = Folder::open(&self.settings.path, self.settings.strict_permissions)
            .and_then(|(folder, warning)| Ok((folder.list()?, folder, warning)));
        let (listing, folder, warning) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // Once it is back, all its files are news.
                for (name, reader) in &mut self.files {
                    reader.reset(request.asked.contains(name));
                }
                send(Found::Unusable(error));
                return Rescan::WhenDue;
            }
        };
        let list_changed = self.trust.refresh();
        let files = listing.files.iter().map(|(name, candidate)| (name.clone(), candidate.kind)).collect();
        let (skipped, trust) = (listing.skipped, self.trust.clone());
        send(Found::Listing(Listed { files, skipped, warning, trust, list_changed }));
        self.files.retain(|name, _| listing.files.contains_key(name));
        let by = ReadBy { folder: &folder, trust: &self.trust, list_changed, settle: self.settings.settle };
        for (name, candidate) in &listing.files {
            let reader = self.files.entry(name.clone()).or_default();
            if let Some(finding) = reader.read(name, candidate, &by, request.asked.contains(name)) {
                send(Found::File(name.clone(), finding));
            }
        }
        let more = self.watcher.as_mut().is_some_and(|watcher| watcher.follow(&listing.folders));
        if more { Rescan::Now } else { Rescan::WhenDue }
    }

    fn go_by(&mut self, settings: FolderSettings) {
        if settings == self.settings {
            return;
        }
        self.trust = Trust::of(&settings);
        if let Some(watcher) = &mut self.watcher {
            watcher.set_pace(settings.settle, settings.settle_cap);
        }
        self.settings = settings;
    }

    fn pause(&self) -> Duration {
        let unwatched = self.settings.manifest.is_some() || self.files.values().any(FileReader::is_outside);
        let usual = if unwatched { self.settings.rescan.min(LINKED_RESCAN) } else { self.settings.rescan };
        self.watcher.as_ref().map_or(usual, |watcher| watcher.rescan(usual))
    }
}
