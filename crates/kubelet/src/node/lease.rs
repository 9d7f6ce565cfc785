//! The node's lease in `kube-node-lease`: the sign of life that the node lifecycle controller watches.
//!
//! Invariant: it is renewed every ten seconds, by its own task, whatever the rest of the kubelet does.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kedge_client::{Backoff, Informer};
use kedge_meta::ObjectKey;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};

use super::in_time;
use crate::agent::Agent;

const WHAT: &str = "renew the lease of the node";
const NAMESPACE: &str = "kube-node-lease";
const DURATION_SECONDS: i32 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Short, because its success is what tells all others that the API server is back.
pub(super) const LONGEST_RETRY: Duration = Duration::from_secs(3);

/// Renews the lease for ever.
pub(crate) async fn renew_lease(agent: Arc<Agent>, client: Client, nodes: Informer<Node>) {
    let leases = Api::<Lease>::namespaced(client, NAMESPACE);
    let mut backoff = Backoff::new(Duration::from_millis(200), LONGEST_RETRY);
    loop {
        match renew(&agent, &leases, &nodes).await {
            Ok(()) => {
                agent.failures.succeeded(WHAT);
                backoff.reset();
                tokio::time::sleep(RENEW_EVERY).await;
            }
            Err(error) => {
                agent.failures.failed(WHAT, &error);
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

async fn renew(agent: &Agent, leases: &Api<Lease>, nodes: &Informer<Node>) -> Result<(), kube::Error> {
    let name = &agent.config.node_name;
    let renew_time = MicroTime(agent.now());
    let patch = serde_json::json!({ "spec": {
        "holderIdentity": name,
        "leaseDurationSeconds": DURATION_SECONDS,
        "renewTime": kedge_meta::format_micro_time(renew_time.0),
    } });
    match in_time(leases.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Ok(lease) => return own(leases, &lease, owner(nodes, name)).await,
        Err(error) => return Err(error),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: owner(nodes, name),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(renew_time),
            ..LeaseSpec::default()
        }),
    };
    in_time(leases.create(&PostParams::default(), &lease)).await.map(|_| ())
}

/// A lease that was made before its node was known gets its owner as soon as there is one.
async fn own(leases: &Api<Lease>, lease: &Lease, owner: Option<Vec<OwnerReference>>) -> Result<(), kube::Error> {
    let Some(owner) = missing_owner(lease, owner) else { return Ok(()) };
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    let patch = serde_json::json!({ "metadata": { "ownerReferences": owner } });
    in_time(leases.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await.map(|_| ())
}

fn missing_owner(lease: &Lease, owner: Option<Vec<OwnerReference>>) -> Option<Vec<OwnerReference>> {
    owner.filter(|_| lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty))
}

/// The lease goes with its node.
fn owner(nodes: &Informer<Node>, name: &str) -> Option<Vec<OwnerReference>> {
    let node = nodes.get(&ObjectKey::new("", name))?;
    Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.to_owned(),
        uid: node.metadata.uid.clone()?,
        ..OwnerReference::default()
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(has: Option<&str>, wants: Option<&str>, missing: Option<&str>) {
        let list = |name: Option<&str>| {
            name.map(|name| vec![OwnerReference { name: name.to_owned(), ..OwnerReference::default() }])
        };
        let metadata = ObjectMeta { owner_references: list(has), ..ObjectMeta::default() };
        let lease = Lease { metadata, ..Lease::default() };
        assert_eq!(missing_owner(&lease, list(wants)), list(missing), "{has:?} {wants:?}");
    }

    #[test]
    fn a_lease_gets_its_node_once_it_is_known() {
        check(None, None, None);
        check(None, Some("n"), Some("n"));
        check(Some("n"), Some("n"), None);
        check(Some("n"), None, None);
    }
}
