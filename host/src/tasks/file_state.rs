//! The state of one file of the folder, and its transitions, which are pure functions of what the reloader hears.
//!
//! ```text
//!   unfinished ──contents──▶ launching ──started──▶ serving
//!       ▲                     ▲     │
//!       │ listed      retry,  │     │ failed, or a conflict
//!       │             restart │     ▼
//!     gone ◀──not listed── refused ◀── contents or permissions that will not do
//! ```
//!
//! The state is about what the file holds. The build that its tasks run on is beside it, since that may be an earlier one.

use std::{sync::Arc, time::Instant};

use super::launch::{Again, Launch, LaunchReason, Refusal, Relaunch, Retry};
use crate::plugin::{BuildId, Image};

/// What becomes of what a file holds.
#[derive(Debug, Default)]
pub(super) enum FileState {
    /// Its contents are not known yet, or are still being written.
    #[default]
    Unfinished,
    Launching(Launch),
    /// Its contents serve, or the build that it was rolled back to.
    Serving,
    Refused(Refusal),
    /// An executable that is a compiled library: it is no task, and that is no fault. With the reason.
    Skipped(String),
    /// It is not listed any more. Some tools remove a file before they write its successor, so its build serves a while longer.
    Gone {
        since: Instant,
    },
}

/// The facts about the build that serves which decide on the contents of its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct InService {
    pub(super) build: BuildId,
    /// It has crashed too often.
    pub(super) quarantined: bool,
    /// Its settings have changed since it was started.
    pub(super) outdated: bool,
}

/// What to do about contents that were found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// They are launched, serve, or are refused already.
    Keep,
    /// What serves is what should, so nothing else is wrong with the file.
    Settle,
    /// They are to be launched, or refused if they cannot be.
    TakeIn,
}

impl FileState {
    /// Decides on the build that was found in the file. With `asked`, one that is dealt with gets another try.
    pub(super) fn step(
        &self,
        found: BuildId,
        asked: bool,
        serving: Option<InService>,
        given_up: Option<BuildId>,
    ) -> Step {
        let refused = matches!(self, Self::Refused(refusal) if refusal.build.is_some());
        if given_up == Some(found) {
            // It stays out of service for as long as the file holds it.
            let dealt_with = refused || matches!(self, Self::Launching(_) | Self::Serving);
            return if dealt_with { Step::Keep } else { Step::Settle };
        }
        if self.launch().is_some_and(|launch| launch.image.build == found) {
            return Step::Keep;
        }
        let serves = |one: InService| one.build == found && !one.outdated && !(one.quarantined && asked);
        if serving.is_some_and(serves) {
            return if matches!(self, Self::Serving) { Step::Keep } else { Step::Settle };
        }
        let same = refused && self.refusal().is_some_and(|refusal| refusal.build == Some(found));
        if same && !asked { Step::Keep } else { Step::TakeIn }
    }

    /// Takes a refusal, and returns whether it is news. The launch of a build that the file does not hold goes on.
    pub(super) fn refuse(&mut self, refusal: Refusal) -> bool {
        let news = self.refusal().is_none_or(|before| before.reason != refusal.reason);
        match self {
            Self::Launching(launch) if launch.reason != LaunchReason::Contents => launch.refusal = Some(refusal),
            _ => *self = Self::Refused(refusal),
        }
        news
    }

    /// Forgets what was refused, so that it is reported again if it lasts. Returns whether the file is to be read for another
    /// try, as it is if its build is `quarantined`, too.
    pub(super) fn another_chance(&mut self, quarantined: bool) -> bool {
        match self {
            Self::Refused(_) => {
                *self = Self::Unfinished;
                true
            }
            Self::Launching(launch) => {
                launch.refusal.take().is_some_and(|refusal| refusal.build != Some(launch.image.build))
            }
            _ => quarantined,
        }
    }

    /// Launches a build. What is refused stays so meanwhile.
    pub(super) fn launch_build(&mut self, id: u64, image: Arc<Image>, reason: LaunchReason, retry: Option<Retry>) {
        let refusal = match std::mem::take(self) {
            Self::Refused(refusal) => Some(refusal),
            Self::Launching(launch) => launch.refusal,
            _ => None,
        };
        *self = Self::Launching(Launch::new(id, image, reason, retry, refusal));
    }

