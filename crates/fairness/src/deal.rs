//! Shuffle sharding: which queues a flow may use.
//!
//! Each flow gets a hand of distinct queues, so that a busy flow fills few queues and hardly ever all of another's.

/// The largest hand that there is.
const MAX_HAND: usize = 15;

/// Deals `hand` distinct cards out of `deck` by the digits of `hash` in falling bases. Nothing where that is impossible.
pub fn deal(hash: u64, deck: usize, hand: usize) -> impl Iterator<Item = usize> {
    let hand = hand.min(deck).min(MAX_HAND);
    let mut rest = hash;
    let mut dealt = [0usize; MAX_HAND];
    for index in 0..hand {
        let left = (deck - index) as u64;
        // Where it lies among the cards that are left; in `dealt` they are kept sorted.
        let mut card = (rest % left) as usize;
        rest /= left;
        let mut place = 0;
        while place < index && dealt[place] <= card {
            card += 1;
            place += 1;
        }
        dealt.copy_within(place..index, place + 1);
        dealt[place] = card;
    }
    dealt.into_iter().take(hand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_are_distinct_and_cover_the_deck() {
        let mut seen = [0u32; 20];
        for number in 0..50_000u64 {
            let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let hand: Vec<usize> = deal(hash, 20, 4).collect();
            assert!(hand.windows(2).all(|pair| pair[0] < pair[1]), "{hand:?}");
            hand.iter().for_each(|card| seen[*card] += 1);
        }
        // 10,000 each, were it even.
        assert!(seen.iter().all(|count| (9_000..11_000).contains(count)), "{seen:?}");
    }

    #[test]
    fn every_hand_of_a_small_deck_is_dealt_equally_often() {
        let mut hands = std::collections::BTreeMap::<Vec<usize>, u32>::new();
        (0..20).for_each(|hash| *hands.entry(deal(hash, 5, 2).collect()).or_default() += 1);
        assert_eq!(hands.len(), 10);
        assert!(hands.values().all(|count| *count == 2), "{hands:?}");
        assert_eq!(deal(7, 3, 9).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(deal(7, 0, 2).count(), 0);
    }
}
