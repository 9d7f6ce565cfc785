//! Amounts in thousandths as quantities that look as upstream's.
//!
//! Pure. Invariant: memory is said in powers of two, everything else in powers of ten.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// An amount of a resource.
pub(super) fn of_resource(resource: &str, millis: i64) -> Quantity {
    match resource {
        "memory" => binary(millis),
        _ => decimal(millis),
    }
}

/// The shortest exact form with a decimal suffix.
pub(super) fn decimal(millis: i64) -> Quantity {
    Quantity(shortest(millis, 1000, &["m", "", "k", "M", "G", "T", "P", "E"]))
}

fn binary(millis: i64) -> Quantity {
    let units = millis.div_euclid(1000) + i64::from(millis.rem_euclid(1000) != 0);
    match units.abs() < 1024 {
        true => decimal(millis),
        false => Quantity(shortest(units, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])),
    }
}

fn shortest(mut number: i64, step: i64, suffixes: &[&str]) -> String {
    if number == 0 {
        return "0".to_owned();
    }
    let mut power = 0;
    while number % step == 0 && power + 1 < suffixes.len() {
        number /= step;
        power += 1;
    }
    format!("{number}{}", suffixes[power])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short_and_exact() {
        for (resource, millis, expected) in [
            ("cpu", 0, "0"),
            ("cpu", 250, "250m"),
            ("cpu", 1500, "1500m"),
            ("cpu", 2000, "2"),
            ("", 3_000_000, "3k"),
            ("memory", 1_048_576_000, "1Mi"),
            ("memory", 11_264_000, "11Ki"),
            ("memory", 1_048_577_000, "1048577"),
            ("memory", 500_000, "500"),
            ("memory", 10_485_760_001, "10485761"),
        ] {
            assert_eq!(of_resource(resource, millis).0, expected, "{resource} {millis}");
        }
    }
}