    /// A build has been taken into service.
    pub(super) fn serve(&mut self) {
        *self = match std::mem::take(self) {
            Self::Launching(launch) => launch.succeeded().map_or(Self::Serving, Self::Refused),
            _ => Self::Serving,
        };
    }

    /// What another file had has become free.
    pub(super) fn freed(&mut self) {
        let refusal = match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Launching(launch) => launch.refusal.as_mut(),
            _ => None,
        };
        if let Some(Refusal { again: again @ Again::WhenFree, .. }) = refusal {
            *again = Again::Now;
        }
    }

    /// Whether the file is to be read at the next scan.
    pub(super) fn is_read_next(&self) -> bool {
        matches!(self, Self::Refused(Refusal { again: Again::Now, .. }))
    }

    /// The file will be read at the next scan, which once is enough for.
    pub(super) fn reading(&mut self) {
        if let Self::Refused(Refusal { again: again @ Again::Now, .. }) = self {
            *again = Again::OnChange;
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Launching(launch) => launch.refusal.as_ref(),
            _ => None,
        }
    }

    /// The launch that is to be repeated.
    pub(super) fn relaunch(&self) -> Option<&Relaunch> {
        match self {
            Self::Refused(Refusal { again: Again::At(relaunch), .. }) => Some(relaunch),
            _ => None,
        }
    }

    /// The build has started in vain: what is refused remains.
    pub(super) fn end_launch(&mut self) {
        if let Self::Launching(launch) = self {
            *self = launch.refusal.take().map_or(Self::Unfinished, Self::Refused);
        }
    }

    pub(super) fn launch(&self) -> Option<&Launch> {
        match self {
            Self::Launching(launch) => Some(launch),
            _ => None,
        }
    }

    /// Whether a build has failed to start for a reason that may pass.
    pub(super) fn is_retried(&self) -> bool {
        self.relaunch().is_some() || self.launch().is_some_and(|launch| launch.retry.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: BuildId = BuildId([1; 32]);
    const NEW: BuildId = BuildId([2; 32]);

    fn image(build: BuildId) -> Arc<Image> {
        Arc::new(Image::seal("x.so", build, b"").expect("an image"))
    }

    fn launching(build: BuildId, reason: LaunchReason) -> FileState {
        FileState::Launching(Launch::new(1, image(build), reason, None, None))
    }

    fn refused(build: Option<BuildId>, again: Again) -> FileState {
        FileState::Refused(Refusal { reason: "broken".to_owned(), build, again })
    }

    fn retried(build: BuildId) -> FileState {
        let launch = Launch::new(1, image(build), LaunchReason::Contents, None, None);
        FileState::Refused(launch.failed("no database", true, Instant::now()).0)
    }

    fn well(build: BuildId) -> InService {
        InService { build, quarantined: false, outdated: false }
    }

    #[test]
    fn contents_that_are_found_move_a_file_as_the_table_says() {
        use LaunchReason::{Contents, Restart, RollBack};
        use Step::{Keep, Settle, TakeIn};

        let quarantined = InService { quarantined: true, ..well(NEW) };
        let outdated = InService { outdated: true, ..well(NEW) };
        let change = || Again::OnChange;
        // What was known, what serves, what was given up, and what follows when NEW is found, unasked and asked for.
        let table = [
            ("a new file", FileState::Unfinished, None, None, TakeIn, TakeIn),
            ("a new build", FileState::Serving, Some(well(OLD)), None, TakeIn, TakeIn),
            ("a newer build than the one on its way", launching(OLD, Contents), None, None, TakeIn, TakeIn),
            ("a new build during a restart", launching(OLD, Restart), Some(well(OLD)), None, TakeIn, TakeIn),
            ("a build on its way", launching(NEW, Contents), Some(well(OLD)), None, Keep, Keep),
            ("a restart on its way", launching(NEW, Restart), Some(outdated), None, Keep, Keep),
            ("the build that serves", FileState::Serving, Some(well(NEW)), None, Keep, Keep),
            ("put back during a launch", launching(OLD, Contents), Some(well(NEW)), None, Settle, Settle),
            ("put back after a refusal", refused(Some(OLD), change()), Some(well(NEW)), None, Settle, Settle),
            ("readable again, and serving", refused(None, change()), Some(well(NEW)), None, Settle, Settle),
            ("listed again, and serving", FileState::Unfinished, Some(well(NEW)), None, Settle, Settle),
            ("in quarantine", FileState::Serving, Some(quarantined), None, Keep, TakeIn),
            ("settings that did not fit", refused(Some(NEW), change()), Some(outdated), None, Keep, TakeIn),
            ("an executable's new settings", FileState::Serving, Some(outdated), None, TakeIn, TakeIn),
            ("refused as it is", refused(Some(NEW), change()), None, None, Keep, TakeIn),
            ("a conflict", refused(Some(NEW), Again::WhenFree), None, None, Keep, TakeIn),
            ("to be launched again", retried(NEW), Some(well(OLD)), None, Keep, TakeIn),
            ("refused for other contents", refused(Some(OLD), change()), None, None, TakeIn, TakeIn),
            ("other contents to be launched again", retried(OLD), None, None, TakeIn, TakeIn),
            ("readable again", refused(None, change()), Some(well(OLD)), None, TakeIn, TakeIn),
            ("a library before", FileState::Skipped("a library".to_owned()), None, None, TakeIn, TakeIn),
            ("rolled back", FileState::Serving, Some(well(OLD)), Some(NEW), Keep, Keep),
            ("being rolled back", launching(OLD, RollBack), Some(well(NEW)), Some(NEW), Keep, Keep),
            ("not rolled back yet", retried(OLD), Some(well(NEW)), Some(NEW), Keep, Keep),
            ("rolled back, readable again", refused(None, change()), Some(well(OLD)), Some(NEW), Settle, Settle),
            ("rolled back, and another build", FileState::Serving, Some(well(OLD)), Some(OLD), TakeIn, TakeIn),
        ];
        for (case, state, serving, given_up, unasked, asked) in table {
            assert_eq!(state.step(NEW, false, serving, given_up), unasked, "{case}");
            assert_eq!(state.step(NEW, true, serving, given_up), asked, "{case}, asked for");
        }
    }

    #[test]
    fn a_refusal_is_news_unless_its_reason_is_that_of_the_one_before() {
        let refusal = |reason: &str| Refusal { reason: reason.to_owned(), build: Some(NEW), again: Again::OnChange };
        let mut state = FileState::Serving;
        assert!(state.refuse(refusal("broken")));
        assert!(!state.refuse(refusal("broken")));
        assert!(state.refuse(refusal("broken in another way")));
        state.another_chance(false);
        assert!(state.refuse(refusal("broken in another way")), "it was asked for");
    }

    #[test]
    fn a_refusal_ends_the_launch_of_contents_alone() {
        let refusal = || Refusal { reason: "broken".to_owned(), build: None, again: Again::OnChange };
        for (reason, ends) in
            [(LaunchReason::Contents, true), (LaunchReason::Restart, false), (LaunchReason::RollBack, false)]
        {
            let mut state = launching(OLD, reason);
            assert!(state.refuse(refusal()));
            assert_eq!(state.launch().is_none(), ends, "{reason:?}");
            assert!(state.refusal().is_some(), "{reason:?}");
        }
    }

    #[test]
    fn another_chance_reads_what_was_refused_and_what_is_quarantined() {
        for (mut state, quarantined, read) in [
            (refused(Some(NEW), Again::OnChange), false, true),
            (refused(None, Again::OnChange), false, true),
            (FileState::Serving, true, true),
            (FileState::Serving, false, false),
            (FileState::Unfinished, false, false),
            (launching(NEW, LaunchReason::Contents), false, false),
        ] {
            assert_eq!(state.another_chance(quarantined), read, "{state:?}");
            assert!(state.refusal().is_none());
        }
    }

    #[test]
    fn a_conflict_is_read_once_when_the_other_file_gives_way() {
        let mut state = refused(Some(NEW), Again::WhenFree);
        assert!(!state.is_read_next());
        state.freed();
        assert!(state.is_read_next());
        state.reading();
        assert!(!state.is_read_next());
        let mut state = refused(Some(NEW), Again::OnChange);
        state.freed();
        assert!(!state.is_read_next(), "nobody has anything of it");
    }
}
