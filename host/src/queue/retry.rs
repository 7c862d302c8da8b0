//! Statements that fell victim to another transaction are run again, shortly and a few times.
//!
//! Only for statements that are transactions of their own: within a larger one the whole of it is lost, and only its
//! author can begin it again.

use std::time::Duration;

use rand::Rng;
use tokio_postgres::error::SqlState;

use super::QueueError;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// About twelve seconds in all. What fails for longer is a matter of the caller, who may stop in between.
const RETRIES: u32 = 8;

/// The waits of one statement.
#[derive(Debug, Default)]
pub(super) struct Retries {
    used: u32,
}

impl Retries {
    /// Waits for the next try, or gives the error back if there is none: the server did not undo the statement for the
    /// sake of another one, or did so too often.
    pub(super) async fn wait(&mut self, error: QueueError) -> Result<(), QueueError> {
        let factor = rand::rng().random_range(0.5..1.5);
        tokio::time::sleep(self.next(error)?.mul_f64(factor)).await;
        Ok(())
    }

    /// 50 ms at first, twice as long each time up to 5 s. The factor above keeps those apart that were in each other's way.
    fn next(&mut self, error: QueueError) -> Result<Duration, QueueError> {
        if self.used >= RETRIES || !is_victim(&error) {
            return Err(error);
        }
        let wait = SHORTEST.saturating_mul(2_u32.saturating_pow(self.used)).min(LONGEST);
        self.used += 1;
        Ok(wait)
    }
}

/// The server has undone the statement, so it took no effect and may succeed when it is run again.
fn is_victim(error: &QueueError) -> bool {
    error
        .code()
        .is_some_and(|code| *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_and_gives_up_in_the_end() {
        let mut retries = Retries::default();
        let victim = || QueueError::Statement {
            what: "x",
            reason: String::new(),
            code: Some(SqlState::T_R_DEADLOCK_DETECTED),
            lost: false,
        };
        let waits: Vec<u128> = (0..RETRIES).map(|_| retries.next(victim()).unwrap().as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 5000]);
        assert!(retries.next(victim()).is_err());
    }

    #[test]
    fn other_errors_are_not_waited_for() {
        let gone = QueueError::Connect { server: "db".into(), reason: "gone".into(), code: None };
        assert!(Retries::default().next(gone).is_err());
    }
}
