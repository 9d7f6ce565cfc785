//! The service controller over a pool of addresses: every Service of type LoadBalancer gets an address of each of its
//! families, as a cloud would give it one.
//!
//! Not who answers at the address: that is the proxy's and the network's. Services with a `loadBalancerClass` are somebody
//! else's. Invariant: a Service that has an address has the finalizer, so that none is forgotten.

mod pool;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kedge_client::{Informer, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::{Value, json};

pub use pool::{AddressPool, ParsePoolError};

use crate::error::{ReconcileError, unless_gone};
use crate::load_balancer::pool::{Owner, Owners, Sharing, Wish, choose};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
/// Says that the address came out of the pool. Nodes announce no others.
const POOL_ANNOTATION: &str = "kedge.dev/load-balancer-pool";
/// Wished addresses, with commas between them; `spec.loadBalancerIP` can hold one only.
const WISH_ANNOTATION: &str = "kedge.dev/load-balancer-ips";
/// Services with the same value may share an address.
const SHARING_ANNOTATION: &str = "kedge.dev/load-balancer-sharing-key";

/// Starts the controller, unless there is no pool.
pub(crate) fn start(mut starter: Starter<'_>) {
    if starter.context.config.load_balancer_pool.is_empty() {
        return;
    }
    let services = starter.informer::<Service>();
    let queue = Queue::new();
    let all = services.clone();
    starter.enqueue(&services, &queue, move |change| {
        let mut keys = vec![object_key(&**change.object())];
        // An address that is free again may be what another waits for.
        if !ingress(change.object()).is_empty() {
            let waiting = all.filter(|service| is_ours(service) && ingress(service).is_empty());
            keys.extend(waiting.iter().map(|service| object_key(&**service)));
        }
        keys
    });
    let controller = LoadBalancers { context: starter.context.clone(), services, given: Mutex::default() };
    // One at a time: two must not choose the same address.
    starter.work(Arc::new(controller), queue, 1);
}

struct LoadBalancers {
    context: Context,
    services: Informer<Service>,
    /// What was given away, and may not be in the cache yet.
    given: Mutex<HashMap<ObjectKey, Vec<IpAddr>>>,
}

impl Controller for LoadBalancers {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(service) = self.services.get(key) else {
            self.forget(key, &[]);
            return Ok(Next::Done);
        };
        if is_ours(&service) { self.ensure(key, &service).await } else { self.clean_up(key, &service).await }
    }
}

