//! Quantities of resources as numbers, to compare two of them: `250m`, `64Mi`, `1e3`.
//!
//! Not exact beyond the 15 digits of a double, which is enough to say which of two is larger.

const SUFFIXES: &[(&str, f64)] = &[
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
];

/// The number that a quantity means; nothing where it is none.
pub(crate) fn quantity(text: &str) -> Option<f64> {
    let suffix = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix));
    let (number, factor) = suffix.map_or((text, 1.0), |(suffix, factor)| (text.trim_end_matches(suffix), *factor));
    number.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::quantity;

    #[test]
    fn suffixes_are_factors() {
        for (text, number) in [
            ("2", Some(2.0)),
            ("250m", Some(0.25)),
            ("64Mi", Some(67_108_864.0)),
            ("1e3", Some(1000.0)),
            ("1.5G", Some(1.5e9)),
            ("", None),
            ("x", None),
            ("Mi", None),
        ] {
            assert_eq!(quantity(text), number, "{text}");
        }
    }
}
