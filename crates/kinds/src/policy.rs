//! The kinds of this group.

use crate::generic::Generic;
use crate::strategy::Strategy;

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        _ => &Generic::PLAIN,
    }
}
