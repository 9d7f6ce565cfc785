//! The downward API: fields of a pod and amounts of a container, as text.
//!
//! Pure. Invariant: texts are what upstream's kubelet gives for the same field.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use kedge_meta::Quantity;
use kedge_volumes::PodFields;

use crate::spec;

/// What the node knows that a pod can ask for.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeFacts {
    pub(crate) host_ips: Vec<String>,
    pub(crate) pod_ips: Vec<String>,
    pub(crate) allocatable_cpu_millis: i64,
    pub(crate) allocatable_memory: i64,
    pub(crate) allocatable_ephemeral_storage: i64,
}

/// The downward API of one pod, for its volumes.
pub(crate) struct Fields<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) node: NodeFacts,
}

impl PodFields for Fields<'_> {
    fn field(&self, path: &str) -> Result<String, String> {
        field_value(self.pod, path, &self.node)
    }

    fn resource(&self, selector: &ResourceFieldSelector) -> Result<String, String> {
        resource_value(self.pod, "", selector, &self.node)
    }

    fn node_memory(&self) -> i64 {
        self.node.allocatable_memory
    }
}

/// The value of a field path, for an environment variable or a file.
pub(crate) fn field_value(pod: &Pod, path: &str, node: &NodeFacts) -> Result<String, String> {
    if let Some((list, key)) = subscript(path) {
        let map = match list {
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            "metadata.labels" => pod.metadata.labels.as_ref(),
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let pod_spec = spec::pod_spec(pod);
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => spec::name(pod).to_owned(),
        "metadata.namespace" => spec::namespace(pod).to_owned(),
        "metadata.uid" => spec::uid(pod).to_owned(),
        "metadata.annotations" => format_map(pod.metadata.annotations.as_ref()),
        "metadata.labels" => format_map(pod.metadata.labels.as_ref()),
        "spec.nodeName" => text(pod_spec.node_name.as_ref()),
        "spec.serviceAccountName" => text(pod_spec.service_account_name.as_ref()),
        "status.hostIP" => text(node.host_ips.first()),
        "status.hostIPs" => node.host_ips.join(","),
        "status.podIP" => text(node.pod_ips.first()),
        "status.podIPs" => node.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// One `key="value"` on each line, sorted, values escaped as Go's `%q` does.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quote(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Go's `%q`.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() && (c as u32) < 0x80 => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The value of `requests.cpu`, `limits.memory` and their like, in units of the divisor, rounded up.
pub(crate) fn resource_value(
    pod: &Pod,
    default_container: &str,
    selector: &ResourceFieldSelector,
    node: &NodeFacts,
) -> Result<String, String> {
    let wanted = selector.container_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(default_container);
    let container = spec::find_container(pod, wanted).ok_or_else(|| format!("container {wanted} not found"))?;
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (list, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let amount = match list {
        "limits" => spec::limit(&container, resource).or_else(|| allocatable(resource, node)),
        "requests" => request(&container, resource),
        _ => return Err(unsupported()),
    };
    if !matches!(resource, "cpu" | "memory" | "ephemeral-storage") && !resource.starts_with("hugepages-") {
        return Err(unsupported());
    }
    let amount = amount.unwrap_or(Quantity::ZERO);
    let divisor = selector.divisor.as_ref().and_then(|divisor| divisor.0.parse::<Quantity>().ok());
    let divisor = divisor.filter(|divisor| *divisor > Quantity::ZERO).unwrap_or(Quantity::from_units(1));
    let (amount, divisor) = match resource {
        "cpu" => (amount.millis(), divisor.millis()),
        _ => (amount.units(), divisor.units()),
    };
    Ok((amount / divisor + i64::from(amount % divisor != 0)).to_string())
}

fn request(container: &Container, resource: &str) -> Option<Quantity> {
    spec::request(container, resource)
}

/// A container without a limit can use what the node can give.
fn allocatable(resource: &str, node: &NodeFacts) -> Option<Quantity> {
    match resource {
        "cpu" => Some(Quantity::from_millis(node.allocatable_cpu_millis)),
        "memory" => Some(Quantity::from_units(node.allocatable_memory)),
        "ephemeral-storage" => Some(Quantity::from_units(node.allocatable_ephemeral_storage)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

    use super::*;

    fn pod() -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".to_owned());
        pod.metadata.labels = Some([("a".to_owned(), "x\"y".to_owned()), ("b".to_owned(), "2".to_owned())].into());
        let limits = [("cpu".to_owned(), ApiQuantity("1500m".to_owned()))].into();
        let resources = ResourceRequirements { limits: Some(limits), ..ResourceRequirements::default() };
        let container = Container { name: "c".to_owned(), resources: Some(resources), ..Container::default() };
        pod.spec = Some(PodSpec { containers: vec![container], node_name: Some("n".to_owned()), ..PodSpec::default() });
        pod
    }

    #[test]
    fn fields() {
        let node = NodeFacts { pod_ips: vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()], ..NodeFacts::default() };
        for (path, expected) in [
            ("metadata.name", Ok("web")),
            ("metadata.labels['b']", Ok("2")),
            ("metadata.labels['none']", Ok("")),
            ("metadata.labels", Ok("a=\"x\\\"y\"\nb=\"2\"")),
            ("spec.nodeName", Ok("n")),
            ("status.podIPs", Ok("10.0.0.1,fd00::1")),
            ("status.phase", Err("unsupported fieldPath: status.phase")),
        ] {
            let got = field_value(&pod(), path, &node);
            assert_eq!(got.as_deref().map_err(String::as_str), expected, "{path}");
        }
    }

    #[test]
    fn resources_are_rounded_up_to_the_divisor() {
        let node = NodeFacts { allocatable_memory: 3 * 1024 * 1024 + 1, ..NodeFacts::default() };
        let check = |resource: &str, divisor: &str, expected: &str| {
            let selector = ResourceFieldSelector {
                container_name: None,
                resource: resource.to_owned(),
                divisor: Some(ApiQuantity(divisor.to_owned())),
            };
            assert_eq!(resource_value(&pod(), "c", &selector, &node).unwrap(), expected, "{resource}/{divisor}");
        };
        check("limits.cpu", "0", "2");
        check("limits.cpu", "1m", "1500");
        check("requests.cpu", "1m", "1500");
        check("limits.memory", "1Mi", "4");
        check("requests.memory", "1Mi", "0");
    }
}
