//! Histories for property tests: what happened, and what of it a controller heard.
//!
//! Events may come late, twice, in another order or not at all; only the last look at the world is sure to be at its newest
//! state. A controller that is driven by levels ends where a model says, whatever it heard before.

use proptest::prelude::*;

/// Up to `steps` things that happened, each a choice out of so many with a number of its own; and the moments, as indexes
/// into them, at which the controller looked, in the order in which it did.
pub(crate) fn history(choices: u8, steps: usize) -> impl Strategy<Value = (Vec<(u8, u16)>, Vec<usize>)> {
    let happened = prop::collection::vec((0..choices, any::<u16>()), 1..steps);
    happened.prop_flat_map(|happened| {
        let looks = prop::collection::vec(0..happened.len(), 0..happened.len() * 2);
        (Just(happened), looks)
    })
}
