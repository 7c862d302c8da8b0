//! Reloads the settings file of a running host on SIGHUP, and warns about a change that was not reloaded.

use tracing::{error, warn};

use super::{
    CliError,
    config::effective,
    database,
    options::{Given, SettingsFile},
    reload_report,
    signals::Received,
};
use crate::{
    config::{Changes, Layer, LiveSettings, Purpose, changes, in_force},
    embedded_postgres::EmbeddedPostgres,
    host::Control,
    plugin::FileKey,
};

/// What is needed to go by a changed settings file.
#[derive(Debug)]
pub(super) struct Reload<'a> {
    /// What counts before the file.
    above: Layer,
    file: SettingsFile,
    /// As the host was started.
    at_start: Layer,
    /// As they were read last.
    last: Layer,
    /// The state of the file that was read last, or of which was said that it has changed.
    seen: Option<FileKey>,
    purpose: Purpose,
    server: Option<&'a EmbeddedPostgres>,
    control: Control,
}

impl<'a> Reload<'a> {
    pub(super) fn new(given: Given, purpose: Purpose, server: Option<&'a EmbeddedPostgres>, control: Control) -> Self {
        let Given { settings, above, file } = given;
        Self { seen: file.state(), above, file, at_start: settings.clone(), last: settings, purpose, server, control }
    }

    /// Goes on until it is dropped.
    pub(super) async fn follow(mut self, received: &Received) {
        loop {
            let interval = self.last.clone().folder(self.purpose).rescan;
            tokio::select! {
                () = received.reload() => {
                    if !self.reload().await {
                        self.control.rescan.notify_one();
                    }
                }
                () = tokio::time::sleep(interval) => self.look(),
            }
        }
    }

    /// Says once of each change of the file that it is not in force.
    fn look(&mut self) {
        let now = self.file.state();
        if now != self.seen {
            self.seen = now;
            let file = self.file.path().display();
            warn!(
                event = "settings_changed", file = %file,
                "{file} has changed, but the old settings are still in force; send SIGHUP (systemctl reload) to apply the change"
            );
        }
    }

    /// Has the host show the settings in force.
    pub(super) fn show(&self) {
        let of = |layer: &Layer| effective(layer, self.server, self.purpose);
        // Both layers could be worked with when they were read.
        if let (Ok(at_start), Ok(last)) = (of(&self.at_start), of(&self.last)) {
            self.control.show_settings(in_force(&at_start, last));
        }
    }

    /// Returns whether the folder goes by other settings now. It has given what was refused another chance then.
    async fn reload(&mut self) -> bool {
        // Before it is read, so that a change meanwhile shows.
        self.seen = self.file.state();
        let file = self.file.path().display().to_string();
        match self.settings() {
            Ok((now, live)) => {
                let changes =
                    Changes { at_restart: changes(&self.at_start, &now).at_restart, ..changes(&self.last, &now) };
                let nothing_live = changes.folder.is_empty() && changes.plugins.is_empty();
                let applied = if nothing_live { None } else { self.control.folder.apply(live).await };
                let is_asked = applied.is_some();
                reload_report::tell(&file, &changes, &applied.unwrap_or_default());
                self.last = now;
                self.show();
                is_asked
            }
            Err(error) => {
                error!(
                    event = "settings_refused",
                    file, "could not reload {file}, so the old settings stay in force: {error}"
                );
                false
            }
        }
    }

    /// What the file says now, if that can be worked with.
    fn settings(&self) -> Result<(Layer, LiveSettings), CliError> {
        let now = self.above.clone().or(self.file.read()?);
        let database = database::settings(&now, self.server)?;
        now.clone().into_working_settings(database, self.purpose)?;
        // Plugins that are told of the database are told of the one that the host works.
        let Layer { connection, file_connection, .. } = self.at_start.clone();
        let told = database::known_to_plugins(Layer { connection, file_connection, ..now.clone() }, self.server);
        let live = LiveSettings { plugins: told.plugins(), folder: told.folder(self.purpose) };
        Ok((now, live))
    }
}
