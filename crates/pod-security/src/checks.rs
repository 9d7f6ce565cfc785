//! The checks: from which release on each counts, in which level, and instead of which other one.
//!
//! A row of the table is a check as of a release; a later row with the same name replaces an earlier one from its release on.

use serde_json::Value;

use crate::policy::{Level, LevelVersion, Version};

mod containers;
mod host;
mod identity;
mod profiles;

/// A rule that a pod breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub reason: &'static str,
    /// Where and how.
    pub detail: String,
}

impl Violation {
    fn new(reason: &'static str, detail: String) -> Self {
        Self { reason, detail }
    }
}

/// What checks look at.
#[derive(Clone, Copy)]
struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
}

type Rule = fn(&Pod<'_>) -> Option<Violation>;

struct Check {
    name: &'static str,
    since: u32,
    rule: Rule,
    /// The baseline check that a restricted one stands for.
    overrides: &'static str,
}

const fn check(name: &'static str, since: u32, rule: Rule) -> Check {
    Check { name, since, rule, overrides: "" }
}

const fn instead(name: &'static str, since: u32, rule: Rule, overrides: &'static str) -> Check {
    Check { name, since, rule, overrides }
}

/// In upstream's order, which is that of the names.
const BASELINE: &[Check] = &[
    check("appArmorProfile", 0, profiles::app_armor),
    check("capabilities_baseline", 0, containers::capabilities_baseline),
    check("hostNamespaces", 0, host::namespaces),
    check("hostPathVolumes", 0, host::path_volumes),
    check("hostPorts", 0, host::ports),
    check("hostProbesAndHostLifecycle", 34, host::probes_and_lifecycle),
    check("privileged", 0, containers::privileged),
    check("procMount", 0, containers::proc_mount),
    check("procMount", 35, containers::proc_mount_outside_user_namespaces),
    check("seLinuxOptions", 0, profiles::selinux_1_0),
    check("seLinuxOptions", 31, profiles::selinux_1_31),
    check("seccompProfile_baseline", 0, profiles::seccomp_annotations),
    check("seccompProfile_baseline", 19, profiles::seccomp_baseline),
    check("sysctls", 0, host::sysctls_1_0),
    check("sysctls", 27, host::sysctls_1_27),
    check("sysctls", 29, host::sysctls_1_29),
    check("sysctls", 32, host::sysctls_1_32),
    check("windowsHostProcess", 0, host::process),
];

const RESTRICTED: &[Check] = &[
    check("allowPrivilegeEscalation", 8, containers::privilege_escalation),
    check("allowPrivilegeEscalation", 25, containers::privilege_escalation_but_on_windows),
    instead("capabilities_restricted", 22, containers::capabilities_restricted, "capabilities_baseline"),
    instead("capabilities_restricted", 25, containers::capabilities_restricted_but_on_windows, "capabilities_baseline"),
    instead("procMount_restricted", 35, containers::proc_mount, "procMount"),
    instead("restrictedVolumes", 0, host::restricted_volumes, "hostPathVolumes"),
    check("runAsNonRoot", 0, identity::run_as_non_root),
    check("runAsNonRoot", 35, identity::run_as_non_root_outside_user_namespaces),
    check("runAsUser", 23, identity::run_as_user),
    check("runAsUser", 35, identity::run_as_user_outside_user_namespaces),
    instead("seccompProfile_restricted", 19, profiles::seccomp_restricted, "seccompProfile_baseline"),
    instead("seccompProfile_restricted", 25, profiles::seccomp_restricted_but_on_windows, "seccompProfile_baseline"),
];

/// What a pod breaks of a level; nothing where it is allowed.
pub fn evaluate(level: &LevelVersion, metadata: &Value, spec: &Value) -> Vec<Violation> {
    let minor = match level.version {
        Version::Latest => u32::MAX,
        Version::Minor(minor) => minor,
    };
    let restricted: Vec<&Check> = match level.level {
        Level::Privileged => return Vec::new(),
        Level::Baseline => Vec::new(),
        Level::Restricted => in_force(RESTRICTED, minor),
    };
    let is_overridden = |name: &str| restricted.iter().any(|check| check.overrides == name);
    let baseline = in_force(BASELINE, minor).into_iter().filter(|check| !is_overridden(check.name));
    let pod = Pod { metadata, spec };
    baseline.chain(restricted.iter().copied()).filter_map(|check| (check.rule)(&pod)).collect()
}

/// The last row of each name whose release has come.
fn in_force(checks: &'static [Check], minor: u32) -> Vec<&'static Check> {
    let is_replaced =
        |index: usize| checks.get(index + 1).is_some_and(|next| next.name == checks[index].name && next.since <= minor);
    let come = checks.iter().enumerate().filter(|(index, check)| check.since <= minor && !is_replaced(*index));
    come.map(|(_, check)| check).collect()
}

/// All of it in one line.
pub fn violations_text(violations: &[Violation]) -> String {
    let one = |violation: &Violation| match violation.detail.as_str() {
        "" => violation.reason.to_owned(),
        detail => format!("{} ({detail})", violation.reason),
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl<'a> Pod<'a> {
    /// All containers, those that come first first.
    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| spec[list].as_array().into_iter().flatten())
    }

    /// Names of the containers for which something holds.
    fn containers_where(&self, holds: impl FnMut(&Value) -> bool) -> Vec<String> {
        let mut holds = holds;
        self.containers().filter(|container| holds(container)).map(|container| text(&container["name"])).collect()
    }

    fn security(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    fn has_user_namespace(&self) -> bool {
        self.spec["hostUsers"] == false
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

/// `"a", "b"`.
fn quoted<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
fn named(containers: &[String]) -> String {
    format!("{} {}", plural("container", "containers", containers.len()), quoted(containers))
}

/// `pod`, `container "a"`, `pod and container "a"`; empty where neither is bad.
fn setters(pod: bool, containers: &[String]) -> String {
    let pod = pod.then(|| "pod".to_owned());
    let containers = (!containers.is_empty()).then(|| named(containers));
    pod.into_iter().chain(containers).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    pub(super) fn spec_of(container: Value) -> Value {
        let mut container = container;
        container["name"] = json!("a");
        json!({"containers": [container]})
    }

    #[track_caller]
    fn check(level: &str, minor: Option<u32>, metadata: Value, spec: &Value, expected: &str) {
        let level = if level == "baseline" { Level::Baseline } else { Level::Restricted };
        let version = minor.map_or(Version::Latest, Version::Minor);
        let seen = violations_text(&evaluate(&LevelVersion { level, version }, &metadata, spec));
        assert_eq!(seen, expected, "{spec}");
    }

    fn good() -> Value {
        json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}, "containers": [
            {"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]})
    }

    #[test]
    fn an_ordinary_pod_is_baseline_and_not_restricted() {
        let spec = json!({"containers": [{"name": "a", "image": "b"}]});
        check("baseline", None, Value::Null, &spec, "");
        let expected = "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
            unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
            runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), \
            seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
        check("restricted", None, Value::Null, &spec, expected);
        check("restricted", None, Value::Null, &good(), "");
        let old = "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)";
        check("restricted", Some(0), Value::Null, &spec, old);
    }

    #[test]
    fn baseline() {
        for (spec, expected) in [
            (
                json!({"hostNetwork": true, "hostIPC": true, "hostPID": true}),
                "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
            ),
            (
                json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "emptyDir": {}}]}),
                "hostPath volumes (volume \"v\")",
            ),
            (
                spec_of(json!({"ports": [{"hostPort": 80}, {"hostPort": 443}, {}]})),
                "hostPort (container \"a\" uses hostPorts 443, 80)",
            ),
            (
                spec_of(json!({"securityContext": {"privileged": true}})),
                "privileged (container \"a\" must not set securityContext.privileged=true)",
            ),
            (
                spec_of(json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "BPF"]}}})),
                "non-default capabilities (container \"a\" must not include \"BPF\", \"SYS_ADMIN\" in securityContext.capabilities.add)",
            ),
            (
                spec_of(json!({"securityContext": {"procMount": "Unmasked"}})),
                "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
            ),
            (
                spec_of(
                    json!({"livenessProbe": {"httpGet": {"host": "h"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "g"}}}}),
                ),
                "probe or lifecycle host (container \"a\" uses probe or lifecycle hosts \"g\", \"h\")",
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}}),
                "forbidden sysctls (kernel.msgmax)",
            ),
            (
                json!({"securityContext": {"windowsOptions": {"hostProcess": true}}, "containers": [{"name": "a", "securityContext": {"windowsOptions": {"hostProcess": true}}}]}),
                "hostProcess (pod and container \"a\" must not set securityContext.windowsOptions.hostProcess=true)",
            ),
            (
                json!({"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u", "role": "r"}}}),
                "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set; role may not be set)",
            ),
            (
                json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
                "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
            (
                spec_of(json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}})),
                "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
            ),
        ] {
            check("baseline", None, Value::Null, &spec, expected);
        }
    }

    #[test]
    fn restricted() {
        let with = |pointer: &str, value: Value| {
            let mut spec = good();
            *spec.pointer_mut(pointer).unwrap() = value;
            spec
        };
        let container = "/containers/0/securityContext";
        for (spec, expected) in [
            (
                with(
                    container,
                    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}),
                ),
                "",
            ),
            (
                with(
                    container,
                    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["X"], "add": ["CHOWN"]}}),
                ),
                "unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]; container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
            ),
            (
                with("/securityContext/runAsNonRoot", json!(false)),
                "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
            ),
            (
                with("/securityContext/seccompProfile/type", json!("Unconfined")),
                "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
        ] {
            check("restricted", None, Value::Null, &spec, expected);
        }
        let mut spec = good();
        spec["volumes"] = json!([{"name": "v", "hostPath": {}}, {"name": "n", "nfs": {}}, {"name": "c", "configMap": {}}, {"name": "i", "image": {}}]);
        check(
            "restricted",
            None,
            Value::Null,
            &spec,
            "restricted volume types (volumes \"v\", \"n\" use restricted volume types \"hostPath\", \"nfs\")",
        );
        let mut spec = good();
        spec["securityContext"]["runAsUser"] = json!(0);
        check("restricted", None, Value::Null, &spec, "runAsUser=0 (pod must not set runAsUser=0)");
        check("restricted", Some(22), Value::Null, &spec, "");
        spec["hostUsers"] = json!(false);
        check("restricted", None, Value::Null, &spec, "");
        check("restricted", Some(34), Value::Null, &spec, "runAsUser=0 (pod must not set runAsUser=0)");
    }

    #[test]
    fn releases_differ() {
        let probe = spec_of(json!({"livenessProbe": {"tcpSocket": {"host": "h"}}}));
        check("baseline", Some(33), Value::Null, &probe, "");
        let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_fin_timeout"}]}});
        check("baseline", Some(28), Value::Null, &sysctl, "forbidden sysctls (net.ipv4.tcp_fin_timeout)");
        check("baseline", Some(29), Value::Null, &sysctl, "");
        let engine = json!({"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}});
        check(
            "baseline",
            Some(30),
            Value::Null,
            &engine,
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"container_engine_t\")",
        );
        check("baseline", Some(31), Value::Null, &engine, "");
        let unmasked =
            json!({"hostUsers": false, "containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]});
        check("baseline", Some(35), Value::Null, &unmasked, "");
        assert!(
            evaluate(&LevelVersion { level: Level::Restricted, version: Version::Minor(99) }, &Value::Null, &unmasked)
                .iter()
                .any(|v| v.reason == "procMount")
        );
        let metadata = json!({"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}});
        let spec = json!({"containers": []});
        check(
            "baseline",
            Some(18),
            metadata.clone(),
            &spec,
            "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")",
        );
        check("baseline", Some(19), metadata, &spec, "");
        let metadata = json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}});
        check(
            "baseline",
            None,
            metadata,
            &spec,
            "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")",
        );
        let windows = json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]});
        check("restricted", None, Value::Null, &windows, "");
    }
}
