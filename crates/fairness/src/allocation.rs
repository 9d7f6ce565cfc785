//! How seats are shared out among levels: each gets the same fraction of what it wants, within its bounds.
//!
//! Invariant: what is given sums to what there is to give, and nobody gets less than the lower or more than the upper bound.

/// Less than this is wanted by nobody, so that there is no division by zero.
const LEAST_TARGET: f64 = 0.001;

/// Differences below this are none.
const EPSILON: f64 = 1e-7;

/// One of those who share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Class {
    /// What it wants; not below `lower`.
    pub target: f64,
    /// The least it gets.
    pub lower: f64,
    /// The most it gets.
    pub upper: f64,
}

impl Class {
    fn at(&self, fraction: f64) -> f64 {
        (fraction * self.target.max(LEAST_TARGET)).clamp(self.lower, self.upper)
    }
}

/// Shares `sum` out; what each gets, and the fraction of its wish where no bound is in the way. `None` where the bounds make
/// that impossible.
pub fn allocate(sum: f64, classes: &[Class]) -> Option<(Vec<f64>, f64)> {
    let total = |bound: fn(&Class) -> f64| classes.iter().map(bound).sum::<f64>();
    let (low, high) = (total(|class| class.lower), total(|class| class.upper));
    let sound = classes.iter().all(|class| 0.0 <= class.lower && class.lower <= class.upper);
    if !sound || sum < low - EPSILON || sum > high + EPSILON {
        return None;
    }
    if sum <= 0.0 {
        return Some((vec![0.0; classes.len()], 0.0));
    }
    let fraction = fraction(sum, classes);
    Some((classes.iter().map(|class| class.at(fraction)).collect(), fraction))
}

/// The sum of what all get grows with the fraction, in straight lines between the bounds: the line that holds `sum` is
/// looked for among them.
fn fraction(sum: f64, classes: &[Class]) -> f64 {
    let relative = |bound: f64, class: &Class| bound / class.target.max(LEAST_TARGET);
    let mut bends: Vec<f64> =
        classes.iter().flat_map(|class| [relative(class.lower, class), relative(class.upper, class)]).collect();
    bends.sort_by(f64::total_cmp);
    let given = |fraction: f64| classes.iter().map(|class| class.at(fraction)).sum::<f64>();
    let next = bends.partition_point(|bend| given(*bend) < sum - EPSILON);
    let Some(end) = bends.get(next).copied() else { return bends.last().copied().unwrap_or(0.0) };
    let Some(start) = next.checked_sub(1).and_then(|index| bends.get(index)).copied() else { return end };
    let (below, above) = (given(start), given(end));
    if above - below < EPSILON { end } else { start + (end - start) * (sum - below) / (above - below) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(target: f64, lower: f64, upper: f64) -> Class {
        Class { target, lower, upper }
    }

    #[track_caller]
    fn check(sum: f64, classes: &[Class], expected: Option<(&[f64], f64)>) {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        match (allocate(sum, classes), expected) {
            (None, None) => {}
            (Some((given, fraction)), Some((expected, wanted))) => {
                assert!(given.iter().zip(expected).all(|(a, b)| close(*a, *b)), "{given:?} {expected:?}");
                assert!(close(fraction, wanted), "{fraction} {wanted}");
            }
            (got, expected) => panic!("{got:?} {expected:?}"),
        }
    }

    #[test]
    fn everybody_gets_the_same_fraction_within_bounds() {
        check(0.0, &[], Some((&[], 0.0)));
        check(1.0, &[], None);
        check(1.0, &[class(4.0, 0.0, 4.0)], Some((&[1.0], 0.25)));
        check(1.0, &[class(4.0, 2.0, 4.0)], None);
        check(5.0, &[class(4.0, 2.0, 4.0)], None);
        check(0.5, &[class(0.0, 0.0, 4.0)], Some((&[0.5], 500.0)));
        check(1.0, &[class(1.0, 0.0, 2.0), class(2.0, 0.0, 4.0)], Some((&[1.0 / 3.0, 2.0 / 3.0], 1.0 / 3.0)));
        // One bound from below, one from above.
        check(100.0, &[class(50.0, 50.0, 80.0), class(100.0, 0.0, 200.0)], Some((&[50.0, 50.0], 0.5)));
        check(9.0, &[class(10.0, 0.0, 2.0), class(10.0, 0.0, 20.0)], Some((&[2.0, 7.0], 0.7)));
        // More than is wanted: all grow until their bounds.
        check(30.0, &[class(5.0, 0.0, 8.0), class(10.0, 0.0, 30.0)], Some((&[8.0, 22.0], 2.2)));
        check(38.0, &[class(5.0, 0.0, 8.0), class(10.0, 0.0, 30.0)], Some((&[8.0, 30.0], 3.0)));
    }
}
