//! The fast path of an empty queue: a simple query without cursors, used while a scan from the beginning is cheap.

use std::time::Duration;

/// The longest scan from the beginning that still counts as cheap.
const NOTHING_TO_PASS: Duration = Duration::from_micros(300);

/// The extra time, compared with a scan by ranges, that a query on the fast path may take.
const NOTICED: Duration = Duration::from_millis(2);

/// See the [module](self).
#[derive(Debug, Default)]
pub(in crate::queue) struct FastPath {
    /// Set while the path is open: the response time of the scan that opened it.
    since: Option<Duration>,
}

impl FastPath {
    pub(in crate::queue) fn is_open(&self) -> bool {
        self.since.is_some()
    }

    /// Records a scan by ranges: `took` on the server, `waited` including the round trip.
    pub(super) fn scanned(&mut self, saw_everything: bool, took: Duration, waited: Duration) {
        self.since = (saw_everything && took <= NOTHING_TO_PASS).then_some(waited);
    }

    /// Records a query on the fast path.
    pub(in crate::queue) fn probed(&mut self, saw_everything: bool, waited: Duration) {
        self.since = self.since.filter(|usual| saw_everything && waited <= *usual + NOTICED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_with_the_first_query_that_is_slow_or_incomplete() {
        let milliseconds = Duration::from_millis;
        let mut fast_path = FastPath::default();
        assert!(!fast_path.is_open(), "no scan yet");
        fast_path.scanned(true, milliseconds(1), milliseconds(1));
        assert!(!fast_path.is_open(), "the scan was not cheap");
        fast_path.scanned(false, Duration::ZERO, milliseconds(1));
        assert!(!fast_path.is_open(), "the scan was incomplete");

        fast_path.scanned(true, Duration::ZERO, milliseconds(10));
        fast_path.probed(true, milliseconds(11));
        assert!(fast_path.is_open(), "only the server is far away");
        fast_path.probed(true, milliseconds(13));
        assert!(!fast_path.is_open());
        fast_path.probed(true, Duration::ZERO);
        assert!(!fast_path.is_open(), "only a scan can open it");

        fast_path.scanned(true, Duration::ZERO, Duration::ZERO);
        fast_path.probed(false, Duration::ZERO);
        assert!(!fast_path.is_open());
    }
}
