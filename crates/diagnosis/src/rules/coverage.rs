//! Every entry of the catalogue of failures has a rule, or a reason why it has none.

use std::collections::BTreeSet;

use crate::rules::rules;

/// The groups of the catalogue, and how many entries each has.
const GROUPS: &[(char, u32)] =
    &[('A', 20), ('B', 14), ('C', 14), ('D', 20), ('E', 22), ('F', 16), ('G', 25), ('H', 13), ('I', 15)];
/// All of them.
const ENTRIES: usize = 159;
/// Entries without a rule, and why.
const WITHOUT: &[(&str, &str)] =
    &[("I2", "a volume that waits for its first pod is no failure: that it does not alarm is a test of I1 and I3")];

#[test]
fn every_entry_of_the_catalogue_has_a_rule_or_a_reason() {
    let known: BTreeSet<&str> = rules().map(|rule| rule.id).collect();
    let entries: Vec<String> =
        GROUPS.iter().flat_map(|(group, count)| (1..=*count).map(move |number| format!("{group}{number}"))).collect();
    assert_eq!(entries.len(), ENTRIES);
    for entry in &entries {
        let excused = WITHOUT.iter().any(|(id, _)| id == entry);
        assert!(known.contains(entry.as_str()) != excused, "{entry} has neither a rule nor a reason, or both");
    }
    // What is in no group of the catalogue is said to be so.
    let others: Vec<&&str> = known.iter().filter(|id| !entries.iter().any(|entry| entry == **id)).collect();
    assert!(others.iter().all(|id| id.starts_with('W')), "{others:?}");
}
