//! What is counted of things that nodes and pods are given: ranges of addresses, volumes, claims for devices.

use kedge_metrics::{Counters, Histograms, Text};

/// 1, and each five times the one before.
const TRIES: &[f64] = &[1.0, 5.0, 25.0, 125.0, 625.0];

/// The counters.
pub(crate) struct ResourceMetrics {
    ranges_given: Counters,
    ranges_taken_back: Counters,
    tries: Histograms,
    claims: Counters,
    detaches: Counters,
    late_classes: Counters,
    late_class_errors: Counters,
}

impl Default for ResourceMetrics {
    fn default() -> Self {
        let of_range = &["clusterCIDR"];
        Self {
            ranges_given: Counters::new(
                "node_ipam_controller_cidrset_cidrs_allocations_total",
                of_range,
                "Counter measuring total number of CIDR allocations.",
            ),
            ranges_taken_back: Counters::new(
                "node_ipam_controller_cidrset_cidrs_releases_total",
                of_range,
                "Counter measuring total number of CIDR releases.",
            ),
            tries: Histograms::new(
                "node_ipam_controller_cidrset_allocation_tries_per_request",
                of_range,
                TRIES,
                "Number of CIDRs that others have, passed over before a free one.",
            ),
            claims: Counters::new(
                "resourceclaim_controller_creates_total",
                &["status", "admin_access"],
                "Number of ResourceClaims creation requests, categorized by creation status and admin access",
            ),
            detaches: Counters::new(
                "attach_detach_controller_attachdetach_controller_forced_detaches",
                &["reason"],
                "Number of times the A/D Controller performed a forced detach",
            ),
            late_classes: Counters::new(
                "retroactive_storageclass_total",
                &[],
                "Total number of retroactive StorageClass assignments to persistent volume claim",
            ),
            late_class_errors: Counters::new(
                "retroactive_storageclass_errors_total",
                &[],
                "Total number of failed retroactive StorageClass assignments to persistent volume claim",
            ),
        }
    }
}

impl ResourceMetrics {
    /// A node has a share of a range; where it was given just now, after so many that others have.
    pub(crate) fn range_given(&self, range: &str, tries: Option<u32>) {
        self.ranges_given.count(&[range]);
        if let Some(tries) = tries {
            self.tries.observe_value(&[range], f64::from(tries));
        }
    }

    /// A node that had a share of a range is gone.
    pub(crate) fn range_taken_back(&self, range: &str) {
        self.ranges_taken_back.count(&[range]);
    }

    /// A claim for devices was asked for.
    pub(crate) fn claim_asked_for(&self, is_good: bool, is_admins: bool) {
        let access = if is_admins { "true" } else { "false" };
        self.claims.count(&[if is_good { "success" } else { "failure" }, access]);
    }

    /// A volume was taken from a node that may still use it: `timeout` or `out-of-service`.
    pub(crate) fn force_detached(&self, reason: &'static str) {
        self.detaches.count(&[reason]);
    }

    /// A claim got the default class after it was made, or could not.
    pub(crate) fn class_assigned(&self, is_good: bool) {
        let counters = if is_good { &self.late_classes } else { &self.late_class_errors };
        counters.count(&[]);
    }

    pub(super) fn write(&self, text: &mut Text) {
        self.ranges_given.write(text);
        self.ranges_taken_back.write(text);
        self.tries.write(text);
        self.claims.write(text);
        self.detaches.write(text);
        self.late_classes.write(text);
        self.late_class_errors.write(text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn what_is_given_is_counted() {
        let metrics = ResourceMetrics::default();
        metrics.range_given("10.0.0.0/16", Some(7));
        metrics.range_given("10.0.0.0/16", None);
        metrics.range_taken_back("10.0.0.0/16");
        metrics.claim_asked_for(true, false);
        metrics.claim_asked_for(false, true);
        metrics.force_detached("out-of-service");
        metrics.class_assigned(true);
        metrics.class_assigned(false);
        let text = shown(|text| metrics.write(text));
        let range = "clusterCIDR=\"10.0.0.0/16\"";
        for line in [
            format!("node_ipam_controller_cidrset_cidrs_allocations_total{{{range}}} 2"),
            format!("node_ipam_controller_cidrset_cidrs_releases_total{{{range}}} 1"),
            format!("node_ipam_controller_cidrset_allocation_tries_per_request_bucket{{{range},le=\"5\"}} 0"),
            format!("node_ipam_controller_cidrset_allocation_tries_per_request_bucket{{{range},le=\"25\"}} 1"),
            "resourceclaim_controller_creates_total{status=\"success\",admin_access=\"false\"} 1".to_owned(),
            "resourceclaim_controller_creates_total{status=\"failure\",admin_access=\"true\"} 1".to_owned(),
            "attach_detach_controller_attachdetach_controller_forced_detaches{reason=\"out-of-service\"} 1".to_owned(),
            "retroactive_storageclass_total 1".to_owned(),
            "retroactive_storageclass_errors_total 1".to_owned(),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
