//! When something was done to a host that others may see as its death.

use std::time::Duration;

use crate::harness::ledger::now_us;

/// A time in which others may take a host for dead that lives, or have what it had locked without a mark.
#[derive(Debug)]
pub(super) struct Harm {
    /// `None`: all hosts.
    slot: Option<usize>,
    from_us: u64,
    to_us: u64,
}

/// A connection that ends takes its locks along at once; what it ran without a mark runs for a moment more.
const MOMENT: Duration = Duration::from_secs(1);
/// So long after it could be reached again, a host that was taken for dead may still run what others have begun anew: its jobs take
/// up to four seconds, and it notices after nine that nothing is answered.
const AFTERMATH: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Harms {
    seen: Vec<Harm>,
    /// When a process was killed, and what had ended in it may not have been stored. Nobody is mistaken about its life.
    killed: Vec<Harm>,
}

impl Harms {
    /// Something is over in a moment.
    pub(super) fn note(&mut self, slot: Option<usize>) {
        let from_us = now_us();
        self.seen.push(Harm { slot, from_us, to_us: from_us + micros(MOMENT) });
    }

    /// A process of a host was killed.
    pub(super) fn kills(&mut self, slot: usize) {
        let now = now_us();
        self.killed.push(Harm { slot: Some(slot), from_us: now, to_us: now });
    }

    /// A host cannot do as it should, until [`Harms::ends`].
    pub(super) fn begins(&mut self, slot: usize) {
        self.seen.push(Harm { slot: Some(slot), from_us: now_us(), to_us: u64::MAX });
    }

    pub(super) fn ends(&mut self, slot: usize) {
        let to_us = now_us() + micros(AFTERMATH);
        for harm in self.seen.iter_mut().filter(|harm| harm.slot == Some(slot) && harm.to_us == u64::MAX) {
            harm.to_us = to_us;
        }
    }

    /// Whether something was done to a host, or to the worker that is none, at some time between these two.
    pub(super) fn was_done_to(&self, slot: Option<usize>, from_us: u64, to_us: u64) -> bool {
        self.seen.iter().any(|harm| harm.met(slot, from_us, to_us))
    }

    /// Whether what had ended between these two may be unknown to the database.
    pub(super) fn may_have_lost(&self, slot: Option<usize>, from_us: u64, to_us: u64) -> bool {
        self.seen.iter().chain(&self.killed).any(|harm| harm.met(slot, from_us, to_us))
    }
}

impl Harm {
    fn met(&self, slot: Option<usize>, from_us: u64, to_us: u64) -> bool {
        self.slot.is_none_or(|harmed| slot == Some(harmed)) && self.from_us <= to_us && self.to_us >= from_us
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("it is before the end of time")
}
