//! How long things are waited for: kubeadm's `timeouts`, and Go's way of writing durations.
//!
//! Pure. Invariant: all of kubeadm's names are known, and one that a command does not look at is named.

use std::time::Duration;

use serde::Deserialize;

use crate::documents::ConfigurationError;
use crate::health_wait::HealthPatience;

/// How long things are waited for, as Go writes durations.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Timeouts {
    control_plane_component_health_check: Option<String>,
    kubelet_health_check: Option<String>,
    #[serde(rename = "kubernetesAPICall")]
    kubernetes_api_call: Option<String>,
    #[serde(rename = "etcdAPICall")]
    etcd_api_call: Option<String>,
    #[serde(rename = "tlsBootstrap")]
    tls_bootstrap: Option<String>,
    discovery: Option<String>,
    upgrade_manifests: Option<String>,
}

impl Timeouts {
    fn fields(&self) -> [(&'static str, Option<&str>); 7] {
        [
            ("controlPlaneComponentHealthCheck", self.control_plane_component_health_check.as_deref()),
            ("kubeletHealthCheck", self.kubelet_health_check.as_deref()),
            ("kubernetesAPICall", self.kubernetes_api_call.as_deref()),
            ("etcdAPICall", self.etcd_api_call.as_deref()),
            ("tlsBootstrap", self.tls_bootstrap.as_deref()),
            ("discovery", self.discovery.as_deref()),
            ("upgradeManifests", self.upgrade_manifests.as_deref()),
        ]
    }

    /// Those that were given, of a command that looks at `used` only.
    pub(crate) fn without_effect(&self, used: &[&str]) -> impl Iterator<Item = String> {
        let given = self.fields().into_iter().filter(|(_, text)| text.is_some());
        given.map(|(name, _)| name).filter(|name| !used.contains(name)).map(|name| format!("timeouts.{name}"))
    }

    /// How long what was started may take to become well.
    pub(crate) fn health(&self) -> Result<HealthPatience, ConfigurationError> {
        let usual = HealthPatience::default();
        Ok(HealthPatience {
            components: self.patience("controlPlaneComponentHealthCheck", usual.components)?,
            kubelet: self.patience("kubeletHealthCheck", usual.kubelet)?,
        })
    }

    /// The one with kubeadm's name `name`, or the usual one. Error: it is no duration.
    pub(crate) fn patience(&self, name: &str, usual: Duration) -> Result<Duration, ConfigurationError> {
        let given = self.fields().into_iter().find_map(|(field, text)| text.filter(|_| field == name));
        let Some(text) = given else { return Ok(usual) };
        parse_duration(text).ok_or_else(|| ConfigurationError::Value {
            field: format!("timeouts.{name}"),
            why: format!("{text:?} is no duration like 5m0s"),
        })
    }
}

/// A duration as Go writes it, in whole seconds.
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A duration that Go wrote; absent where it is none.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut number = String::new();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    for character in text.chars() {
        let unit = match character {
            '0'..='9' | '.' => {
                number.push(character);
                continue;
            }
            'h' => 3600.0,
            'm' => 60.0,
            's' => 1.0,
            _ => return None,
        };
        total += unit * number.parse::<f64>().ok()?;
        number.clear();
    }
    (number.is_empty() && !text.is_empty() && total < 1e9).then(|| Duration::from_secs_f64(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (300, "5m0s"), (3661, "1h1m1s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn durations_are_gos() {
        let given =
            [("24h0m0s", Some(86_400)), ("1m30s", Some(90)), ("0", Some(0)), ("soon", None), ("5", None), ("", None)];
        for (text, seconds) in given {
            assert_eq!(parse_duration(text), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn what_is_given_counts_or_is_named() {
        let text = r#"{"discovery": "1m0s", "etcdAPICall": "2m0s", "upgradeManifests": "never"}"#;
        let given: Timeouts = serde_json::from_str(text).unwrap();
        let usual = Duration::from_secs(7);
        assert_eq!(given.patience("discovery", usual).unwrap(), Duration::from_secs(60));
        assert_eq!(given.patience("tlsBootstrap", usual).unwrap(), usual);
        assert!(
            given.patience("upgradeManifests", usual).unwrap_err().to_string().contains("\"never\" is no duration")
        );
        let unused: Vec<_> = given.without_effect(&["discovery", "upgradeManifests"]).collect();
        assert_eq!(unused, ["timeouts.etcdAPICall"]);
        assert!(serde_json::from_str::<Timeouts>(r#"{"patience": "1m"}"#).is_err());
    }
}
