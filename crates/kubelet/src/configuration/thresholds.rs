//! Eviction thresholds from upstream's maps of signals to amounts.
//!
//! Pure. Invariant: a soft threshold has a grace period.

use std::collections::BTreeMap;
use std::time::Duration;

use kedge_meta::Quantity;

use super::{ConfigurationError, duration};
use crate::eviction::{Amount, Signal, Threshold};

pub(super) type Texts = BTreeMap<String, String>;

/// Signals that are derived from others here, as upstream does too.
const DERIVED: [&str; 2] = ["containerfs.available", "containerfs.inodesFree"];

/// The four maps of the document.
pub(super) struct Maps<'a> {
    pub(super) hard: Option<&'a Texts>,
    pub(super) soft: Option<&'a Texts>,
    pub(super) soft_grace: Option<&'a Texts>,
    pub(super) minimum_reclaim: Option<&'a Texts>,
    /// Whether hard thresholds that are not named keep their defaults.
    pub(super) merge_defaults: bool,
}

/// All thresholds; `defaults` where nothing hard is set.
pub(super) fn thresholds(
    maps: &Maps<'_>,
    defaults: &[Threshold],
    warnings: &mut Vec<String>,
) -> Result<Vec<Threshold>, ConfigurationError> {
    let mut all = match maps.hard {
        None => defaults.to_vec(),
        Some(hard) => {
            let own = read("evictionHard", hard, warnings)?;
            let is_named = |default: &&Threshold| own.iter().any(|(signal, _)| *signal == default.signal);
            let kept = defaults.iter().filter(|default| maps.merge_defaults && !is_named(default)).copied();
            let own = own.iter().filter_map(|(signal, value)| Some(threshold(*signal, (*value)?, Duration::ZERO)));
            own.chain(kept).collect()
        }
    };
    for (signal, value) in read("evictionSoft", maps.soft.unwrap_or(&Texts::new()), warnings)? {
        let grace = maps.soft_grace.and_then(|periods| periods.get(signal.name())).ok_or_else(|| {
            let why = format!("grace period must be specified for the soft eviction threshold {}", signal.name());
            ConfigurationError::invalid("evictionSoft", why)
        })?;
        let grace =
            duration::parse(grace).map_err(|why| ConfigurationError::invalid("evictionSoftGracePeriod", why))?;
        all.extend(value.map(|value| threshold(signal, value, grace)));
    }
    check_names("evictionSoftGracePeriod", maps.soft_grace)?;
    for (signal, amount) in read("evictionMinimumReclaim", maps.minimum_reclaim.unwrap_or(&Texts::new()), warnings)? {
        for threshold in all.iter_mut().filter(|threshold| threshold.signal == signal) {
            threshold.minimum_reclaim = amount;
        }
    }
    Ok(all)
}

fn threshold(signal: Signal, value: Amount, grace_period: Duration) -> Threshold {
    Threshold { signal, value, grace_period, minimum_reclaim: None }
}

fn check_names(field: &'static str, texts: Option<&Texts>) -> Result<(), ConfigurationError> {
    let unknown = texts.into_iter().flatten().find(|(name, _)| Signal::from_name(name).is_none() && !is_derived(name));
    match unknown {
        Some((name, _)) => Err(unknown_signal(field, name)),
        None => Ok(()),
    }
}

fn unknown_signal(field: &'static str, name: &str) -> ConfigurationError {
    ConfigurationError::invalid(field, format!("unsupported eviction signal {name}"))
}

fn is_derived(name: &str) -> bool {
    DERIVED.contains(&name)
}

/// The amounts of a map; `None` where a threshold is switched off with `0%` or `100%`.
fn read(
    field: &'static str,
    texts: &Texts,
    warnings: &mut Vec<String>,
) -> Result<Vec<(Signal, Option<Amount>)>, ConfigurationError> {
    let mut amounts = Vec::new();
    for (name, text) in texts {
        if is_derived(name) {
            warnings.push(format!("{field}: {name} is not used: it follows from nodefs or imagefs"));
            continue;
        }
        let signal = Signal::from_name(name).ok_or_else(|| unknown_signal(field, name))?;
        let amount = amount(text).map_err(|why| ConfigurationError::invalid(field, format!("{name}: {why}")))?;
        amounts.push((signal, Some(amount).filter(|_| !matches!(text.as_str(), "0%" | "100%"))));
    }
    Ok(amounts)
}

fn amount(text: &str) -> Result<Amount, String> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.parse().map_err(|_| format!("{text:?} is no percentage"))?;
        return match (0.0..=100.0).contains(&percent) {
            true => Ok(Amount::Percent(percent)),
            false => Err(format!("{text} must be >= 0% and <= 100%")),
        };
    }
    let quantity: Quantity = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    match quantity > Quantity::ZERO {
        true => Ok(Amount::Bytes(quantity.units())),
        false => Err(format!("{text} must be positive")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(entries: &[(&str, &str)]) -> Texts {
        entries.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn check(hard: Option<&[(&str, &str)]>, merge_defaults: bool, expected: Result<&[(Signal, Amount)], &str>) {
        let hard = hard.map(texts);
        let maps = Maps { hard: hard.as_ref(), soft: None, soft_grace: None, minimum_reclaim: None, merge_defaults };
        let defaults = [threshold(Signal::NodefsAvailable, Amount::Percent(10.0), Duration::ZERO)];
        let found = thresholds(&maps, &defaults, &mut Vec::new());
        let found =
            found.map(|all| all.iter().map(|threshold| (threshold.signal, threshold.value)).collect::<Vec<_>>());
        assert_eq!(found.map_err(|error| error.to_string()), expected.map(<[_]>::to_vec).map_err(str::to_owned));
    }

    #[test]
    fn hard_thresholds_replace_the_defaults_unless_they_are_merged() {
        use Amount::{Bytes, Percent};
        use Signal::{MemoryAvailable, NodefsAvailable};
        check(None, false, Ok(&[(NodefsAvailable, Percent(10.0))]));
        let memory: &[(&str, &str)] = &[("memory.available", "1Gi")];
        check(Some(memory), false, Ok(&[(MemoryAvailable, Bytes(1 << 30))]));
        check(Some(memory), true, Ok(&[(MemoryAvailable, Bytes(1 << 30)), (NodefsAvailable, Percent(10.0))]));
        check(Some(&[("nodefs.available", "0%")]), true, Ok(&[]));
        check(Some(&[("disk", "1")]), false, Err("evictionHard: unsupported eviction signal disk"));
        check(Some(&[("memory.available", "0")]), false, Err("evictionHard: memory.available: 0 must be positive"));
        let too_much = "evictionHard: memory.available: 101% must be >= 0% and <= 100%";
        check(Some(&[("memory.available", "101%")]), false, Err(too_much));
    }

    #[test]
    fn soft_thresholds_need_a_grace_period() {
        let soft = texts(&[("memory.available", "10%")]);
        let grace = texts(&[("memory.available", "1m30s")]);
        let reclaim = texts(&[("memory.available", "5Mi")]);
        let none = Texts::new();
        let maps = |soft_grace| Maps {
            hard: Some(&none),
            soft: Some(&soft),
            soft_grace,
            minimum_reclaim: Some(&reclaim),
            merge_defaults: false,
        };
        let all = thresholds(&maps(Some(&grace)), &[], &mut Vec::new()).unwrap();
        assert_eq!(all[0].grace_period, Duration::from_secs(90));
        assert_eq!(all[0].minimum_reclaim, Some(Amount::Bytes(5 << 20)));
        let error = thresholds(&maps(None), &[], &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("grace period must be specified"), "{error}");
    }
}
