//! What was found, as a claim's status says it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
    ResourceClaim,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::allocate::Site;
use crate::asks::requests;
use crate::search::{Picked, Search};

/// What a claim gets.
pub(crate) fn result(
    claim: &ResourceClaim,
    index: usize,
    search: &Search<'_>,
    site: &Site<'_>,
    share_id: &dyn Fn() -> String,
) -> Result<AllocationResult, String> {
    let results = search.picked(index).map(|picked| device(search, picked, share_id)).collect();
    let config = configuration(claim, index, search);
    Ok(AllocationResult {
        allocation_timestamp: None,
        devices: Some(DeviceAllocationResult {
            config: (!config.is_empty()).then_some(config),
            results: Some(results),
        }),
        node_selector: node_selector(index, search, site)
            .map_err(|why| format!("create NodeSelector for claim {}: {why}", claim_name(claim)))?,
    })
}

fn claim_name(claim: &ResourceClaim) -> &str {
    claim.metadata.name.as_deref().unwrap_or_default()
}

fn device(search: &Search<'_>, picked: &Picked, share_id: &dyn Fn() -> String) -> DeviceRequestAllocationResult {
    let (id, ask, device) = (search.id(picked.place), search.ask(picked.at), search.device(picked.place));
    let amounts = picked.share.as_ref().map(|amounts| {
        let shown = amounts.iter().map(|(name, amount)| (name.clone(), ApiQuantity(amount.to_string())));
        shown.collect::<BTreeMap<_, _>>()
    });
    DeviceRequestAllocationResult {
        request: ask.full_name(),
        driver: id.driver,
        pool: id.pool,
        device: id.device,
        admin_access: picked.is_admin().then_some(true),
        tolerations: (!ask.tolerations.is_empty()).then(|| ask.tolerations.to_vec()),
        share_id: picked.share.as_ref().map(|_| share_id()),
        consumed_capacity: amounts.filter(|amounts| !amounts.is_empty()),
        binding_conditions: device.binding_conditions.clone(),
        binding_failure_conditions: device.binding_failure_conditions.clone(),
    }
}

/// The drivers' parameters: those of the classes first, then those of the claim that concern what was chosen.
fn configuration(claim: &ResourceClaim, index: usize, search: &Search<'_>) -> Vec<DeviceAllocationConfiguration> {
    let mut list: Vec<DeviceAllocationConfiguration> = Vec::new();
    let mut ranges: BTreeMap<&str, std::ops::Range<usize>> = BTreeMap::new();
    for request in 0..requests(claim).len() {
        let ask = search.chosen(index, request);
        if let Some(range) = ranges.get(ask.class_name) {
            for config in &mut list[range.clone()] {
                config.requests.get_or_insert_default().push(ask.full_name());
            }
            continue;
        }
        let start = list.len();
        for config in ask.class.iter().flat_map(|class| class.spec.config.iter().flatten()) {
            list.push(DeviceAllocationConfiguration {
                source: "FromClass".to_owned(),
                requests: Some(vec![ask.full_name()]),
                opaque: config.opaque.clone(),
            });
        }
        ranges.insert(ask.class_name, start..list.len());
    }
    let own = claim.spec.devices.iter().flat_map(|devices| devices.config.iter().flatten());
    for config in own {
        let names = config.requests.as_deref().unwrap_or_default();
        let concerns = |request: usize| search.chosen(index, request).is_among(names);
        // Upstream repeats what concerns several requests.
        let times = if names.is_empty() { 1 } else { (0..requests(claim).len()).filter(|r| concerns(*r)).count() };
        for _ in 0..times {
            list.push(DeviceAllocationConfiguration {
                source: "FromClaim".to_owned(),
                requests: config.requests.clone(),
                opaque: config.opaque.clone(),
            });
        }
    }
    list
}

/// From which nodes the devices can be used; `None` means from all.
fn node_selector(index: usize, search: &Search<'_>, site: &Site<'_>) -> Result<Option<NodeSelector>, String> {
    let mut merged = NodeSelectorTerm::default();
    for picked in search.picked(index) {
        let (spec, device) = (&search.slice(picked.place).spec, search.device(picked.place));
        let (node, selector) = match spec.per_device_node_selection {
            Some(true) => (&device.node_name, &device.node_selector),
            _ => (&spec.node_name, &spec.node_selector),
        };
        if node.is_some() || device.binds_to_node == Some(true) {
            return Ok(Some(only(site.name)));
        }
        match selector.as_ref().map(|selector| selector.node_selector_terms.as_slice()) {
            None | Some([]) => {}
            Some([term]) => {
                merge(&mut merged.match_fields, term.match_fields.as_deref());
                merge(&mut merged.match_expressions, term.match_expressions.as_deref());
            }
            Some(terms) => {
                return Err(format!("unsupported ResourceSlice.NodeSelector with {} terms", terms.len()));
            }
        }
    }
    let is_bound = merged.match_fields.is_some() || merged.match_expressions.is_some();
    Ok(is_bound.then(|| NodeSelector { node_selector_terms: vec![merged] }))
}

fn only(node: &str) -> NodeSelector {
    let is_node = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![is_node]), match_expressions: None };
    NodeSelector { node_selector_terms: vec![term] }
}

fn merge(into: &mut Option<Vec<NodeSelectorRequirement>>, from: Option<&[NodeSelectorRequirement]>) {
    for requirement in from.unwrap_or_default() {
        let list = into.get_or_insert_default();
        if !list.contains(requirement) {
            list.push(requirement.clone());
        }
    }
}
