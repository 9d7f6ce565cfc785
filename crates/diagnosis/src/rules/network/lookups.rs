//! Names: who the cluster's DNS is, and how a failed lookup reads in a log.

use serde_json::Value;

use crate::evidence::{Evidence, Item};
use crate::facts::{LogFact, LogSource};
use crate::object::text;
use crate::rules::network::policy_cuts_names::cutting_policy;

/// Seconds for which a line speaks of the present.
const RECENT: i64 = 600;

/// Whether a line speaks of the present; one without a time does.
pub(super) fn is_recent(evidence: &Evidence, item: &Item) -> bool {
    item.time.is_none_or(|time| evidence.gathered.as_second() - time.as_second() <= RECENT)
}

/// The lines of lookups in vain that may tell of the network: those of pods that no policy keeps from asking.
pub(super) fn failed_lookups(evidence: &Evidence) -> impl Iterator<Item = (usize, &Item, &LogFact)> {
    let lines = evidence.logs().filter(|(_, _, line)| is_lookup_failure(line));
    lines.filter(|(_, _, line)| cutting_policy(evidence, &line.source).is_none())
}

/// Whether a pod is one of the cluster's DNS.
pub(super) fn is_dns(pod: &Value) -> bool {
    text(&pod["metadata"]["labels"]["k8s-app"]) == "kube-dns"
}

/// Whether a container other than the DNS server itself waited for an answer in vain.
pub(super) fn is_lookup_failure(line: &LogFact) -> bool {
    let text = &line.text;
    !line.source.is("coredns")
        && matches!(line.source, LogSource::Container { .. })
        && ((text.contains(":53: i/o timeout") && text.contains("lookup "))
            || text.contains("Temporary failure in name resolution")
            || text.contains("getaddrinfo EAI_AGAIN"))
}
