//! Whether so little is waiting that jobs without a queue can be looked for in one go, from the very beginning, which spares
//! Postgres the steps.

use std::time::Duration;

/// A walk from the beginning that takes this long at most has nothing to pass.
const NOTHING_TO_PASS: Duration = Duration::from_micros(300);

/// So much longer than a walk with steps, seen from here, a look in one go may take.
const NOTICED: Duration = Duration::from_millis(2);

/// See the [module](self).
#[derive(Debug, Default)]
pub(in crate::queue) struct Calm {
    /// How long the answer to the walk took that found it so.
    since: Option<Duration>,
}

impl Calm {
    pub(in crate::queue) fn is(&self) -> bool {
        self.since.is_some()
    }

    /// A walk with steps has ended. `took` is without the way there and back, `waited` with it.
    pub(super) fn walked(&mut self, saw_everything: bool, took: Duration, waited: Duration) {
        self.since = (saw_everything && took <= NOTHING_TO_PASS).then_some(waited);
    }

    /// A look in one go has ended.
    pub(in crate::queue) fn looked(&mut self, saw_everything: bool, waited: Duration) {
        self.since = self.since.filter(|usual| saw_everything && waited <= *usual + NOTICED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_the_first_look_that_has_not_seen_all_or_takes_long() {
        let milliseconds = Duration::from_millis;
        let mut calm = Calm::default();
        assert!(!calm.is(), "nobody has looked yet");
        calm.walked(true, milliseconds(1), milliseconds(1));
        assert!(!calm.is(), "there is something to pass");
        calm.walked(false, Duration::ZERO, milliseconds(1));
        assert!(!calm.is(), "there is more");

        calm.walked(true, Duration::ZERO, milliseconds(10));
        calm.looked(true, milliseconds(11));
        assert!(calm.is(), "the server is far away, that is all");
        calm.looked(true, milliseconds(13));
        assert!(!calm.is());
        calm.looked(true, Duration::ZERO);
        assert!(!calm.is(), "only a walk can tell");

        calm.walked(true, Duration::ZERO, Duration::ZERO);
        calm.looked(false, Duration::ZERO);
        assert!(!calm.is());
    }
}
