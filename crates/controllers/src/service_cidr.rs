//! The ServiceCIDR controller: a range of Service addresses says that it is ready, and outlives its addresses.
//!
//! Invariant: a range that is being deleted goes only when each of its addresses lies in another range as well.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kedge_client::{Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::api::{Api, PostParams};

use crate::error::unless_gone;
use crate::pods::name_of;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Ready";

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let ranges = starter.informer::<ServiceCIDR>();
    let addresses = starter.informer::<IPAddress>();
    let queue = Queue::new();
    let all = ranges.clone();
    starter.enqueue(&ranges, &queue, move |_| all.list().iter().map(|range| object_key(&**range)).collect());
    let deleted = ranges.clone();
    starter.enqueue(&addresses, &queue, move |_| {
        let waiting = deleted.filter(|range| range.metadata.deletion_timestamp.is_some());
        waiting.iter().map(|range| object_key(&**range)).collect()
    });
    let controller = ServiceCidrs { context: starter.context.clone(), ranges, addresses };
    starter.work(Arc::new(controller), queue, 1);
}

struct ServiceCidrs {
    context: Context,
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
}

/// What to do about a range.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Keep,
    AddFinalizer,
    RemoveFinalizer,
    /// Status, reason and text of its condition.
    Report(&'static str, &'static str, &'static str),
}

impl Controller for ServiceCidrs {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(range) = self.ranges.get(key) else { return Ok(Next::Done) };
        let others: Vec<Arc<ServiceCIDR>> = self
            .ranges
            .filter(|other| other.metadata.name != range.metadata.name && other.metadata.deletion_timestamp.is_none());
        let addresses = self.addresses.list();
        let api = Api::<ServiceCIDR>::all(self.context.client.clone());
        let mut changed = (*range).clone();
        let finalizers = changed.metadata.finalizers.get_or_insert_default();
        match plan(&range, &others, &addresses) {
            Plan::Keep => {}
            Plan::AddFinalizer => {
                finalizers.push(FINALIZER.to_owned());
                api.replace(&key.name, &PostParams::default(), &changed).await?;
            }
            Plan::RemoveFinalizer => {
                finalizers.retain(|finalizer| finalizer != FINALIZER);
                unless_gone(api.replace(&key.name, &PostParams::default(), &changed).await)?;
            }
            Plan::Report(status, reason, message) => {
                let changed = report(&range, status, reason, message, self.context.now());
                api.replace_status(&key.name, &PostParams::default(), &changed).await?;
            }
        }
        Ok(Next::Done)
    }
}

fn plan(range: &ServiceCIDR, others: &[Arc<ServiceCIDR>], addresses: &[Arc<IPAddress>]) -> Plan {
    let has_finalizer = range.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    let is_deleted = range.metadata.deletion_timestamp.is_some();
    let needs = |address: &Arc<IPAddress>| {
        let Ok(address) = name_of(&address.metadata).parse() else { return false };
        contains(range, address) && !others.iter().any(|other| contains(other, address))
    };
    let (status, reason, message) = match (is_deleted, has_finalizer) {
        (false, false) => return Plan::AddFinalizer,
        (true, false) => return Plan::Keep,
        (true, true) if !addresses.iter().any(needs) => return Plan::RemoveFinalizer,
        (true, true) => {
            let text = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                 ServiceCIDR";
            ("False", "Terminating", text)
        }
        (false, true) => ("True", "", "Kubernetes Service CIDR is ready"),
    };
    let conditions = range.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let is_said = conditions.into_iter().any(|condition| condition.type_ == READY && condition.status == status);
    if is_said { Plan::Keep } else { Plan::Report(status, reason, message) }
}

fn contains(range: &ServiceCIDR, address: IpAddr) -> bool {
    let cidrs = range.spec.as_ref().and_then(|spec| spec.cidrs.as_ref()).into_iter().flatten();
    cidrs.into_iter().any(|cidr| cidr_contains(cidr, address))
}

fn cidr_contains(cidr: &str, address: IpAddr) -> bool {
    let Some((base, length)) = cidr.split_once('/') else { return false };
    let (Ok(base), Ok(length)) = (base.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    let differs = |difference: u128, width: u32| length > width || length > 0 && difference >> (width - length) != 0;
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => !differs(u128::from(base.to_bits() ^ address.to_bits()), 32),
        (IpAddr::V6(base), IpAddr::V6(address)) => !differs(base.to_bits() ^ address.to_bits(), 128),
        _ => false,
    }
}

fn report(range: &ServiceCIDR, status: &str, reason: &str, message: &str, now: Timestamp) -> ServiceCIDR {
    let mut range = range.clone();
    let generation = range.metadata.generation;
    let conditions = range.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != READY);
    conditions.push(Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: Time(now),
    });
    range
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::networking::v1::ServiceCIDRSpec;

    fn range(cidr: &str, is_deleted: bool, has_finalizer: bool) -> ServiceCIDR {
        let spec = Some(ServiceCIDRSpec { cidrs: Some(vec![cidr.to_owned()]) });
        let mut range = ServiceCIDR { spec, ..ServiceCIDR::default() };
        range.metadata.deletion_timestamp = is_deleted.then_some(Time(Timestamp::UNIX_EPOCH));
        range.metadata.finalizers = has_finalizer.then(|| vec![FINALIZER.to_owned()]);
        range
    }

    #[test]
    fn a_range_stays_while_an_address_needs_it() {
        let mut address = IPAddress::default();
        address.metadata.name = Some("10.96.0.9".to_owned());
        let addresses = [Arc::new(address)];
        let wide = [Arc::new(range("10.0.0.0/8", false, true))];
        let test = |range: &ServiceCIDR, others: &[Arc<ServiceCIDR>], expected: &str| {
            let plan = format!("{:?}", plan(range, others, &addresses));
            assert!(plan.starts_with(expected), "{plan}");
        };
        test(&range("10.96.0.0/24", false, false), &[], "AddFinalizer");
        let ready = range("10.96.0.0/24", false, true);
        test(&ready, &[], "Report(\"True\"");
        test(&report(&ready, "True", "", "", Timestamp::UNIX_EPOCH), &[], "Keep");
        test(&range("10.96.0.0/24", true, true), &[], "Report(\"False\", \"Terminating\"");
        test(&range("10.96.0.0/24", true, true), &wide, "RemoveFinalizer");
        test(&range("10.97.0.0/24", true, true), &[], "RemoveFinalizer");
        test(&range("10.96.0.0/24", true, false), &[], "Keep");
    }

    #[test]
    fn ranges_contain_addresses() {
        for (cidr, address, expected) in [
            ("10.96.0.0/12", "10.111.255.255", true),
            ("10.96.0.0/12", "10.112.0.0", false),
            ("fd00::/112", "fd00::ffff", true),
            ("fd00::/112", "fd00::1:0", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("fd00::/8", "1.2.3.4", false),
            ("x", "1.2.3.4", false),
        ] {
            assert_eq!(cidr_contains(cidr, address.parse().unwrap()), expected, "{address} in {cidr}");
        }
    }
}
