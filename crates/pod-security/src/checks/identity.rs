//! As whom containers run.

use super::{Pod, Violation, named, setters};

pub(super) fn run_as_non_root(pod: &Pod<'_>) -> Option<Violation> {
    let reason = "runAsNonRoot != true";
    let of_pod = &pod.security()["runAsNonRoot"];
    let explicit = pod.containers_where(|container| container["securityContext"]["runAsNonRoot"] == false);
    let bad = setters(*of_pod == false, &explicit);
    if !bad.is_empty() {
        return Some(Violation::new(reason, format!("{bad} must not set securityContext.runAsNonRoot=false")));
    }
    let implicit =
        pod.containers_where(|container| *of_pod != true && container["securityContext"]["runAsNonRoot"].is_null());
    let detail = || format!("pod or {} must set securityContext.runAsNonRoot=true", named(&implicit));
    (!implicit.is_empty()).then(|| Violation::new(reason, detail()))
}

pub(super) fn run_as_non_root_outside_user_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { run_as_non_root(pod) }
}

pub(super) fn run_as_user(pod: &Pod<'_>) -> Option<Violation> {
    let bad = pod.containers_where(|container| container["securityContext"]["runAsUser"] == 0);
    let bad = setters(pod.security()["runAsUser"] == 0, &bad);
    (!bad.is_empty()).then(|| Violation::new("runAsUser=0", format!("{bad} must not set runAsUser=0")))
}

pub(super) fn run_as_user_outside_user_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { run_as_user(pod) }
}
