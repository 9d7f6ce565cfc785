//! Where a Service is answered: a ready endpoint out of its slices, or its own address where it has none.
// DIVERGES: upstream takes the ClusterIP, unless a flag says otherwise.

use std::sync::Arc;

use async_trait::async_trait;
use kedge_kinds::Kind;
use kedge_store::{Key, ListRequest, Store};
use kedge_webhooks::{Address, Resolver};
use rand::Rng;
use serde_json::Value;

use crate::object;

/// Looks into the store.
pub(crate) struct Endpoints {
    store: Arc<dyn Store>,
}

impl Endpoints {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    async fn service(&self, namespace: &str, name: &str) -> Result<Value, String> {
        let key = Key::new(builtin("", "services").key(namespace, name));
        let record = self.store.get(&key).await.map_err(|error| error.to_string())?;
        let record = record.ok_or_else(|| format!("service \"{name}\" not found"))?;
        serde_json::from_slice(&record.value).map_err(|error| error.to_string())
    }

    async fn slices(&self, namespace: &str, service: &str) -> Result<Vec<Value>, String> {
        let prefix = builtin("discovery.k8s.io", "endpointslices").prefix(namespace);
        let page = self.store.list(ListRequest { prefix, ..ListRequest::default() }).await;
        let records = page.map_err(|error| error.to_string())?.records;
        let path = ["metadata", "labels", "kubernetes.io/service-name"];
        let own = records.iter().filter(|record| crate::scan::text(&record.value, &path) == service);
        own.map(|record| serde_json::from_slice(&record.value).map_err(|error| error.to_string())).collect()
    }
}

fn builtin(group: &str, resource: &str) -> &'static Kind {
    kedge_kinds::builtin_by_resource(group, "v1", resource).expect("it is built in")
}

#[async_trait]
impl Resolver for Endpoints {
    async fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Address, String> {
        let service = self.service(namespace, name).await?;
        if object::text(&service, &["spec", "type"]) == "ExternalName" {
            return Ok(Address { host: object::text(&service, &["spec", "externalName"]).to_owned(), port });
        }
        let ports = object::list(&service, &["spec", "ports"]);
        let found = ports.iter().find(|own| own["port"].as_u64() == Some(u64::from(port)));
        let found = found.ok_or_else(|| format!("no service port {port} found for service \"{name}\""))?;
        let slices = self.slices(namespace, name).await?;
        let cluster_ip = object::text(&service, &["spec", "clusterIP"]);
        if slices.is_empty() && !matches!(cluster_ip, "" | "None") {
            return Ok(Address { host: cluster_ip.to_owned(), port });
        }
        let family = object::list(&service, &["spec", "ipFamilies"]).first().and_then(Value::as_str);
        let mut ready = ready(&slices, object::text(found, &["name"]), family.unwrap_or("IPv4"));
        if ready.is_empty() {
            return Err(format!("no endpoints available for service \"{name}\""));
        }
        Ok(ready.swap_remove(rand::rng().random_range(0..ready.len())))
    }
}

/// The ready endpoints of a port: of the Service's first family where it has any.
fn ready(slices: &[Value], port: &str, family: &str) -> Vec<Address> {
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for slice in slices {
        let ports = object::list(slice, &["ports"]);
        let number = ports.iter().find(|own| object::text(own, &["name"]) == port).and_then(|own| own["port"].as_u64());
        let Some(port) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        let is_ready = |endpoint: &&Value| endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
        let hosts = object::list(slice, &["endpoints"]).iter().filter(is_ready);
        let hosts = hosts.filter_map(|endpoint| endpoint["addresses"][0].as_str());
        let list = if object::text(slice, &["addressType"]) == family { &mut first } else { &mut others };
        list.extend(hosts.map(|host| Address { host: host.to_owned(), port }));
    }
    if first.is_empty() { others } else { first }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_endpoints_of_the_first_family_are_taken() {
        let slice = |family: &str, port: u16, endpoints: Value| json!({"addressType": family, "ports": [{"name": "web", "port": port}], "endpoints": endpoints});
        let four = slice(
            "IPv4",
            8443,
            json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}, {"addresses": ["10.0.0.2"]}]),
        );
        let six = slice("IPv6", 8444, json!([{"addresses": ["fd00::1"], "conditions": {"ready": true}}]));
        let show = |slices: &[Value], port: &str, family: &str| -> Vec<String> {
            ready(slices, port, family).iter().map(ToString::to_string).collect()
        };
        assert_eq!(show(&[four.clone(), six.clone()], "web", "IPv4"), ["10.0.0.2:8443"]);
        assert_eq!(show(&[four.clone(), six.clone()], "web", "IPv6"), ["[fd00::1]:8444"]);
        assert_eq!(show(&[six], "web", "IPv4"), ["[fd00::1]:8444"]);
        assert!(show(&[four], "other", "IPv4").is_empty());
    }
}
