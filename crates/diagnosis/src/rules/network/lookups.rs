//! Names: who the cluster's DNS is, and how a failed lookup reads in a log.

use serde_json::Value;

use crate::facts::{LogFact, LogSource};
use crate::object::text;

/// Seconds for which a line speaks of the present.
pub(super) const RECENT: i64 = 600;

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
