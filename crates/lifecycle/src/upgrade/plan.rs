//! What an upgrade would change: kubeadm's document `UpgradePlan` and its text.
//!
//! Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::version::ClusterVersion;

/// Nodes by the version of a component on them.
pub(super) type NodesByVersion = BTreeMap<String, Vec<String>>;

/// The components of a control plane, under whose names versions are kept in [`FoundVersions`].
const CONTROL_PLANE: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// The versions of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FoundVersions {
    /// By component (`kube-apiserver`, ..., `etcd`): nodes by version.
    pub components: BTreeMap<String, NodesByVersion>,
    /// The kubelets.
    pub kubelets: NodesByVersion,
    /// The add-ons that are there, by name.
    pub addons: BTreeMap<String, String>,
}

impl FoundVersions {
    /// A component's versions.
    pub(super) fn of(&self, component: &str) -> NodesByVersion {
        self.components.get(component).cloned().unwrap_or_default()
    }

    /// The newest API server's version.
    pub(super) fn cluster(&self) -> Option<ClusterVersion> {
        self.of("kube-apiserver").keys().filter_map(|text| ClusterVersion::parse(text)).max()
    }
}

/// One component of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentPlan {
    /// The component.
    pub name: String,
    /// What it is.
    pub current_version: String,
    /// What it would be.
    pub new_version: String,
    /// Where; empty for add-ons.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
}

/// An upgrade that is possible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AvailableUpgrade {
    /// What it is called.
    pub description: String,
    /// What it changes.
    pub components: Vec<ComponentPlan>,
}

/// The version of a component's configuration document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigVersion {
    /// Its API group.
    pub group: String,
    /// The version that is kept in the cluster.
    pub current_version: String,
    /// The version that this binary writes.
    pub preferred_version: String,
    /// Whether a person has to rewrite it.
    pub manual_upgrade_required: bool,
}

/// A deprecated API that somebody uses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeprecatedApi {
    /// Its group; empty for the core's.
    pub group: String,
    /// Its version.
    pub version: String,
    /// Its resource.
    pub resource: String,
    /// The release that serves it no longer; empty where none is planned.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub removed_release: String,
}

impl fmt::Display for DeprecatedApi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.group.is_empty() {
            write!(formatter, "{}/", self.group)?;
        }
        write!(formatter, "{} {}", self.version, self.resource)?;
        match self.removed_release.as_str() {
            "" => Ok(()),
            release => write!(formatter, " (not served from v{release} on)"),
        }
    }
}

/// All that a plan says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradePlan {
    kind: &'static str,
    api_version: &'static str,
    /// Upgrades that this binary can do; none where everything is as it brings it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub available_upgrades: Vec<AvailableUpgrade>,
    /// Configuration documents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub config_versions: Vec<ConfigVersion>,
    /// Deprecated APIs that the API server was asked for since it started.
    // DIVERGES: upstream's plan does not look for them.
    #[serde(rename = "deprecatedAPIs", skip_serializing_if = "Vec::is_empty")]
    pub deprecated_apis: Vec<DeprecatedApi>,
}

/// What this binary would bring.
#[derive(Debug, Clone)]
pub(super) struct Target<'a> {
    /// Its version.
    pub version: &'a ClusterVersion,
    /// The version of the machine's etcd; `None` where etcd is left alone.
    pub etcd: Option<String>,
}

impl UpgradePlan {
    /// Compares what is there with what would be.
    pub(super) fn new(found: &FoundVersions, target: &Target<'_>, config_versions: Vec<ConfigVersion>) -> Self {
        let components = components(found, target);
        let differs = |plan: &ComponentPlan| plan.current_version != plan.new_version;
        let available_upgrades = match components.iter().any(differs) {
            true => vec![AvailableUpgrade { description: description(found, target.version), components }],
            false => Vec::new(),
        };
        let (kind, api_version) = ("UpgradePlan", "output.kubeadm.k8s.io/v1alpha3");
        Self { kind, api_version, available_upgrades, config_versions, deprecated_apis: Vec::new() }
    }

    /// With the deprecated APIs that are used.
    pub(super) fn with_deprecated(self, deprecated_apis: Vec<DeprecatedApi>) -> Self {
        Self { deprecated_apis, ..self }
    }

