//! Which devices a container gets.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Container;
use kedge_meta::Quantity;

/// Devices that are settled, and those among which the rest is chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) settled: BTreeSet<String>,
    pub(super) available: BTreeSet<String>,
    pub(super) missing: usize,
}

/// What a container asks for of resources that may be a plug-in's: those with a domain that is not Kubernetes' own.
pub(super) fn asked(container: &Container) -> BTreeMap<String, usize> {
    let limits = container.resources.iter().flat_map(|resources| resources.limits.iter().flatten());
    let counts = limits.filter(|(name, _)| is_extended(name)).filter_map(|(name, amount)| {
        let count = amount.0.parse::<Quantity>().unwrap_or_default().units();
        Some((name.clone(), usize::try_from(count).ok().filter(|count| *count > 0)?))
    });
    counts.collect()
}

/// Whether a name is one of an extended resource.
pub(super) fn is_extended(name: &str) -> bool {
    let Some((domain, rest)) = name.split_once('/') else { return false };
    !domain.is_empty()
        && !rest.is_empty()
        && !rest.contains('/')
        && domain != "kubernetes.io"
        && !domain.ends_with(".kubernetes.io")
        && !name.starts_with("requests.")
}

/// Looks for `count` devices: those that the pod has already and does not use any more, then free ones.
pub(super) fn choose(
    resource: &str,
    healthy: &BTreeSet<String>,
    in_use: &BTreeSet<String>,
    reusable: &BTreeSet<String>,
    count: usize,
) -> Result<Choice, String> {
    if healthy.is_empty() {
        return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
    }
    let settled: BTreeSet<String> = reusable.iter().take(count).cloned().collect();
    let missing = count - settled.len();
    let available: BTreeSet<String> = healthy.difference(in_use).cloned().collect();
    if available.len() < missing {
        let have = available.len();
        return Err(format!(
            "requested number of devices unavailable for {resource}. Requested: {missing}, Available: {have}"
        ));
    }
    Ok(Choice { settled, available, missing })
}

impl Choice {
    /// Whether there is anything to choose.
    pub(super) fn is_open(&self) -> bool {
        self.missing > 0 && self.missing < self.available.len()
    }

    /// The devices: what the plug-in prefers first, as far as it may.
    pub(super) fn settle(self, preferred: &[String]) -> BTreeSet<String> {
        let first = preferred.iter().filter(|id| self.available.contains(*id));
        let rest = self.available.iter().filter(|id| !preferred.contains(id));
        let mut ids = self.settled.clone();
        ids.extend(first.chain(rest).take(self.missing).cloned());
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn free_devices_are_given() {
        let check =
            |in_use: &[&str], reusable: &[&str], count: usize, preferred: &[&str], expected: Result<&[&str], &str>| {
                let preferred: Vec<String> = preferred.iter().map(|id| (*id).to_owned()).collect();
                let chosen = choose("r", &set(&["a", "b", "c"]), &set(in_use), &set(reusable), count);
                let chosen = chosen.map(|choice| choice.settle(&preferred));
                assert_eq!(chosen, expected.map(set).map_err(str::to_owned));
            };
        check(&[], &[], 1, &[], Ok(&["a"]));
        check(&[], &[], 2, &["c"], Ok(&["a", "c"]));
        check(&["a"], &[], 2, &["a", "c"], Ok(&["b", "c"]));
        check(&["a"], &["a"], 1, &[], Ok(&["a"]));
        check(&["a"], &["a"], 2, &["c"], Ok(&["a", "c"]));
        let text = "requested number of devices unavailable for r. Requested: 3, Available: 2";
        check(&["a"], &[], 3, &[], Err(text));
        let none = choose("r", &set(&[]), &set(&[]), &set(&[]), 1).unwrap_err();
        assert_eq!(none, "no healthy devices present; cannot allocate unhealthy devices r");
    }

    #[test]
    fn extended_resources_have_foreign_domains() {
        for (name, expected) in [
            ("cpu", false),
            ("example.com/gpu", true),
            ("kubernetes.io/x", false),
            ("deep.kubernetes.io/x", false),
            ("example.com/", false),
            ("a/b/c", false),
        ] {
            assert_eq!(is_extended(name), expected, "{name}");
        }
    }
}
