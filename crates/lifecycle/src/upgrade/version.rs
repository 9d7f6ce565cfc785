//! Versions of components, and which upgrades they allow: upstream's skew policy for versions of Kubernetes, and the order
//! of Kedge's builds within one of them.
//!
//! Pure.

use std::collections::BTreeMap;
use std::fmt;

const BUILD: &str = "kedge-";
/// By how many minor versions kubelets may be behind the API server.
const KUBELET_SKEW: u64 = 3;

/// A version of Kubernetes, and the build of Kedge that brings it where one does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterVersion {
    /// Without build metadata.
    pub kubernetes: semver::Version,
    /// Kedge's own.
    pub build: Option<semver::Version>,
}

impl fmt::Display for ClusterVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "v{}", self.kubernetes)?;
        match &self.build {
            Some(build) => write!(formatter, "+{BUILD}{build}"),
            None => Ok(()),
        }
    }
}

impl ClusterVersion {
    /// Reads `v1.36.0+kedge-0.1.0`, the same as an image's tag (with `_`), or a version without a build.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text).replacen('_', "+", 1);
        let (kubernetes, metadata) = text.split_once('+').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
        let kubernetes = semver::Version::parse(kubernetes).ok()?;
        let build = metadata.and_then(|text| semver::Version::parse(text.strip_prefix(BUILD)?).ok());
        Some(Self { kubernetes, build })
    }

    /// That of this binary.
    pub fn own() -> Self {
        let full = kedge_meta::full_version();
        Self::parse(full).unwrap_or_else(|| Self { kubernetes: semver::Version::new(0, 0, 0), build: None })
    }

    /// What the tag of an image says.
    pub fn of_image(image: &str) -> Option<Self> {
        Self::parse(image.rsplit_once(':')?.1)
    }

    /// What a user means: nothing for this binary's version, a build's number alone, or a version of Kubernetes.
    pub fn asked(text: Option<&str>, own: &Self) -> Option<Self> {
        let Some(text) = text else { return Some(own.clone()) };
        let read = Self::parse(text)?;
        let means_own =
            read.build.is_none() && (read.kubernetes == own.kubernetes || Some(&read.kubernetes) == own.build.as_ref());
        Some(if means_own { own.clone() } else { read })
    }

    /// Whether the minor version is the same.
    pub fn is_in_series_of(&self, other: &Self) -> bool {
        (self.kubernetes.major, self.kubernetes.minor) == (other.kubernetes.major, other.kubernetes.minor)
    }
}

/// What decides whether an upgrade is allowed.
#[derive(Debug, Clone)]
pub(super) struct Skew<'a> {
    /// The newest API server's.
    pub cluster: &'a ClusterVersion,
    /// This binary's.
    pub own: &'a ClusterVersion,
    /// The one that is asked for.
    pub wanted: &'a ClusterVersion,
    /// Nodes by the versions of their kubelets.
    pub kubelets: &'a BTreeMap<String, Vec<String>>,
    /// Whether versions with names like `alpha` and `rc` are allowed.
    pub allows_unstable: bool,
}

/// What speaks against an upgrade.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SkewErrors {
    /// Whatever is forced.
    pub mandatory: Vec<String>,
    /// Unless it is forced.
    pub skippable: Vec<String>,
}

impl Skew<'_> {
    /// Everything that speaks against it.
    pub(super) fn errors(&self) -> SkewErrors {
        let mut errors = SkewErrors::default();
        self.check_distance(&mut errors);
        self.check_own(&mut errors);
        self.check_kubelets(&mut errors);
        if !self.wanted.kubernetes.pre.is_empty() && !self.allows_unstable {
            errors.skippable.push(format!(
                "Specified version to upgrade to \"{}\" is an unstable version and such upgrades weren't allowed via setting \
                 the --allow-*-upgrades flags",
                self.wanted
            ));
        }
        errors
    }

    fn check_distance(&self, errors: &mut SkewErrors) {
        let (wanted, cluster) = (self.wanted, self.cluster);
        let (to, from) = (wanted.kubernetes.minor, cluster.kubernetes.minor);
        if to > from + 1 {
            errors.mandatory.push(format!(
                "Specified version to upgrade to \"{wanted}\" is too high; kedge can upgrade only 1 minor version at a time"
            ));
        }
        if to + 1 < from {
            errors.mandatory.push(format!(
                "Specified version to downgrade to \"{wanted}\" is too low; kedge can downgrade only 1 minor version at a \
                 time"
            ));
        } else if wanted < cluster {
            errors.skippable.push(format!(
                "Specified version to upgrade to \"{wanted}\" is lower than the cluster version \"{cluster}\": this is a \
                 downgrade"
            ));
        }
    }

    /// A binary brings its own version and no other.
    fn check_own(&self, errors: &mut SkewErrors) {
        let (wanted, own) = (self.wanted, self.own);
        if wanted > own {
            errors.mandatory.push(format!(
                "Specified version to upgrade to \"{wanted}\" is higher than the kedge version \"{own}\". Upgrade kedge \
                 first using the tool you used to install kedge"
            ));
        } else if wanted < own {
            errors.mandatory.push(format!("kedge version {own} can only be used to upgrade to {own}"));
        }
    }

    fn check_kubelets(&self, errors: &mut SkewErrors) {
        let (mut old, mut new, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for text in self.kubelets.keys() {
            match ClusterVersion::parse(text) {
                None => unknown.push(text.as_str()),
                Some(kubelet) if self.wanted.kubernetes.minor > kubelet.kubernetes.minor + KUBELET_SKEW => {
                    old.push(text.as_str());
                }
                Some(kubelet) if kubelet > *self.wanted => new.push(text.as_str()),
                Some(_) => {}
            }
        }
        let mut say = |found: &[&str], what: &str| {
            if !found.is_empty() {
                errors.skippable.push(format!("{what} [{}]", found.join(" ")));
            }
        };
        say(&old, "There are kubelets in this cluster that are too old that have these versions");
        say(
            &new,
            "There are kubelets in this cluster that are newer than the API server would be, with these versions",
        );
        say(&unknown, "There are kubelets in this cluster whose versions can't be read:");
    }
}

