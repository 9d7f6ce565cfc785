//! `maxSurge`, `maxUnavailable` and their like: numbers, or percentages of a total.
//!
//! Pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The number that `value` means for a total; `None` where its text is no percentage.
pub(crate) fn resolve(value: &IntOrString, total: i32, round_up: bool) -> Option<i32> {
    match value {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let product = percent * i64::from(total);
            let number = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(number).ok()
        }
    }
}

/// Surge (rounded up) and unavailability (rounded down) of a rolling update. Never both zero: the update would stand still.
pub(crate) fn fenceposts(surge: Option<&IntOrString>, unavailable: Option<&IntOrString>, total: i32) -> (i32, i32) {
    let surge = surge.and_then(|value| resolve(value, total, true)).unwrap_or_default();
    let unavailable = unavailable.and_then(|value| resolve(value, total, false)).unwrap_or_default();
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let check = |text: &str, total, up, expected| {
            assert_eq!(resolve(&IntOrString::String(text.to_owned()), total, up), expected, "{text} of {total}");
        };
        check("25%", 3, true, Some(1));
        check("25%", 3, false, Some(0));
        check("100%", 7, false, Some(7));
        check("0%", 7, true, Some(0));
        check("x", 7, true, None);
        assert_eq!(resolve(&IntOrString::Int(4), 100, true), Some(4));
    }

    #[test]
    fn an_update_can_always_move() {
        let percent = IntOrString::String("25%".to_owned());
        let zero = IntOrString::Int(0);
        assert_eq!(fenceposts(Some(&percent), Some(&percent), 3), (1, 0));
        assert_eq!(fenceposts(Some(&zero), Some(&percent), 3), (0, 1));
        assert_eq!(fenceposts(Some(&percent), Some(&percent), 10), (3, 2));
    }
}
