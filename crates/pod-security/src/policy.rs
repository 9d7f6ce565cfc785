//! Levels, versions, and the policy that a namespace's labels make.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may do; the later ones allow less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Level {
    /// Everything.
    #[default]
    Privileged,
    /// Nothing that is known to lead out of a container.
    Baseline,
    /// What current practice of hardening allows.
    Restricted,
}

/// The release whose standards count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Version {
    /// Of release 1.x.
    Minor(u32),
    /// Of the server's own release.
    #[default]
    Latest,
}

/// A level as of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LevelVersion {
    /// The level.
    pub level: Level,
    /// The release.
    pub version: Version,
}

/// What a namespace asks for. By default nothing is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// Pods that violate this are refused.
    pub enforce: LevelVersion,
    /// Pods that violate this are noted in the audit log.
    pub audit: LevelVersion,
    /// Whoever writes pods that violate this is warned.
    pub warn: LevelVersion,
}

/// A label with a value that it can't have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelError {
    /// The label's key.
    pub label: String,
    /// Its value.
    pub value: String,
    /// What it must be.
    pub why: &'static str,
}

impl Level {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Self::Privileged),
            "baseline" => Ok(Self::Baseline),
            "restricted" => Ok(Self::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

impl Version {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let digits =
            text.strip_prefix("v1.").filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
        let digits = digits.filter(|digits| *digits == "0" || !digits.starts_with('0'));
        let minor = digits.and_then(|digits| digits.parse().ok());
        minor.map(Self::Minor).ok_or("must be \"latest\" or \"v1.x\"")
    }
}

impl Policy {
    /// What labels ask for over `defaults`, and which of them can't be read. What can't be read is enforced as restricted,
    /// and neither audited nor warned of.
    pub fn of_labels(labels: &Value, defaults: &Self) -> (Self, Vec<LabelError>) {
        let mut errors = Vec::new();
        let mut level = |name: &str, otherwise: Level| {
            let parsed = read(labels, name, Level::parse, &mut errors)?;
            Some(parsed.unwrap_or(otherwise)).map(|level| (level, parsed.is_some()))
        };
        let (enforce, audit, warn) =
            (level("enforce", Level::Restricted), level("audit", Level::Privileged), level("warn", Level::Privileged));
        let mut version = |name: &str| {
            let parsed = read(labels, name, Version::parse, &mut errors);
            parsed.map(Option::unwrap_or_default)
        };
        let (enforce_version, audit_version, warn_version) =
            (version("enforce-version"), version("audit-version"), version("warn-version"));
        let make = |level: Option<(Level, bool)>, version: Option<Version>, default: LevelVersion| LevelVersion {
            level: level.map_or(default.level, |(level, _)| level),
            version: version.unwrap_or(default.version),
        };
        let mut policy = Self {
            enforce: make(enforce, enforce_version, defaults.enforce),
            audit: make(audit, audit_version, defaults.audit),
            warn: make(warn, warn_version, defaults.warn),
        };
        // Who is refused pods is to be warned of what makes them, too.
        if warn.is_none() && enforce.is_some_and(|(_, is_good)| is_good) && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            policy.warn.version = warn_version.unwrap_or(policy.enforce.version);
        }
        errors.sort_by_key(|error| order(&error.label));
        (policy, errors)
    }

    /// Whether it asks for nothing at all.
    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|one| one.level == Level::Privileged)
    }
}

/// The value of a label; absent where there is none, `Some(None)` where it can't be read.
fn read<T>(
    labels: &Value,
    name: &str,
    parse: fn(&str) -> Result<T, &'static str>,
    errors: &mut Vec<LabelError>,
) -> Option<Option<T>> {
    let label = format!("{PREFIX}{name}");
    let value = labels.get(&label)?.as_str()?;
    match parse(value) {
        Ok(parsed) => Some(Some(parsed)),
        Err(why) => {
            errors.push(LabelError { label, value: value.to_owned(), why });
            Some(None)
        }
    }
}

/// Upstream names a mode's level and then its version.
fn order(label: &str) -> usize {
    let names = ["enforce", "enforce-version", "audit", "audit-version", "warn", "warn-version"];
    names.iter().position(|name| label.strip_prefix(PREFIX) == Some(name)).unwrap_or(names.len())
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::Latest => write!(f, "{}:latest", self.level),
            Version::Minor(minor) => write!(f, "{}:v1.{minor}", self.level),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(labels: &[(&str, &str)], expected: [&str; 3], wrong: &[&str]) {
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|(name, value)| (format!("{PREFIX}{name}"), json!(value))).collect();
        let (policy, errors) = Policy::of_labels(&labels.clone().into(), &Policy::default());
        let seen = [policy.enforce, policy.audit, policy.warn].map(|one| one.to_string());
        assert_eq!(seen, expected, "{labels:?}");
        assert_eq!(errors.iter().map(|error| error.value.as_str()).collect::<Vec<_>>(), wrong);
    }

    #[test]
    fn labels_count_over_defaults() {
        let baseline = LevelVersion { level: Level::Baseline, version: Version::Minor(30) };
        let defaults = Policy { enforce: baseline, warn: baseline, ..Policy::default() };
        let check = |labels: Value, expected: [&str; 3]| {
            let policy = Policy::of_labels(&labels, &defaults).0;
            assert_eq!([policy.enforce, policy.audit, policy.warn].map(|one| one.to_string()), expected, "{labels}");
        };
        check(json!({}), ["baseline:v1.30", "privileged:latest", "baseline:v1.30"]);
        let strict = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        check(strict, ["restricted:v1.30", "privileged:latest", "restricted:v1.30"]);
        let free = json!({"pod-security.kubernetes.io/enforce": "privileged"});
        check(free, ["privileged:v1.30", "privileged:latest", "baseline:v1.30"]);
    }

    #[test]
    fn labels_make_a_policy() {
        let free = "privileged:latest";
        check(&[], [free, free, free], &[]);
        check(&[("enforce", "baseline")], ["baseline:latest", free, "baseline:latest"], &[]);
        check(&[("enforce", "baseline"), ("warn", "privileged")], ["baseline:latest", free, free], &[]);
        check(&[("enforce", "baseline"), ("warn", "restricted")], ["baseline:latest", free, "restricted:latest"], &[]);
        check(
            &[("enforce", "restricted"), ("enforce-version", "v1.24")],
            ["restricted:v1.24", free, "restricted:v1.24"],
            &[],
        );
        check(
            &[("enforce", "restricted"), ("enforce-version", "v1.24"), ("warn-version", "v1.30")],
            ["restricted:v1.24", free, "restricted:v1.30"],
            &[],
        );
        check(&[("audit", "restricted"), ("audit-version", "latest")], [free, "restricted:latest", free], &[]);
        check(&[("enforce", "none")], ["restricted:latest", free, free], &["none"]);
        check(
            &[("warn-version", "v1.01"), ("warn", "x"), ("enforce-version", "1.2")],
            ["privileged:latest", free, free],
            &["1.2", "x", "v1.01"],
        );
    }
}