    /// kubeadm's text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for upgrade in &self.available_upgrades {
            text.push_str(&upgrade.text());
            text.push_str(LINE);
        }
        text.push_str(
            "\nThe table below shows the current state of component configs as understood by this version of kedge.\n\
             Configs that have a \"yes\" mark in the \"MANUAL UPGRADE REQUIRED\" column require manual config upgrade or\n\
             resetting to kubeadm defaults before a successful upgrade can be performed. The version to manually\n\
             upgrade to is denoted in the \"PREFERRED VERSION\" column.\n\n",
        );
        let head = ["API GROUP", "CURRENT VERSION", "PREFERRED VERSION", "MANUAL UPGRADE REQUIRED"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.config_versions.iter().map(|config| {
            let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
            let required = if config.manual_upgrade_required { "yes" } else { "no" };
            [config.group.clone(), dash(&config.current_version), dash(&config.preferred_version), required.to_owned()]
        }));
        text.push_str(&table(&rows));
        text.push_str(LINE);
        if !self.deprecated_apis.is_empty() {
            let lines: String = self.deprecated_apis.iter().map(|api| format!("\t{api}\n")).collect();
            text.push_str(&format!(
                "Deprecated APIs that somebody has asked this API server for since it started; who uses one that will not be\n\
                 served has to be changed before that release:\n\n{lines}{LINE}"
            ));
        }
        text
    }
}

const LINE: &str = "_____________________________________________________________________\n\n";

impl AvailableUpgrade {
    fn text(&self) -> String {
        let rows = |is_wanted: &dyn Fn(&ComponentPlan) -> bool| {
            let mut rows = vec![["COMPONENT", "NODE", "CURRENT", "TARGET"].map(str::to_owned)];
            rows.extend(self.components.iter().filter(|plan| is_wanted(plan)).map(|plan| {
                [plan.name.clone(), plan.node_name.clone(), plan.current_version.clone(), plan.new_version.clone()]
            }));
            table(&rows)
        };
        let server = self.components.iter().find(|plan| plan.name == "kube-apiserver");
        let version = server.map(|plan| plan.new_version.as_str()).unwrap_or_default();
        format!(
            "Components that must be upgraded manually after you have upgraded the control plane with 'kedge upgrade apply' \
             ('kedge upgrade node' on each further machine):\n{}\nUpgrade to the latest {}:\n\n{}\n\
             You can now apply the upgrade by executing the following command:\n\n\tkedge upgrade apply {version}\n\n",
            rows(&|plan| plan.name == "kubelet"),
            self.description,
            rows(&|plan| plan.name != "kubelet"),
        )
    }
}

