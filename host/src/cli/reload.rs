//! Reloads the settings file of a running host on SIGHUP, and warns about a change that was not reloaded.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::{
    CliError, database,
    options::{Given, SettingsFile},
    signals::Received,
};
use crate::{
    config::{Changes, Layer, LiveSettings, Purpose, changes},
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
                    self.reload();
                    Arc::clone(&self.control.rescan).notify_one();
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

    fn reload(&mut self) {
        // Before it is read, so that a change meanwhile shows.
        self.seen = self.file.state();
        let file = self.file.path().display().to_string();
        match self.settings() {
            Ok((now, live)) => {
                let changed = Changes {
                    live: changes(&self.last, &now).live,
                    at_restart: changes(&self.at_start, &now).at_restart,
                };
                tell(&file, &changed);
                if !changed.live.is_empty() {
                    self.control.folder.apply(live);
                }
                self.last = now;
            }
            Err(error) => error!(
                event = "settings_refused",
                file, "could not reload {file}, so the old settings stay in force: {error}"
            ),
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

fn tell(file: &str, Changes { live, at_restart }: &Changes) {
    if live.is_empty() && at_restart.is_empty() {
        info!(event = "settings_reloaded", file, "reloaded {file}: nothing has changed");
        return;
    }
    let (live, at_restart) = (live.join(", "), at_restart.join(", "));
    let said = [("applied: ", &live), ("restart to apply: ", &at_restart)];
    let said: Vec<String> =
        said.iter().filter(|(_, list)| !list.is_empty()).map(|(what, list)| format!("{what}{list}")).collect();
    let said = said.join("; ");
    if at_restart.is_empty() {
        info!(event = "settings_reloaded", file, live, "reloaded {file}; {said}");
    } else {
        warn!(event = "settings_reloaded", file, live, at_restart, "reloaded {file}; {said}");
    }
}
