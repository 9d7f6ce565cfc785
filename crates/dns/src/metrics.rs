//! What is counted, under CoreDNS's names, as a text that Prometheus reads.
//!
//! Invariant: labels are bounded: zones and resolvers are those of the configuration, types and codes those that exist.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use parking_lot::Mutex;

/// What metrics call this server, as CoreDNS calls one on the usual port.
const SERVER: &str = "dns://:53";

/// Everything that is counted.
#[derive(Default)]
pub(crate) struct Metrics(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    requests: BTreeMap<(Arc<str>, &'static str, &'static str, &'static str), u64>,
    responses: BTreeMap<(Arc<str>, String, &'static str), u64>,
    durations: BTreeMap<Arc<str>, Histogram>,
    request_sizes: BTreeMap<(Arc<str>, &'static str), Histogram>,
    response_sizes: BTreeMap<(Arc<str>, &'static str), Histogram>,
    dnssec_requests: BTreeMap<Arc<str>, u64>,
    cache_hits: BTreeMap<(Arc<str>, &'static str), u64>,
    cache_misses: BTreeMap<Arc<str>, u64>,
    served_stale: BTreeMap<Arc<str>, u64>,
    forwarded: BTreeMap<(SocketAddr, String), Histogram>,
    forward_rejects: u64,
    forward_broken: u64,
    panics: u64,
    reloads_failed: u64,
}

/// One question with its answer.
pub(crate) struct Exchange<'a> {
    pub(crate) zone: &'a Arc<str>,
    pub(crate) transport: &'static str,
    pub(crate) is_ipv6: bool,
    pub(crate) kind: RecordType,
    pub(crate) dnssec: bool,
    pub(crate) code: ResponseCode,
    /// Which of CoreDNS's plugins would have answered.
    pub(crate) plugin: &'static str,
    pub(crate) request_size: usize,
    pub(crate) response_size: usize,
    pub(crate) took: Duration,
}

#[derive(Default)]
struct Histogram {
    counts: Vec<u64>,
    sum: f64,
    total: u64,
}

/// From a quarter of a millisecond to eight seconds.
fn time_bounds() -> impl Iterator<Item = f64> {
    (0..16).map(|power| 0.000_25 * f64::from(1 << power))
}

fn size_bounds() -> impl Iterator<Item = f64> {
    [0., 100., 200., 300., 400., 511., 1023., 2047., 4095., 8291., 16e3, 32e3, 48e3, 64e3].into_iter()
}

impl Histogram {
    fn observe(&mut self, value: f64, bounds: impl Iterator<Item = f64>) {
        for (index, bound) in bounds.enumerate() {
            if self.counts.len() <= index {
                self.counts.push(0);
            }
            self.counts[index] += u64::from(value <= bound);
        }
        self.sum += value;
        self.total += 1;
    }
}

impl Metrics {
    /// A question was answered.
    pub(crate) fn answered(&self, exchange: &Exchange<'_>) {
        let Exchange { zone, transport, .. } = *exchange;
        let mut counts = self.0.lock();
        let family = if exchange.is_ipv6 { "2" } else { "1" };
        *counts.requests.entry((zone.clone(), transport, family, type_label(exchange.kind))).or_default() += 1;
        *counts.responses.entry((zone.clone(), code_label(exchange.code), exchange.plugin)).or_default() += 1;
        counts.durations.entry(zone.clone()).or_default().observe(exchange.took.as_secs_f64(), time_bounds());
        let sizes = (exchange.request_size as f64, exchange.response_size as f64);
        counts.request_sizes.entry((zone.clone(), transport)).or_default().observe(sizes.0, size_bounds());
        counts.response_sizes.entry((zone.clone(), transport)).or_default().observe(sizes.1, size_bounds());
        if exchange.dnssec {
            *counts.dnssec_requests.entry(zone.clone()).or_default() += 1;
        }
    }

    /// The cache was asked; it had an answer that said that there is something, or that there is not, or it had none.
    pub(crate) fn cache_asked(&self, zone: &Arc<str>, found: Option<bool>) {
        let mut counts = self.0.lock();
        match found {
            Some(true) => *counts.cache_hits.entry((zone.clone(), "denial")).or_default() += 1,
            Some(false) => *counts.cache_hits.entry((zone.clone(), "success")).or_default() += 1,
            None => *counts.cache_misses.entry(zone.clone()).or_default() += 1,
        }
    }

    pub(crate) fn served_stale(&self, zone: &Arc<str>) {
        *self.0.lock().served_stale.entry(zone.clone()).or_default() += 1;
    }

    /// A resolver was asked; it gave no answer where there is no code.
    pub(crate) fn forwarded(&self, to: SocketAddr, code: Option<ResponseCode>, took: Duration) {
        let code = code.map_or_else(|| "SERVFAIL".to_owned(), code_label);
        self.0.lock().forwarded.entry((to, code)).or_default().observe(took.as_secs_f64(), time_bounds());
    }

    pub(crate) fn forward_rejected(&self) {
        self.0.lock().forward_rejects += 1;
    }

    pub(crate) fn forward_broken(&self) {
        self.0.lock().forward_broken += 1;
    }

    pub(crate) fn panicked(&self) {
        self.0.lock().panics += 1;
    }

    pub(crate) fn reload_failed(&self) {
        self.0.lock().reloads_failed += 1;
    }

    /// All of it. What is a state and no count comes from outside: `caches` has answers with and without records by zone,
    /// `hosts` is the number of names in `hosts`.
    pub(crate) fn render(&self, caches: &BTreeMap<Arc<str>, (usize, usize)>, hosts: usize) -> String {
        let mut text = Text::default();
        let counts = self.0.lock();
        let version = kedge_meta::build_version();
        text.head("coredns_build_info", "gauge", "A metric with a constant '1' value labeled by version.");
        text.value("coredns_build_info", &[("version", &format!("kedge-{version}"))], 1.0);
        counts.render_requests(&mut text);
        counts.render_caches(&mut text, caches);
        counts.render_forwards(&mut text);
        text.head("coredns_hosts_entries", "gauge", "The combined number of entries in hosts and Corefile.");
        text.value("coredns_hosts_entries", &[], hosts as f64);
        text.single("coredns_panics_total", "Counter of panics.", counts.panics);
        text.single("coredns_reload_failed_total", "Counter of failed reloads of the Corefile.", counts.reloads_failed);
        text.0
    }
}

impl Counts {
    fn render_requests(&self, text: &mut Text) {
        let name = "coredns_dns_requests_total";
        text.head(name, "counter", "Counter of DNS requests made per zone, protocol and family.");
        for ((zone, proto, family, kind), count) in &self.requests {
            let labels = [
                ("server", SERVER),
                ("zone", zone),
                ("view", ""),
                ("proto", proto),
                ("family", family),
                ("type", kind),
            ];
            text.value(name, &labels, *count as f64);
        }
        let name = "coredns_dns_responses_total";
        text.head(name, "counter", "Counter of response status codes.");
        for ((zone, code, plugin), count) in &self.responses {
            let labels = [("server", SERVER), ("zone", zone), ("view", ""), ("rcode", code), ("plugin", plugin)];
            text.value(name, &labels, *count as f64);
        }
        let name = "coredns_dns_do_requests_total";
        text.head(name, "counter", "Counter of DNS requests with the DO bit set per zone.");
        for (zone, count) in &self.dnssec_requests {
            text.value(name, &[("server", SERVER), ("zone", zone), ("view", "")], *count as f64);
        }
        let name = "coredns_dns_request_duration_seconds";
        text.head(name, "histogram", "Histogram of the time (in seconds) each request took per zone.");
        for (zone, histogram) in &self.durations {
            text.histogram(name, &[("server", SERVER), ("zone", zone), ("view", "")], histogram, time_bounds());
        }
        let sizes = [
            (
                "coredns_dns_request_size_bytes",
                "Size of the request in bytes per zone and protocol.",
                &self.request_sizes,
            ),
            (
                "coredns_dns_response_size_bytes",
                "Size of the response in bytes per zone and protocol.",
                &self.response_sizes,
            ),
        ];
        for (name, help, histograms) in sizes {
            text.head(name, "histogram", help);
            for ((zone, proto), histogram) in histograms {
                let labels = [("server", SERVER), ("zone", zone), ("view", ""), ("proto", proto)];
                text.histogram(name, &labels, histogram, size_bounds());
            }
        }
    }

    fn render_caches(&self, text: &mut Text, caches: &BTreeMap<Arc<str>, (usize, usize)>) {
        let name = "coredns_cache_entries";
        text.head(name, "gauge", "The number of elements in the cache.");
        for (zone, (successes, denials)) in caches {
            for (kind, count) in [("success", successes), ("denial", denials)] {
                text.value(name, &[("server", SERVER), ("type", kind), ("zones", zone), ("view", "")], *count as f64);
            }
        }
        let name = "coredns_cache_hits_total";
        text.head(name, "counter", "The count of cache hits.");
        for ((zone, kind), count) in &self.cache_hits {
            text.value(name, &[("server", SERVER), ("type", kind), ("zones", zone), ("view", "")], *count as f64);
        }
        let singles = [
            ("coredns_cache_misses_total", "The count of cache misses.", &self.cache_misses),
            (
                "coredns_cache_served_stale_total",
                "The number of requests served from stale cache entries.",
                &self.served_stale,
            ),
        ];
        for (name, help, counts) in singles {
            text.head(name, "counter", help);
            for (zone, count) in counts {
                text.value(name, &[("server", SERVER), ("zones", zone), ("view", "")], *count as f64);
            }
        }
    }

    fn render_forwards(&self, text: &mut Text) {
        // What CoreDNS before 1.11 counted, and what dashboards still show.
        let names = [
            ("coredns_forward_requests_total", "Counter of requests made per upstream."),
            ("coredns_forward_responses_total", "Counter of responses received per upstream."),
        ];
        for (name, help) in names {
            text.head(name, "counter", help);
            for ((to, code), histogram) in &self.forwarded {
                text.value(name, &[("to", &to.to_string()), ("rcode", code)], histogram.total as f64);
            }
        }
        let families = [
            ("coredns_forward_request_duration_seconds", None),
            ("coredns_proxy_request_duration_seconds", Some(("proxy_name", "forward"))),
        ];
        for (name, first) in families {
            text.head(name, "histogram", "Histogram of the time each request took.");
            for ((to, code), histogram) in &self.forwarded {
                let to = to.to_string();
                let labels: Vec<_> = first.into_iter().chain([("to", to.as_str()), ("rcode", code)]).collect();
                text.histogram(name, &labels, histogram, time_bounds());
            }
        }
        let help = "Counter of the number of queries rejected because the concurrent queries were at maximum.";
        text.single("coredns_forward_max_concurrent_rejects_total", help, self.forward_rejects);
        let help = "Counter of the number of complete failures of the healthchecks.";
        text.single("coredns_forward_healthcheck_broken_total", help, self.forward_broken);
    }
}

/// Prometheus's text format.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn single(&mut self, name: &str, help: &str, count: u64) {
        self.head(name, "counter", help);
        self.value(name, &[], count as f64);
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let _ = match labels.as_slice() {
            [] => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }

    fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        histogram: &Histogram,
        bounds: impl Iterator<Item = f64>,
    ) {
        let bucket = format!("{name}_bucket");
        for (bound, count) in bounds.zip(&histogram.counts) {
            let bound = bound.to_string();
            self.value(&bucket, &[labels, &[("le", bound.as_str())]].concat(), *count as f64);
        }
        self.value(&bucket, &[labels, &[("le", "+Inf")]].concat(), histogram.total as f64);
        self.value(&format!("{name}_sum"), labels, histogram.sum);
        self.value(&format!("{name}_count"), labels, histogram.total as f64);
    }
}

/// The types that CoreDNS tells apart.
fn type_label(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::CNAME => "CNAME",
        RecordType::DNSKEY => "DNSKEY",
        RecordType::DS => "DS",
        RecordType::HTTPS => "HTTPS",
        RecordType::MX => "MX",
        RecordType::NS => "NS",
        RecordType::PTR => "PTR",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        RecordType::TXT => "TXT",
        _ => "other",
    }
}

fn code_label(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => u16::from(other).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_has_core_dns_names() {
        let metrics = Metrics::default();
        let zone: Arc<str> = ".".into();
        let exchange = Exchange {
            zone: &zone,
            transport: "udp",
            is_ipv6: false,
            kind: RecordType::A,
            dnssec: true,
            code: ResponseCode::NXDomain,
            plugin: "kubernetes",
            request_size: 40,
            response_size: 150,
            took: Duration::from_micros(300),
        };
        metrics.answered(&exchange);
        metrics.cache_asked(&zone, Some(false));
        metrics.cache_asked(&zone, None);
        metrics.forwarded("10.0.0.1:53".parse().unwrap(), None, Duration::from_secs(1));
        let text = metrics.render(&BTreeMap::from([(zone.clone(), (3, 1))]), 2);
        for expected in [
            "coredns_dns_requests_total{server=\"dns://:53\",zone=\".\",view=\"\",proto=\"udp\",family=\"1\",type=\"A\"} 1\n",
            "coredns_dns_responses_total{server=\"dns://:53\",zone=\".\",view=\"\",rcode=\"NXDOMAIN\",plugin=\"kubernetes\"} 1\n",
            "coredns_dns_do_requests_total{server=\"dns://:53\",zone=\".\",view=\"\"} 1\n",
            "coredns_dns_request_duration_seconds_bucket{server=\"dns://:53\",zone=\".\",view=\"\",le=\"0.00025\"} 0\n",
            "coredns_dns_request_duration_seconds_bucket{server=\"dns://:53\",zone=\".\",view=\"\",le=\"0.0005\"} 1\n",
            "coredns_dns_request_duration_seconds_count{server=\"dns://:53\",zone=\".\",view=\"\"} 1\n",
            "coredns_dns_response_size_bytes_bucket{server=\"dns://:53\",zone=\".\",view=\"\",proto=\"udp\",le=\"200\"} 1\n",
            "coredns_cache_hits_total{server=\"dns://:53\",type=\"success\",zones=\".\",view=\"\"} 1\n",
            "coredns_cache_misses_total{server=\"dns://:53\",zones=\".\",view=\"\"} 1\n",
            "coredns_cache_entries{server=\"dns://:53\",type=\"success\",zones=\".\",view=\"\"} 3\n",
            "coredns_forward_responses_total{to=\"10.0.0.1:53\",rcode=\"SERVFAIL\"} 1\n",
            "coredns_proxy_request_duration_seconds_count{proxy_name=\"forward\",to=\"10.0.0.1:53\",rcode=\"SERVFAIL\"} 1\n",
            "coredns_hosts_entries 2\n",
            "coredns_panics_total 0\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
}
