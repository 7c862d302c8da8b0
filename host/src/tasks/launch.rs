//! A build on its way into service: why it is launched, and what is refused once it has started or failed to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::plugin::{BuildId, Image};

/// The wait before the second launch of a build, which doubles with each further one …
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Each failed retry is reported at the level debug, and one of them this often as a warning.
const REMIND_EVERY: Duration = Duration::from_secs(5 * 60);

/// A build on its way into service.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    /// Which of all launches this is. A launch that is not that of its file's state has been superseded.
    pub(super) id: u64,
    pub(super) image: Arc<Image>,
    pub(super) reason: LaunchReason,
    /// The failed launches before this one.
    pub(super) retry: Option<Retry>,
    /// What stays refused until this build serves, or longer.
    pub(super) refusal: Option<Refusal>,
}

/// Why a build is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaunchReason {
    /// The file holds it.
    Contents,
    /// It serves, with settings that have changed.
    Restart,
    /// The build after it has failed its trial.
    RollBack,
}

/// Why a file is refused, and what may change that.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) reason: String,
    /// The build that is refused; none if the file cannot be read.
    pub(super) build: Option<BuildId>,
    pub(super) again: Again,
}

/// When a refused file gets another try.
#[derive(Debug, Clone)]
pub(super) enum Again {
    /// When the file or the settings change.
    OnChange,
    /// When another file gives up its name or a task.
    WhenFree,
    /// At the next scan.
    Now,
    /// The reason may pass by itself, so the build is launched again.
    At(Box<Relaunch>),
}

/// A launch that is to be repeated.
#[derive(Debug, Clone)]
pub(super) struct Relaunch {
    /// Kept, because the file may hold something else: a build that was rolled back to is in no file.
    pub(super) image: Arc<Image>,
    pub(super) reason: LaunchReason,
    pub(super) retry: Retry,
    pub(super) next: Instant,
}

/// The failed launches of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retry {
    /// When it first failed.
    began: Instant,
    wait: Duration,
    reminded: Instant,
}

/// How a failed launch is reported.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// It was reported, and nothing has changed.
    Nothing,
    Rejected {
        retry_in: Option<Duration>,
    },
    StillRejected {
        retry_in: Duration,
        since: Duration,
        reminder: bool,
    },
}

impl Launch {
    /// `refusal` is what is refused by now.
    pub(super) fn new(
        id: u64,
        image: Arc<Image>,
        reason: LaunchReason,
        retry: Option<Retry>,
        mut refusal: Option<Refusal>,
    ) -> Self {
        if let Some(own) = refusal.as_mut().filter(|refusal| refusal.build == Some(image.build)) {
            own.again = Again::OnChange;
        }
        Self { id, image, reason, retry, refusal }
    }

    /// What stays refused although the build serves, since it is not what the file holds.
    pub(super) fn succeeded(self) -> Option<Refusal> {
        let build = Some(self.image.build);
        self.refusal.filter(|refusal| self.reason != LaunchReason::Contents && refusal.build != build)
    }

    /// What is refused after the launch has failed, and how to report that. A reason that may pass is one to try again.
    pub(super) fn failed(self, reason: &str, passing: bool, now: Instant) -> (Refusal, Report) {
        let told = self.refusal.as_ref().map(|refusal| refusal.reason.as_str());
        let (again, report) = if passing {
            let mut retry = self.retry.map_or_else(|| Retry::first(now), Retry::next);
            let (retry_in, since) = (retry.wait, now - retry.began);
            let report = if self.retry.is_some() && told.is_some() {
                Report::StillRejected { retry_in, since, reminder: retry.remind(now) }
            } else {
                Report::Rejected { retry_in: Some(retry_in) }
            };
            let relaunch =
                Relaunch { image: Arc::clone(&self.image), reason: self.reason, retry, next: now + retry.wait };
            (Again::At(Box::new(relaunch)), report)
        } else if told == Some(reason) {
            (Again::OnChange, Report::Nothing)
        } else {
            (Again::OnChange, Report::Rejected { retry_in: None })
        };
        // What the file holds is tried again at its own time.
        let kept = |refusal: &Refusal| self.reason != LaunchReason::Contents && matches!(refusal.again, Again::At(_));
        let refusal = self.refusal.filter(kept);
        let own = || Refusal { reason: reason.to_owned(), build: Some(self.image.build), again };
        (refusal.unwrap_or_else(own), report)
    }
}

impl Retry {
    fn first(now: Instant) -> Self {
        Self { began: now, wait: FIRST_WAIT, reminded: now }
    }

    fn next(self) -> Self {
        Self { wait: (self.wait * 2).min(LONGEST_WAIT), ..self }
    }

