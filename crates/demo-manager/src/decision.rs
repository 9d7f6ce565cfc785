//! What a competitor does about a lease as it is seen.
//!
//! Pure. Invariant: a lease of somebody else is taken only once it was seen unchanged for as long as it says.

use std::time::Duration;

/// A lease, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) holder: String,
    /// As it is written: any change is a sign of life.
    pub(crate) renewed: String,
    pub(crate) lasts: Duration,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is ours: renew it.
    Renew,
    /// It is nobody's any more: take it.
    Take,
    /// Somebody else has it.
    Wait,
}

/// `unchanged` is for how long it was seen as it is now, by our own clock.
pub(crate) fn decide(record: &Record, own: &str, unchanged: Duration) -> Decision {
    match record.holder.as_str() {
        holder if holder == own => Decision::Renew,
        "" => Decision::Take,
        _ if unchanged > record.lasts => Decision::Take,
        _ => Decision::Wait,
    }
}

/// The library's own conditions.
pub(crate) fn check(lease: Duration, renew: Duration, retry: Duration) -> Result<(), &'static str> {
    if lease <= renew {
        return Err("leaseDuration must be greater than renewDeadline");
    }
    if renew <= retry.mul_f64(1.2) {
        return Err("renewDeadline must be greater than retryPeriod*JitterFactor");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_of_another_is_taken_when_its_time_is_over() {
        let record = |holder: &str| Record { holder: holder.to_owned(), renewed: "t".to_owned(), lasts: SECOND * 15 };
        for (holder, unchanged, decision) in [
            ("me", 100, Decision::Renew),
            ("", 0, Decision::Take),
            ("other", 0, Decision::Wait),
            ("other", 15, Decision::Wait),
            ("other", 16, Decision::Take),
        ] {
            assert_eq!(decide(&record(holder), "me", SECOND * unchanged), decision, "{holder} {unchanged}");
        }
    }

    #[test]
    fn durations_that_contradict_each_other_are_refused() {
        assert_eq!(check(SECOND * 15, SECOND * 10, SECOND * 2), Ok(()));
        assert!(check(SECOND * 10, SECOND * 10, SECOND * 2).is_err_and(|why| why.starts_with("leaseDuration")));
        assert!(check(SECOND * 15, SECOND * 2, SECOND * 2).is_err_and(|why| why.starts_with("renewDeadline")));
    }
}
