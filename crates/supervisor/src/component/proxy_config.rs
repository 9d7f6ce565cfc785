//! Upstream's configuration file of the proxy, `KubeProxyConfiguration` of `kubeproxy.config.k8s.io/v1alpha1`.
//!
//! Pure. Invariant: no field is passed over in silence: those that have an effect are read, those that ask for nothing are
//! let through, all others are named.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// What of the file has an effect.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProxyConfiguration {
    pub(super) client_connection: ClientConnection,
    #[serde(rename = "clusterCIDR")]
    pub(super) cluster_cidr: String,
    pub(super) healthz_bind_address: String,
    pub(super) hostname_override: String,
    pub(super) node_port_addresses: Option<Vec<String>>,
    pub(super) nftables: NfTables,
    pub(super) iptables: IpTables,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct ClientConnection {
    pub(super) kubeconfig: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NfTables {
    pub(super) masquerade_all: bool,
    pub(super) min_sync_period: Option<String>,
    pub(super) sync_period: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct IpTables {
    pub(super) localhost_node_ports: Option<bool>,
}

/// Fields that are read.
const READ: [&str; 9] = [
    "apiVersion",
    "kind",
    "clientConnection",
    "clusterCIDR",
    "healthzBindAddress",
    "hostnameOverride",
    "nodePortAddresses",
    "nftables",
    "iptables",
];

/// Fields of upstream that have no effect here.
const WITHOUT_EFFECT: [&str; 15] = [
    "bindAddress",
    "bindAddressHardFail",
    "configSyncPeriod",
    "conntrack",
    "detectLocal",
    "detectLocalMode",
    "enableProfiling",
    "featureGates",
    "ipvs",
    "logging",
    "metricsBindAddress",
    "mode",
    "oomScoreAdj",
    "portRange",
    "showHiddenMetricsForVersion",
];

impl ProxyConfiguration {
    /// Reads a file's text; also what in it has no effect.
    pub(super) fn read(text: &str) -> Result<(Self, Vec<String>), String> {
        let document: Map<String, Value> = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        let said = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
        if said("apiVersion") != API_VERSION || said("kind") != KIND {
            return Err(format!(
                "the file is a {} of {}, where a {KIND} of {API_VERSION} is expected",
                said("kind"),
                said("apiVersion")
            ));
        }
        let mut ignored = Vec::new();
        for (field, value) in &document {
            if READ.contains(&field.as_str()) || field == "windowsRunAsService" || field == "winkernel" {
                continue;
            }
            if !WITHOUT_EFFECT.contains(&field.as_str()) {
                return Err(format!("unknown field {field:?}"));
            }
            let is_usual = field == "mode" && value == "nftables";
            if !is_empty(value) && !is_usual {
                ignored.push(field.clone());
            }
        }
        let configuration = serde_json::from_value(Value::Object(document)).map_err(|error| error.to_string())?;
        Ok((configuration, ignored))
    }
}

/// Empty in Go's sense, which is how absent fields are written out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || text == "0s",
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(true) => false,
    }
}

/// Reads Go's way of writing durations, such as `1m30s` and `250ms`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty() && total < 1e9).then(|| Duration::from_secs_f64(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_named_or_refused() {
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        let text = format!(
            "{head}clusterCIDR: 10.244.0.0/16\nclientConnection: {{kubeconfig: /k}}\nmode: iptables\nconntrack:\n  \
             maxPerCore: null\n  min: 1\noomScoreAdj: null\nconfigSyncPeriod: 0s\n"
        );
        let (read, ignored) = ProxyConfiguration::read(&text).unwrap();
        assert_eq!((read.cluster_cidr.as_str(), read.client_connection.kubeconfig.as_str()), ("10.244.0.0/16", "/k"));
        assert_eq!(ignored, ["conntrack", "mode"]);
        assert!(ProxyConfiguration::read(&format!("{head}nonsense: 1\n")).unwrap_err().contains("nonsense"));
        assert!(ProxyConfiguration::read("kind: Pod\n").unwrap_err().contains("is expected"));
    }

    #[test]
    fn durations_are_gos() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_duration(text).map(|duration| duration.as_millis() as u64), expected, "{text}");
        };
        check("1m30s", Some(90_000));
        check("250ms", Some(250));
        check("8760h0m0s", Some(31_536_000_000));
        check("0", Some(0));
        check("5", None);
        check("", None);
        check("5x", None);
    }
}
