//! Who answers for a Service's port, asked by the API server itself: for webhooks and for extension API servers.
//!
//! By the EndpointSlices, so that it works on machines without a service proxy.
// DIVERGES: upstream takes the cluster's address of the Service, unless a flag says otherwise.

use kedge_kinds::Kind;
use kedge_store::{Key, ListRequest, Store};
use serde_json::Value;

use crate::object;
use crate::rest::Endpoint;

/// Why nobody answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// There is no such Service.
    Service,
    /// The Service has no such port.
    Port,
    /// Nothing says who is behind it.
    Slices,
    /// Nobody who is behind it is ready; the name of the port.
    Ready(String),
    /// The store does not tell.
    Unknown(String),
}

impl Missing {
    /// In upstream's words, of a port of the Service `name`.
    pub(crate) fn text(&self, name: &str, port: u16) -> String {
        match self {
            Self::Service => format!("service \"{name}\" not found"),
            Self::Port => format!("no service port {port} found for service \"{name}\""),
            Self::Slices | Self::Ready(_) => format!("no endpoints available for service \"{name}\""),
            Self::Unknown(why) => why.clone(),
        }
    }
}

/// A ready endpoint of a port of a Service; any of them.
pub(crate) async fn locate(store: &dyn Store, namespace: &str, name: &str, port: u16) -> Result<Endpoint, Missing> {
    let service = service(store, namespace, name).await?;
    if object::text(&service, &["spec", "type"]) == "ExternalName" {
        return Ok(Endpoint { host: object::text(&service, &["spec", "externalName"]).to_owned(), port });
    }
    let ports = object::list(&service, &["spec", "ports"]);
    let own = ports.iter().find(|own| own["port"].as_u64() == Some(u64::from(port))).ok_or(Missing::Port)?;
    let slices = slices(store, namespace, name).await?;
    if slices.is_empty() {
        let cluster_ip = object::text(&service, &["spec", "clusterIP"]);
        // Nobody but its owner writes slices of a Service without a selector, and may go by its address alone.
        let is_owners = object::at(&service, &["spec", "selector"]).is_none() && !matches!(cluster_ip, "" | "None");
        return if is_owners { Ok(Endpoint { host: cluster_ip.to_owned(), port }) } else { Err(Missing::Slices) };
    }
    let family = object::list(&service, &["spec", "ipFamilies"]).first().and_then(Value::as_str);
    let port_name = object::text(own, &["name"]);
    let mut ready = ready(&slices, port_name, family.unwrap_or("IPv4"));
    if ready.is_empty() {
        return Err(Missing::Ready(port_name.to_owned()));
    }
    Ok(ready.swap_remove(rand::random_range(0..ready.len())))
}

async fn service(store: &dyn Store, namespace: &str, name: &str) -> Result<Value, Missing> {
    let key = Key::new(builtin("", "services").key(namespace, name));
    let record = store.get(&key).await.map_err(unknown)?.ok_or(Missing::Service)?;
    serde_json::from_slice(&record.value).map_err(unknown)
}

async fn slices(store: &dyn Store, namespace: &str, service: &str) -> Result<Vec<Value>, Missing> {
    let prefix = builtin("discovery.k8s.io", "endpointslices").prefix(namespace);
    let records = store.list(ListRequest { prefix, ..ListRequest::default() }).await.map_err(unknown)?.records;
    let path = ["metadata", "labels", "kubernetes.io/service-name"];
    let own = records.iter().filter(|record| crate::scan::text(&record.value, &path) == service);
    own.map(|record| serde_json::from_slice(&record.value).map_err(unknown)).collect()
}

fn unknown(error: impl std::fmt::Display) -> Missing {
    Missing::Unknown(error.to_string())
}

fn builtin(group: &str, resource: &str) -> &'static Kind {
    kedge_kinds::builtin_by_resource(group, "v1", resource).expect("it is built in")
}

/// The ready endpoints of a port: of the Service's first family where it has any.
fn ready(slices: &[Value], port: &str, family: &str) -> Vec<Endpoint> {
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for slice in slices {
        let ports = object::list(slice, &["ports"]);
        let number = ports.iter().find(|own| object::text(own, &["name"]) == port).and_then(|own| own["port"].as_u64());
        let Some(port) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        let is_ready = |endpoint: &&Value| endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
        let hosts = object::list(slice, &["endpoints"]).iter().filter(is_ready);
        let hosts = hosts.filter_map(|endpoint| endpoint["addresses"][0].as_str());
        let list = if object::text(slice, &["addressType"]) == family { &mut first } else { &mut others };
        list.extend(hosts.map(|host| Endpoint { host: host.to_owned(), port }));
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
        let mixed = json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}, {"addresses": ["10.0.0.2"]}]);
        let four = slice("IPv4", 8443, mixed);
        let six = slice("IPv6", 8444, json!([{"addresses": ["fd00::1"], "conditions": {"ready": true}}]));
        let check = |slices: &[Value], port: &str, family: &str, expected: &[&str]| {
            let found: Vec<String> = ready(slices, port, family).iter().map(Endpoint::authority).collect();
            assert_eq!(found, expected);
        };
        check(&[four.clone(), six.clone()], "web", "IPv4", &["10.0.0.2:8443"]);
        check(&[four.clone(), six.clone()], "web", "IPv6", &["[fd00::1]:8444"]);
        check(&[six], "web", "IPv4", &["[fd00::1]:8444"]);
        check(&[four], "other", "IPv4", &[]);
    }
}
