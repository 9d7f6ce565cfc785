//! Figures of claims for devices: how many there are of each sort.
//!
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::resource::v1::ResourceClaim;
use kedge_metrics::Text;

use super::plan::POD_CLAIM_NAME;
use crate::metrics::write_gauges;

/// The scheduler's mark on claims that it makes for extended resources.
const EXTENDED_RESOURCE: &str = "resource.kubernetes.io/extended-resource-claim";

/// Whether a claim asks for devices as those do that look after them.
pub(super) fn is_admins(claim: &ResourceClaim) -> bool {
    let requests = claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
    requests.filter_map(|request| request.exactly.as_ref()).any(|exactly| exactly.admin_access == Some(true))
}

/// Where a claim comes from, in upstream's words.
fn source_of(claim: &ResourceClaim) -> &'static str {
    let annotation = |name: &str| claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(name));
    match (annotation(EXTENDED_RESOURCE), annotation(POD_CLAIM_NAME)) {
        (Some(value), _) if value == "true" => "extended_resource",
        (_, Some(value)) if !value.is_empty() => "resource_claim_template",
        _ => "",
    }
}

/// How many claims there are.
pub(super) fn write(text: &mut Text, claims: &[Arc<ResourceClaim>]) {
    let mut counts: BTreeMap<[String; 3], f64> = BTreeMap::new();
    for claim in claims {
        let is_allocated = claim.status.as_ref().is_some_and(|status| status.allocation.is_some());
        let labels = [is_allocated.to_string(), is_admins(claim).to_string(), source_of(claim).to_owned()];
        *counts.entry(labels).or_default() += 1.0;
    }
    let help = "Number of ResourceClaims, categorized by allocation status, admin access, and source.";
    let labels = ["allocated", "admin_access", "source"];
    write_gauges(text, "resourceclaim_controller_resource_claims", help, labels, &counts);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::metrics::shown;

    #[test]
    fn claims_are_counted_by_their_sort() {
        let claim = |annotations: Value, admin: bool, status: Value| {
            let request = json!({"name": "r", "exactly": {"deviceClassName": "c", "adminAccess": admin}});
            let value = json!({"metadata": {"annotations": annotations},
                "spec": {"devices": {"requests": [request]}}, "status": status});
            Arc::new(serde_json::from_value::<ResourceClaim>(value).unwrap())
        };
        let claims = [
            claim(json!({}), true, json!({})),
            claim(json!({POD_CLAIM_NAME: "gpu"}), false, json!({"allocation": {}})),
            claim(json!({POD_CLAIM_NAME: "gpu"}), false, json!({"allocation": {}})),
            claim(json!({EXTENDED_RESOURCE: "true"}), false, json!({})),
        ];
        let text = shown(|text| write(text, &claims));
        let name = "resourceclaim_controller_resource_claims";
        for line in [
            format!("{name}{{allocated=\"false\",admin_access=\"true\",source=\"\"}} 1"),
            format!("{name}{{allocated=\"true\",admin_access=\"false\",source=\"resource_claim_template\"}} 2"),
            format!("{name}{{allocated=\"false\",admin_access=\"false\",source=\"extended_resource\"}} 1"),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
