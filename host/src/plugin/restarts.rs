//! Decides whether and when a crashed process of a plugin is restarted.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The number of crashes within [`WINDOW`] after which a build is given up.
const TOO_MANY: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The crashes of a build.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    recent: VecDeque<Instant>,
    /// The number of crashes without a healthy minute between them.
    in_a_row: u32,
}

/// The reaction to a crash.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    RestartIn(Duration),
    Quarantine,
}

impl Restarts {
    /// Counts a crash of a process that had been up for `healthy`.
    pub(super) fn crashed(&mut self, now: Instant, healthy: Duration) -> Next {
        if healthy >= WINDOW {
            self.in_a_row = 0;
        }
        self.recent.retain(|crash| now.duration_since(*crash) < WINDOW);
        self.recent.push_back(now);
        if self.recent.len() >= TOO_MANY {
            return Next::Quarantine;
        }
        Next::RestartIn(self.next_delay())
    }

    /// Counts a failed start with a transient cause, which does not count towards giving up the build.
    pub(super) fn did_not_start(&mut self) -> Next {
        Next::RestartIn(self.next_delay())
    }

    fn next_delay(&mut self) -> Duration {
        self.in_a_row += 1;
        match self.in_a_row {
            1 => Duration::ZERO,
            n => (FIRST_DELAY * 2_u32.saturating_pow((n - 2).min(20))).min(LONGEST_DELAY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Next {
        Next::RestartIn(Duration::from_millis(n))
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_fifth_crash_in_a_minute_the_last() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        let mut crash = |second| restarts.crashed(start + Duration::from_secs(second), Duration::from_secs(1));
        assert_eq!([crash(0), crash(1), crash(2), crash(3)], [millis(0), millis(100), millis(200), millis(400)]);
        assert_eq!(crash(4), Next::Quarantine);
    }

    #[test]
    fn a_process_that_does_not_come_up_is_tried_for_ever() {
        let mut restarts = Restarts::default();
        let delays: Vec<_> = (0..20).map(|_| restarts.did_not_start()).collect();
        assert_eq!((&delays[..3], &delays[19]), (&[millis(0), millis(100), millis(200)][..], &millis(30_000)));
        assert_eq!(restarts.crashed(Instant::now(), Duration::ZERO), millis(30_000), "none of them counts as a crash");
    }

    #[test]
    fn slow_crashing_backs_off_up_to_the_longest_delay() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        let delays: Vec<_> =
            (0..12).map(|n| restarts.crashed(start + Duration::from_secs(20 * n), Duration::from_secs(20))).collect();
        assert_eq!(delays[11], Next::RestartIn(LONGEST_DELAY));
        assert!(!delays.contains(&Next::Quarantine));
    }

    #[test]
    fn a_healthy_minute_makes_the_next_restart_immediate() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        for n in 0..4 {
            restarts.crashed(start + Duration::from_secs(n), Duration::ZERO);
        }
        assert_eq!(restarts.crashed(start + Duration::from_secs(90), Duration::from_secs(80)), millis(0));
    }
}