/// Rows in columns as upstream's tools set them: each at least ten wide, three apart, the last as wide as it is.
fn table(rows: &[[String; 4]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(10);
    let line = |row: &[String; 4]| {
        let cells = row.iter().enumerate();
        let padded = cells.map(|(at, cell)| if at == 3 { cell.clone() } else { format!("{cell:<0$}", width(at)) });
        padded.collect::<String>() + "\n"
    };
    rows.iter().map(line).collect()
}

fn description(found: &FoundVersions, target: &ClusterVersion) -> String {
    match found.cluster().is_some_and(|cluster| cluster.is_in_series_of(target)) {
        true => format!("version in the v{}.{} series", target.kubernetes.major, target.kubernetes.minor),
        false => "stable version".to_owned(),
    }
}

fn components(found: &FoundVersions, target: &Target<'_>) -> Vec<ComponentPlan> {
    let new = target.version.to_string();
    let mut plans = Vec::new();
    let mut on_nodes = |name: &str, versions: &NodesByVersion, new: &str| {
        for (version, nodes) in versions {
            plans.extend(nodes.iter().map(|node| plan(name, version, new, node)));
        }
    };
    on_nodes("kubelet", &found.kubelets, &new);
    for component in CONTROL_PLANE {
        on_nodes(component, &found.of(component), &new);
    }
    let addons: Vec<_> = found.addons.iter().map(|(name, version)| plan(name, version, &new, "")).collect();
    let etcd = found.of("etcd");
    let mut of_etcd = Vec::new();
    for (version, nodes) in target.etcd.iter().flat_map(|_| &etcd) {
        // An older etcd than the one that runs is left alone.
        let newer = target.etcd.as_deref().filter(|new| ClusterVersion::parse(new) > ClusterVersion::parse(version));
        of_etcd.extend(nodes.iter().map(|node| plan("etcd", version, newer.unwrap_or(version), node)));
    }
    plans.extend(addons);
    plans.extend(of_etcd);
    plans
}

fn plan(name: &str, current: &str, new: &str, node: &str) -> ComponentPlan {
    ComponentPlan {
        name: name.to_owned(),
        current_version: current.to_owned(),
        new_version: new.to_owned(),
        node_name: node.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(versions: &[(&str, &[&str])]) -> NodesByVersion {
        versions
            .iter()
            .map(|(version, nodes)| ((*version).to_owned(), nodes.iter().map(|node| (*node).to_owned()).collect()))
            .collect()
    }

    fn found(version: &str) -> FoundVersions {
        let control_plane = nodes(&[(version, &["cp"])]);
        let mut components: BTreeMap<String, NodesByVersion> =
            CONTROL_PLANE.iter().map(|name| ((*name).to_owned(), control_plane.clone())).collect();
        components.insert("etcd".to_owned(), nodes(&[("v3.4.23", &["cp"])]));
        let addons = [("CoreDNS", version), ("kube-proxy", version)].map(|(a, b)| (a.to_owned(), b.to_owned()));
        FoundVersions { components, kubelets: nodes(&[(version, &["cp", "w1"])]), addons: addons.into() }
    }

    #[test]
    fn everything_that_changes_is_in_the_tables() {
        let target = ClusterVersion::parse("v1.36.0+kedge-0.1.1").unwrap();
        let config = ConfigVersion {
            group: "kubelet.config.k8s.io".to_owned(),
            current_version: "v1beta1".to_owned(),
            preferred_version: "v1beta1".to_owned(),
            manual_upgrade_required: false,
        };
        let target = Target { version: &target, etcd: Some("v3.5.1".to_owned()) };
        let text = UpgradePlan::new(&found("v1.36.0+kedge-0.1.0"), &target, vec![config]).text();
        for line in [
            "COMPONENT   NODE      CURRENT               TARGET\n\
             kubelet     cp        v1.36.0+kedge-0.1.0   v1.36.0+kedge-0.1.1\n\
             kubelet     w1        v1.36.0+kedge-0.1.0   v1.36.0+kedge-0.1.1\n",
            "Upgrade to the latest version in the v1.36 series:\n",
            "kube-apiserver            cp        v1.36.0+kedge-0.1.0   v1.36.0+kedge-0.1.1\n",
            "CoreDNS                             v1.36.0+kedge-0.1.0   v1.36.0+kedge-0.1.1\n",
            "etcd                      cp        v3.4.23               v3.5.1\n",
            "\tkedge upgrade apply v1.36.0+kedge-0.1.1\n",
            "kubelet.config.k8s.io   v1beta1           v1beta1             no\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn an_older_etcd_of_the_machine_changes_nothing() {
        let version = ClusterVersion::parse("v1.36.0+kedge-0.1.0").unwrap();
        let found = found("v1.36.0+kedge-0.1.0");
        let available = |etcd: &str| {
            let target = Target { version: &version, etcd: Some(etcd.to_owned()) };
            UpgradePlan::new(&found, &target, Vec::new()).available_upgrades.len()
        };
        assert_eq!((available("v3.4.23"), available("v3.3.0"), available("v3.5.0")), (0, 0, 1));
    }

    #[test]
    fn deprecated_apis_are_told_at_the_end() {
        let (version, found) = (ClusterVersion::parse("v1.36.0").unwrap(), FoundVersions::default());
        let plan = || UpgradePlan::new(&found, &Target { version: &version, etcd: None }, Vec::new());
        let api = DeprecatedApi {
            group: String::new(),
            version: "v1".to_owned(),
            resource: "endpoints".to_owned(),
            removed_release: String::new(),
        };
        assert!(!plan().text().contains("Deprecated APIs"));
        let told = plan().with_deprecated(vec![api]);
        assert!(told.text().contains("\n\tv1 endpoints\n"), "{}", told.text());
        assert_eq!(serde_json::to_value(&told).unwrap()["deprecatedAPIs"][0]["resource"], "endpoints");
    }

    #[test]
    fn machines_read_it_too() {
        let version = ClusterVersion::parse("v1.37.0").unwrap();
        let target = Target { version: &version, etcd: None };
        let plan = serde_json::to_value(UpgradePlan::new(&found("v1.36.0"), &target, Vec::new())).unwrap();
        assert_eq!(plan["kind"], "UpgradePlan");
        assert_eq!(plan["availableUpgrades"][0]["description"], "stable version");
        let first = &plan["availableUpgrades"][0]["components"][0];
        assert_eq!((&first["name"], &first["nodeName"]), (&"kubelet".into(), &"cp".into()));
        assert_eq!(first["newVersion"], "v1.37.0");
    }
}