    /// The waits begin anew.
    pub(super) fn hurried(self) -> Self {
        Self { wait: FIRST_WAIT, ..self }
    }

    fn remind(&mut self, now: Instant) -> bool {
        let due = now - self.reminded >= REMIND_EVERY;
        if due {
            self.reminded = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVES: BuildId = BuildId([1; 32]);
    const HELD: BuildId = BuildId([2; 32]);

    fn launch(build: BuildId, reason: LaunchReason, refusal: Option<Refusal>) -> Launch {
        Launch::new(1, Arc::new(Image::seal("x.so", build, b"").expect("an image")), reason, None, refusal)
    }

    fn refused(build: Option<BuildId>) -> Option<Refusal> {
        Some(Refusal { reason: "broken".to_owned(), build, again: Again::OnChange })
    }

    fn relaunch_of(refusal: &Refusal) -> Option<&Relaunch> {
        match &refusal.again {
            Again::At(relaunch) => Some(relaunch),
            _ => None,
        }
    }

    /// The launch that follows a failed one, and how that was reported.
    fn again(launch: Launch, reason: &str, now: Instant) -> (Launch, Instant, Report) {
        let (refusal, report) = launch.failed(reason, true, now);
        let Relaunch { image, reason, retry, next } = relaunch_of(&refusal).expect("it is tried again").clone();
        (Launch::new(2, image, reason, Some(retry), Some(refusal)), next, report)
    }

    #[test]
    fn a_build_is_launched_again_after_waits_that_double_up_to_a_minute() {
        let mut now = Instant::now();
        let began = now;
        let mut launch = launch(HELD, LaunchReason::Contents, None);
        for (nth, wait) in [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60].map(Duration::from_secs).into_iter().enumerate() {
            let (next, at, report) = again(launch, "no database", now);
            assert_eq!(at - now, wait);
            match report {
                Report::Rejected { retry_in } => assert_eq!((nth, retry_in), (0, Some(wait))),
                Report::StillRejected { retry_in, since, reminder } => {
                    assert_eq!((retry_in, since), (wait, now - began));
                    // The first one after five minutes.
                    assert_eq!(reminder, nth == 10, "after {since:?}");
                }
                Report::Nothing => panic!("each launch is reported"),
            }
            (launch, now) = (next, at);
        }
        let hurried = launch.retry.expect("it was launched before").hurried();
        assert_eq!(hurried.next().wait, Duration::from_secs(2), "the waits begin anew");
    }

    #[test]
    fn a_retry_that_was_asked_for_is_reported_as_the_first() {
        let now = Instant::now();
        let (launch, ..) = again(launch(HELD, LaunchReason::Contents, None), "no database", now);
        let asked = Launch { refusal: None, ..launch };
        let (_, _, report) = again(asked, "no database", now);
        assert!(matches!(report, Report::Rejected { retry_in: Some(_) }), "{report:?}");
    }

    #[test]
    fn a_lasting_reason_is_reported_once_and_waits_for_a_change() {
        let now = Instant::now();
        let (refusal, report) = launch(HELD, LaunchReason::Contents, None).failed("no plugin", false, now);
        assert_eq!(report, Report::Rejected { retry_in: None });
        assert!(relaunch_of(&refusal).is_none());
        let (_, report) = launch(HELD, LaunchReason::Contents, Some(refusal)).failed("no plugin", false, now);
        assert_eq!(report, Report::Nothing);
    }

    #[test]
    fn a_build_that_starts_ends_the_refusals_of_the_contents_that_it_replaces() {
        use LaunchReason::{Contents, Restart, RollBack};

        for (reason, build, before, refusal_stays) in [
            (Contents, HELD, refused(Some(SERVES)), false),
            (Contents, HELD, refused(None), false),
            // What was refused is this restart's earlier try.
            (Restart, SERVES, refused(Some(SERVES)), false),
            (Restart, SERVES, refused(Some(HELD)), true),
            (Restart, SERVES, refused(None), true),
            (RollBack, SERVES, refused(None), true),
            (RollBack, SERVES, None, false),
        ] {
            let refusal = launch(build, reason, before).succeeded();
            assert_eq!(refusal.is_some(), refusal_stays, "{reason:?}");
        }
    }

    #[test]
    fn a_restart_that_fails_leaves_the_retries_of_what_the_file_holds() {
        let now = Instant::now();
        let (waiting, _) = launch(HELD, LaunchReason::Contents, None).failed("no database", true, now);
        let (refusal, report) = launch(SERVES, LaunchReason::Restart, Some(waiting)).failed("settings", false, now);
        assert_eq!(relaunch_of(&refusal).expect("it goes on").image.build, HELD);
        assert_eq!(report, Report::Rejected { retry_in: None });
    }
}
