//! Jobs that were running when a process crashed: how often that was, one time after the other, is kept in `last_error`, which
//! every worker leaves there and the next failure of another kind replaces.
//!
//! Who caused a crash is not known while others ran in the same process. So the next attempt has a process of its own, and a
//! job that crashes that one, too, is not tried for days.

/// How the reason of a job that was running in a crash ends; between the two is their number. The statement that releases the
/// jobs of a host that died writes the same.
const BEGIN: &str = "(crash ";
const END: &str = ")";

/// How `last_error` begins where it was the host that ended.
const HOST: &str = "the host ";

/// What a job's last error says of crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Crashes {
    /// Without an attempt between them that ended otherwise.
    count: usize,
    of_host: bool,
}

impl Crashes {
    pub(super) fn of(last_error: Option<&str>) -> Self {
        let read = |error: &str| {
            let (_, number) = error.strip_suffix(END)?.rsplit_once(BEGIN)?;
            Some(Self { count: number.parse().ok()?, of_host: error.starts_with(HOST) })
        };
        last_error.and_then(read).unwrap_or_default()
    }

    /// Whether the next attempt needs a process of its own: the end of a host says nothing against jobs that ran in other
    /// processes.
    pub(super) fn want_own_process(self, runs_in_this_process: bool) -> bool {
        self.count > 0 && (runs_in_this_process || !self.of_host)
    }

    /// The reason of one that crashed once more, and whether it is not to be tried again: of `most` crashes, the last one has to
    /// be its own.
    pub(super) fn and_one_more(self, reason: &str, alone: bool, most: usize) -> (String, bool) {
        let count = self.count.saturating_add(1);
        let over = alone && count >= most;
        let then = if over {
            "it was alone in its process and is not tried again"
        } else {
            "the next attempt has a process of its own"
        };
        (format!("{reason}\n{then} {BEGIN}{count}{END}"), over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_are_counted_until_an_attempt_ends_otherwise() {
        let (first, over) = Crashes::of(None).and_one_more("killed", false, 3);
        assert_eq!(first, "killed\nthe next attempt has a process of its own (crash 1)");
        assert!(!over && Crashes::of(Some(&first)).want_own_process(false));
        let (second, over) = Crashes::of(Some(&first)).and_one_more("killed", true, 3);
        assert!(second.ends_with("(crash 2)") && !over);
        let (third, over) = Crashes::of(Some(&second)).and_one_more("killed", true, 3);
        assert!(over);
        assert_eq!(third, "killed\nit was alone in its process and is not tried again (crash 3)");
        for other in ["it failed", "(crash x)", "(crash 1) and more", ""] {
            assert_eq!(Crashes::of(Some(other)), Crashes::default(), "{other}");
        }
    }

    #[test]
    fn nothing_is_given_up_for_the_crash_of_another_one() {
        let often = Crashes { count: 7, of_host: false };
        assert!(!often.and_one_more("killed", false, 1).1);
        assert!(often.and_one_more("killed", true, 1).1);
    }

    #[test]
    fn the_end_of_a_host_concerns_those_that_ran_in_it() {
        let died = Crashes::of(Some("the host taskbay-live-1 ended without a word while it had this job (crash 2)"));
        assert_eq!(died, Crashes { count: 2, of_host: true });
        assert!(died.want_own_process(true) && !died.want_own_process(false));
    }
}