impl LoadBalancers {
    async fn ensure(&self, key: &ObjectKey, service: &Service) -> Outcome {
        let about = object_reference(service);
        let wished = wish(service);
        let chosen = wished
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|wish| choose(&self.context.config.load_balancer_pool, wish, key, &self.owners()));
        let addresses = match chosen {
            Ok(addresses) => addresses,
            Err(why) => {
                let message = format!("Error syncing load balancer: failed to ensure load balancer: {why}");
                self.context.warning(&about, "SyncLoadBalancerFailed", message.clone());
                return Err(ReconcileError::Object(message));
            }
        };
        self.forget(key, &addresses);
        if addresses == ingress(service) && has_finalizer(service) && is_marked(service) {
            return Ok(Next::Done);
        }
        self.context.normal(&about, "EnsuringLoadBalancer", "Ensuring load balancer");
        let listed: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        let mut finalizers = service.metadata.finalizers.clone().unwrap_or_default();
        if !has_finalizer(service) {
            finalizers.push(FINALIZER.to_owned());
        }
        self.patch(key, service, &finalizers, json!("true"), json!(listed)).await?;
        self.context.normal(&about, "EnsuredLoadBalancer", "Ensured load balancer");
        Ok(Next::Done)
    }

    async fn clean_up(&self, key: &ObjectKey, service: &Service) -> Outcome {
        if !has_finalizer(service) || has_foreign_class(service) {
            self.forget(key, &[]);
            return Ok(Next::Done);
        }
        let about = object_reference(service);
        self.context.normal(&about, "DeletingLoadBalancer", "Deleting load balancer");
        let mut finalizers = service.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        self.patch(key, service, &finalizers, Value::Null, Value::Null).await?;
        self.forget(key, &[]);
        self.context.normal(&about, "DeletedLoadBalancer", "Deleted load balancer");
        Ok(Next::Done)
    }

    /// Writes addresses and finalizers at once, as upstream does through the status.
    async fn patch(
        &self,
        key: &ObjectKey,
        service: &Service,
        finalizers: &[String],
        mark: Value,
        ingress: Value,
    ) -> Result<(), ReconcileError> {
        let services = Api::<Service>::namespaced(self.context.client.clone(), &key.namespace);
        let metadata = json!({
            "finalizers": finalizers,
            "annotations": {POOL_ANNOTATION: mark},
            "resourceVersion": service.metadata.resource_version,
        });
        let patch = json!({"metadata": metadata, "status": {"loadBalancer": {"ingress": ingress}}});
        unless_gone(services.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }

    /// Who has which address, by what the cache shows and what was given since.
    fn owners(&self) -> Owners {
        let given = self.given.lock();
        let mut owners = Owners::new();
        for service in self.services.list() {
            let key = object_key(&*service);
            let mut addresses = ingress(&service);
            addresses.extend(given.get(&key).into_iter().flatten());
            addresses.sort_unstable();
            addresses.dedup();
            for address in addresses {
                let owner = Owner { service: key.clone(), sharing: sharing(&service) };
                owners.entry(address).or_default().push(owner);
            }
        }
        owners
    }

    /// Notes that a Service has these addresses and no others.
    fn forget(&self, key: &ObjectKey, but: &[IpAddr]) {
        let mut given = self.given.lock();
        if but.is_empty() {
            given.remove(key);
        } else {
            given.insert(key.clone(), but.to_vec());
        }
    }
}

fn is_ours(service: &Service) -> bool {
    let is_balanced = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
    is_balanced && !has_foreign_class(service) && service.metadata.deletion_timestamp.is_none()
}

fn has_foreign_class(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.load_balancer_class.is_some())
}

fn has_finalizer(service: &Service) -> bool {
    service.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// The addresses that a Service has.
fn ingress(service: &Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let listed = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    listed.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

fn annotation<'a>(service: &'a Service, name: &str) -> Option<&'a str> {
    service.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn is_marked(service: &Service) -> bool {
    annotation(service, POOL_ANNOTATION).is_some()
}

/// What a Service asks for; or why that can't be read.
fn wish(service: &Service) -> Result<Wish, String> {
    let Some(spec) = &service.spec else { return Ok(Wish::default()) };
    let families = spec.ip_families.iter().flatten().map(|family| family == "IPv6").collect();
    let addresses = match annotation(service, WISH_ANNOTATION) {
        Some(listed) => {
            let parse = |text: &str| {
                text.parse().map_err(|_| format!("{text:?} in the annotation {WISH_ANNOTATION} is no IP address"))
            };
            listed.split(',').map(str::trim).filter(|text| !text.is_empty()).map(parse).collect::<Result<_, _>>()?
        }
        None => spec.load_balancer_ip.as_ref().and_then(|ip| ip.parse().ok()).into_iter().collect(),
    };
    Ok(Wish {
        families,
        needs_all: spec.ip_family_policy.as_deref() == Some("RequireDualStack"),
        addresses,
        sharing: sharing(service),
        has: ingress(service),
    })
}

fn sharing(service: &Service) -> Sharing {
    let Some(spec) = &service.spec else { return Sharing::default() };
    let ports = spec.ports.iter().flatten();
    Sharing {
        key: annotation(service, SHARING_ANNOTATION).filter(|key| !key.is_empty()).map(str::to_owned),
        ports: ports.map(|port| (port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port.port)).collect(),
        local_to: (spec.external_traffic_policy.as_deref() == Some("Local"))
            .then(|| spec.selector.clone().unwrap_or_default()),
    }
}
