//! What people let themselves be told of: clients whose certificates are about to end, aggregated APIs that do not answer,
//! requests that were given up.

use std::collections::BTreeMap;

use kedge_metrics::{Counters, Histograms, Text};
use parking_lot::Mutex;

use super::Labels;

/// Upper bounds of what is left of a certificate's life: none to a year, in seconds.
const LIVES: &[f64] = &[
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

#[derive(Debug)]
pub(crate) struct Alerts {
    certificates: Histograms,
    terminations: Counters,
    /// Whether each APIService is unavailable.
    unavailable: Mutex<BTreeMap<String, bool>>,
    became_unavailable: Counters,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            certificates: Histograms::new(
                "apiserver_client_certificate_expiration_seconds",
                &[],
                LIVES,
                "Distribution of the remaining lifetime on the certificate used to authenticate a request.",
            ),
            terminations: Counters::new(
                "apiserver_request_terminations_total",
                &["code", "component", "group", "resource", "scope", "subresource", "verb", "version"],
                "Number of requests which apiserver terminated in self-defense.",
            ),
            unavailable: Mutex::default(),
            became_unavailable: Counters::new(
                "aggregator_unavailable_apiservice_total",
                &["name", "reason"],
                "Counter of APIServices which are marked as unavailable broken down by APIService name and reason.",
            ),
        }
    }
}

impl Alerts {
    /// Somebody came with a certificate that is good for so many seconds more.
    pub(crate) fn came_with_certificate(&self, seconds: i64) {
        self.certificates.observe_value(&[], seconds as f64);
    }

    /// A request was given up, for the server's own sake.
    pub(crate) fn terminated(&self, labels: &Labels, code: u16) {
        let Labels { verb, group, version, resource, subresource, scope, .. } = labels;
        let code = code.to_string();
        self.terminations.count(&[&code, "apiserver", group, resource, scope, subresource, verb, version]);
    }

    /// Which APIServices there are, and whether they are unavailable.
    pub(crate) fn looked_at(&self, unavailable: BTreeMap<String, bool>) {
        *self.unavailable.lock() = unavailable;
    }

    /// An APIService was available, and is not any more.
    pub(crate) fn became_unavailable(&self, name: &str, reason: &str) {
        self.became_unavailable.count(&[name, reason]);
    }

    pub(super) fn write(&self, text: &mut String) {
        let mut lines = Text::default();
        self.certificates.write(&mut lines);
        self.terminations.write(&mut lines);
        let name = "aggregator_unavailable_apiservice";
        let help = "Gauge of APIServices which are marked as unavailable broken down by APIService name.";
        lines.family(name, "gauge", help);
        for (service, is_unavailable) in self.unavailable.lock().iter() {
            lines.sample(name, &[("name", service)], f64::from(u8::from(*is_unavailable)));
        }
        self.became_unavailable.write(&mut lines);
        text.push_str(&lines.finish());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_alert_on_has_upstreams_names() {
        let alerts = Alerts::default();
        alerts.came_with_certificate(-5);
        alerts.came_with_certificate(100_000);
        alerts.looked_at([("v1.a.io".to_owned(), true), ("v1.".to_owned(), false)].into());
        alerts.became_unavailable("v1.a.io", "FailedDiscoveryCheck");
        let mut text = String::new();
        alerts.write(&mut text);
        for line in [
            "apiserver_client_certificate_expiration_seconds_bucket{le=\"0\"} 1",
            "apiserver_client_certificate_expiration_seconds_bucket{le=\"86400\"} 1",
            "apiserver_client_certificate_expiration_seconds_bucket{le=\"172800\"} 2",
            "apiserver_client_certificate_expiration_seconds_count 2",
            "# TYPE apiserver_request_terminations_total counter",
            "aggregator_unavailable_apiservice{name=\"v1.\"} 0",
            "aggregator_unavailable_apiservice{name=\"v1.a.io\"} 1",
            "aggregator_unavailable_apiservice_total{name=\"v1.a.io\",reason=\"FailedDiscoveryCheck\"} 1",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
        }
    }
}