impl SkewErrors {
    /// Whether nothing speaks against it.
    pub(super) fn is_empty(&self) -> bool {
        self.mandatory.is_empty() && self.skippable.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ClusterVersion {
        ClusterVersion::parse(text).unwrap()
    }

    #[test]
    fn versions_are_read_and_ordered() {
        let full = version("v1.36.0+kedge-0.1.0");
        assert_eq!(full.to_string(), "v1.36.0+kedge-0.1.0");
        assert_eq!(ClusterVersion::of_image("localhost/kedge:v1.36.0_kedge-0.1.0"), Some(full.clone()));
        assert_eq!(ClusterVersion::of_image("localhost/etcd:v3.4.23").unwrap().to_string(), "v3.4.23");
        assert_eq!(ClusterVersion::parse("latest"), None);
        assert!(version("1.36.0+kedge-0.1.10") > version("1.36.0+kedge-0.1.9"));
        assert!(version("v1.36.1") > full && version("v1.36.0") < full);
        let asked = |text: &str| ClusterVersion::asked(Some(text), &full).unwrap().to_string();
        assert_eq!(asked("v1.36.0"), full.to_string());
        assert_eq!(asked("0.1.0"), full.to_string());
        assert_eq!(asked("v1.36.1"), "v1.36.1");
    }

    #[test]
    fn upgrades_are_judged() {
        let check =
            |cluster: &str, own: &str, asked: &str, kubelets: &[&str], mandatory: &[&str], skippable: &[&str]| {
                let own = version(own);
                let kubelets = kubelets.iter().map(|text| ((*text).to_owned(), vec!["n".to_owned()])).collect();
                let wanted = ClusterVersion::asked(Some(asked), &own).unwrap();
                let cluster = version(cluster);
                let skew =
                    Skew { cluster: &cluster, own: &own, wanted: &wanted, kubelets: &kubelets, allows_unstable: false };
                let errors = skew.errors();
                let holds = |found: &[String], expected: &[&str]| {
                    assert_eq!(found.len(), expected.len(), "{cluster} to {asked}: {found:?}");
                    for (text, part) in found.iter().zip(expected) {
                        assert!(text.contains(part), "{cluster} to {asked}: {part:?} is not in {text:?}");
                    }
                };
                holds(&errors.mandatory, mandatory);
                holds(&errors.skippable, skippable);
            };
        let (one, two) = ("v1.36.0+kedge-0.1.0", "v1.36.0+kedge-0.1.1");
        check(one, two, "v1.36.0", &[one], &[], &[]);
        check(two, two, "v1.36.0", &[one, two], &[], &[]);
        check("v1.35.2", one, "v1.36.0", &["v1.33.0"], &[], &[]);
        check("v1.35.2", one, "v1.36.0", &["v1.32.9"], &[], &["too old that have these versions [v1.32.9]"]);
        check("v1.34.0", one, "v1.36.0", &[], &["is too high"], &[]);
        check("v1.38.0", one, "v1.36.0", &[], &["is too low"], &[]);
        check(two, one, "v1.36.0", &[one], &[], &["this is a downgrade"]);
        check(two, one, "v1.36.0", &[two], &[], &["this is a downgrade", "newer than the API server would be"]);
        check(one, one, "v1.36.1", &[], &["is higher than the kedge version"], &[]);
        check(one, two, "v1.36.0+kedge-0.1.0", &[], &["can only be used to upgrade to"], &[]);
        check("v1.36.0-rc.0", "v1.36.0-rc.1", "v1.36.0-rc.1", &["?"], &[], &["can't be read: [?]", "unstable version"]);
    }
}
