//! The names of patch files, `target[suffix][+patchtype].extension`: what a file is for.
//!
//! Pure.

/// What can be patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchTarget {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
    KubeletConfiguration,
    CoreDnsDeployment,
}

const TARGETS: [(&str, PatchTarget); 6] = [
    ("etcd", PatchTarget::Etcd),
    ("kube-apiserver", PatchTarget::ApiServer),
    ("kube-controller-manager", PatchTarget::ControllerManager),
    ("kube-scheduler", PatchTarget::Scheduler),
    ("kubeletconfiguration", PatchTarget::KubeletConfiguration),
    ("corednsdeployment", PatchTarget::CoreDnsDeployment),
];
const EXTENSIONS: [&str; 2] = ["json", "yaml"];
const TYPES: [(&str, PatchType); 3] =
    [("json", PatchType::Json), ("merge", PatchType::Merge), ("strategic", PatchType::Strategic)];

impl PatchTarget {
    /// Upstream's name of it.
    pub(crate) fn name(self) -> &'static str {
        TARGETS.iter().find(|(_, target)| *target == self).map_or("", |(name, _)| name)
    }

    /// That of a component of the control plane.
    pub(crate) fn of_component(component: &str) -> Option<Self> {
        TARGETS[..4].iter().find(|(name, _)| *name == component).map(|(_, target)| *target)
    }
}

/// How a patch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PatchType {
    Json,
    Merge,
    Strategic,
}

impl PatchType {
    /// Its media type, which is what upstream shows.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// What a name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    /// It is a patch.
    Patch(PatchTarget, PatchType),
    /// It is something else, and passed over.
    Other(String),
    /// It was meant as a patch.
    Wrong(String),
}

fn known<T>(all: &[(&str, T)]) -> String {
    all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

/// Reads a name.
pub(super) fn read_name(name: &str) -> Read {
    let Some((stem, extension)) = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()) else {
        return Read::Other(format!("the file extension must be one of [{}]", EXTENSIONS.join(" ")));
    };
    if !EXTENSIONS.contains(&extension) {
        return Read::Other(format!("the file extension must be one of [{}]", EXTENSIONS.join(" ")));
    }
    let Some((target_name, target)) = TARGETS.iter().find(|(target, _)| stem.starts_with(target)) else {
        return Read::Other(format!("unknown target, must be one of [{}]", known(&TARGETS)));
    };
    // A suffix ends at the first dot or plus; what follows a dot says nothing.
    let rest = &stem[target_name.len()..];
    let end = rest.find(['.', '+']).unwrap_or(rest.len());
    let Some(kind) = rest[end..].strip_prefix('+') else { return Read::Patch(*target, PatchType::Strategic) };
    match TYPES.iter().find(|(name, _)| kind.starts_with(name)) {
        Some((_, kind)) => Read::Patch(*target, *kind),
        None => Read::Wrong(format!("unknown or missing patch type after '+', must be one of [{}]", known(&TYPES))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_patched_and_how() {
        use PatchTarget::{ApiServer, CoreDnsDeployment, Etcd, KubeletConfiguration};
        let check = |name: &str, target: PatchTarget, kind: PatchType| {
            assert_eq!(read_name(name), Read::Patch(target, kind), "{name}");
        };
        check("etcd.yaml", Etcd, PatchType::Strategic);
        check("etcd+json.json", Etcd, PatchType::Json);
        check("kube-apiserver0+merge.yaml", ApiServer, PatchType::Merge);
        check("kube-apiserver-audit+strategic.yaml", ApiServer, PatchType::Strategic);
        check("kubeletconfiguration.json", KubeletConfiguration, PatchType::Strategic);
        check("corednsdeployment2.yaml", CoreDnsDeployment, PatchType::Strategic);
        for (name, part) in [
            ("etcd.yml", "the file extension must be one of [json yaml]"),
            ("etcd", "the file extension"),
            (".yaml", "the file extension"),
            ("kube-proxy.yaml", "unknown target, must be one of [etcd kube-apiserver"),
        ] {
            assert!(matches!(read_name(name), Read::Other(why) if why.starts_with(part)), "{name}");
        }
        for name in ["etcd+.yaml", "etcd0+apply.yaml"] {
            assert!(matches!(read_name(name), Read::Wrong(why) if why.ends_with("[json merge strategic]")), "{name}");
        }
        assert_eq!(PatchTarget::of_component("kube-scheduler").map(PatchTarget::name), Some("kube-scheduler"));
        assert_eq!(PatchTarget::of_component("corednsdeployment"), None);
    }
}
