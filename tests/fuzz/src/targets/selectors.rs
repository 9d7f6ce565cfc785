//! Selectors of labels and fields.

use kedge_meta::{FieldSelector, LabelSelector};

use super::{outcome, size};

pub(super) fn labels(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    match LabelSelector::parse(&text) {
        Ok(selector) => {
            let written = selector.to_string();
            let again = LabelSelector::parse(&written).expect("what is written can be read");
            assert_eq!(again.to_string(), written);
            let matched = selector.matches_with(|key| (key == "a").then_some("a"));
            outcome(u64::from(matched) << 8 | size(selector.requirements().len()), "")
        }
        Err(error) => outcome(1, &error.to_string()),
    }
}

pub(super) fn fields(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    match FieldSelector::parse(&text) {
        Ok(selector) => {
            let matched = selector.matches_with(|field| field.to_owned());
            outcome(u64::from(matched) << 8 | size(selector.terms().len()), "")
        }
        Err(error) => outcome(1, &error.to_string()),
    }
}
