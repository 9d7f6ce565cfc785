//! How much work a request is expected to be, in seats and time.
//!
//! Not a measurement: what is known before the request runs (counts, sizes, watchers) is all there is.

/// Bytes of answers in memory that take one seat.
const BYTES_PER_SEAT: u64 = 100_000;

/// Lists out of memory are sent in pieces and take no more than this at once.
const STREAMED_BYTES: u64 = 1_000_000;

/// The size of objects of which nothing is known.
const UNKNOWN_SIZE: u64 = 1_500_000;

/// The most seats of a list, where the level allows them.
const MAX_LIST_SEATS: u64 = 100;

/// The most seats of a write, where the level allows them.
const MAX_WRITE_SEATS: u64 = 10;

/// Watchers that are served with one seat.
const WATCHERS_PER_SEAT: u64 = 10;

/// How long a write's watchers are served, in nanoseconds.
const SERVING: u64 = 5_000_000;

/// What a request will take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Seats while it runs.
    pub seats: u64,
    /// Seats after its end, while its watchers are served.
    pub final_seats: u64,
    /// For how long, in nanoseconds.
    pub lingering: u64,
}

impl Work {
    /// One seat, and nothing after it.
    pub const ONE: Self = Self { seats: 1, final_seats: 0, lingering: 0 };

    /// So many seats, and nothing after it.
    pub const fn of(seats: u64) -> Self {
        Self { seats, ..Self::ONE }
    }

    /// What is set aside for it from begin to end.
    pub const fn max_seats(&self) -> u64 {
        if self.seats > self.final_seats { self.seats } else { self.final_seats }
    }
}

/// What is known of a list, or of the beginning of a watch, before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listing {
    /// How many objects of the resource there are; absent where that is not known, as for what another server has.
    pub stored: Option<u64>,
    /// Their average size in bytes; 0 where unknown.
    pub average_size: u64,
    /// `limit`, 0 for none.
    pub limit: u64,
    /// It names one object.
    pub is_single: bool,
    /// It is answered from memory, not from a revision of the past.
    pub is_from_memory: bool,
    /// It has a selector.
    pub is_selected: bool,
}

/// Seats of a list. `level_max` is what the level allows a request; 0 where it says nothing.
pub fn list_seats(list: &Listing, level_max: u64) -> u64 {
    let most = if level_max == 0 { MAX_LIST_SEATS } else { level_max.min(MAX_LIST_SEATS) };
    let Some(stored) = list.stored else { return 1 };
    let size = if list.average_size == 0 && stored > 0 { UNKNOWN_SIZE } else { list.average_size };
    let limited = if list.limit > 0 { list.limit.min(stored) } else { stored };
    let loaded = match list {
        Listing { is_single: true, .. } => 1,
        Listing { is_from_memory: false, is_selected: true, .. } => limited.max(stored / 2),
        _ => limited,
    };
    let bytes = loaded.saturating_mul(size);
    let bytes = if list.is_from_memory { bytes.min(STREAMED_BYTES) } else { bytes };
    bytes.div_ceil(BYTES_PER_SEAT).clamp(1, most.max(1))
}

/// The work of a write that so many watchers will see.
pub fn write_work(watchers: u64, level_max: u64) -> Work {
    if watchers < WATCHERS_PER_SEAT {
        return Work::ONE;
    }
    let most = if level_max == 0 { MAX_WRITE_SEATS } else { level_max.min(MAX_WRITE_SEATS) };
    let wanted = watchers.div_ceil(WATCHERS_PER_SEAT);
    let final_seats = wanted.min(most.max(1));
    Work { seats: 1, final_seats, lingering: wanted * SERVING / final_seats }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_as_wide_as_their_bytes() {
        let memory = Listing { is_from_memory: true, ..Listing::default() };
        let of = |stored, average_size| Listing { stored: Some(stored), average_size, ..memory };
        for (list, level_max, seats) in [
            (memory, 0, 1),
            (of(0, 0), 0, 1),
            (of(100, 1_000), 0, 1),
            (of(500, 1_000), 0, 5),
            (of(100_000, 4_000), 0, 10),
            (of(100_000, 4_000), 8, 8),
            (Listing { limit: 50, ..of(100_000, 4_000) }, 0, 2),
            (Listing { is_single: true, ..of(100_000, 4_000) }, 0, 1),
            (Listing { is_from_memory: false, ..of(100_000, 4_000) }, 0, 100),
            (Listing { is_from_memory: false, limit: 50, ..of(1_000, 4_000) }, 0, 2),
            (Listing { is_from_memory: false, is_selected: true, limit: 50, ..of(1_000, 4_000) }, 0, 20),
            (of(3, 0), 0, 10),
        ] {
            assert_eq!(list_seats(&list, level_max), seats, "{list:?} {level_max}");
        }
    }

    #[test]
    fn writes_pay_for_their_watchers() {
        for (watchers, level_max, final_seats, lingering) in [
            (0, 0, 0, 0),
            (9, 0, 0, 0),
            (10, 0, 1, 5_000_000),
            (95, 0, 10, 5_000_000),
            (1000, 0, 10, 50_000_000),
            (95, 5, 5, 10_000_000),
        ] {
            assert_eq!(write_work(watchers, level_max), Work { seats: 1, final_seats, lingering }, "{watchers}");
        }
    }
}
