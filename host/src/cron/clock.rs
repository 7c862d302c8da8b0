//! The clock for schedules: this process's clock, as in graphile-worker.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use jiff::{SignedDuration, Timestamp};

/// Tells the time and waits for a time. Tests hold it still.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    fn now(&self) -> Timestamp;

    /// Returns at this time or soon after it; earlier if it was expected to be there, but the clock was set back.
    fn sleep_until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The system's clock. That it was set, or that the machine slept, is noticed within seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// Timers know neither of a clock that was set nor of the time that a machine slept, so the clock is looked at in between.
const LONGEST_NAP: Duration = Duration::from_secs(5);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let mut patience = remaining(time);
            while !patience.is_zero() {
                let nap = patience.min(remaining(time)).min(LONGEST_NAP);
                if nap.is_zero() {
                    return;
                }
                tokio::time::sleep(nap).await;
                patience -= nap;
            }
        })
    }
}

fn remaining(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default()
}

/// The minute that a moment is in.
pub(super) fn floor(moment: Timestamp) -> Timestamp {
    let second = moment.as_second() - i64::from(moment.subsec_nanosecond() < 0);
    Timestamp::from_second(second.div_euclid(60) * 60).unwrap_or(Timestamp::MIN)
}

/// The first minute that begins at this moment or later.
pub(super) fn ceil(moment: Timestamp) -> Timestamp {
    let floor = floor(moment);
    if floor == moment { floor } else { minutes_after(floor, 1) }
}

/// So many minutes later, or earlier.
pub(super) fn minutes_after(moment: Timestamp, minutes: i64) -> Timestamp {
    let limit = if minutes < 0 { Timestamp::MIN } else { Timestamp::MAX };
    moment.checked_add(SignedDuration::from_mins(minutes)).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn moments_belong_to_the_minute_that_they_are_in() {
        for (moment, before, after) in [
            ("2021-01-01T04:00:00Z", "2021-01-01T04:00Z", "2021-01-01T04:00Z"),
            ("2021-01-01T04:00:00.000000001Z", "2021-01-01T04:00Z", "2021-01-01T04:01Z"),
            ("2021-01-01T04:00:59.999Z", "2021-01-01T04:00Z", "2021-01-01T04:01Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59Z", "1970-01-01T00:00Z"),
        ] {
            assert_eq!((floor(at(moment)), ceil(at(moment))), (at(before), at(after)), "{moment}");
        }
    }

    #[tokio::test]
    async fn a_time_that_has_come_is_not_waited_for() {
        SystemClock.sleep_until(Timestamp::now()).await;
        SystemClock.sleep_until(Timestamp::UNIX_EPOCH).await;
        let soon = Timestamp::now() + Duration::from_millis(20);
        SystemClock.sleep_until(soon).await;
        assert!(Timestamp::now() >= soon);
    }
}
