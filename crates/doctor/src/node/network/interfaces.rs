//! Interfaces and routes, as `ip` tells them.

use kedge_diagnosis::{Fact, NetworkFact};
use serde_json::Value;

use crate::node::program::output;
use crate::node::reading::Reading;

/// More are a machine's with very many pods, or one that is broken: the first ones tell enough.
const MOST: usize = 1000;

/// The end of a VXLAN tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tunnel {
    pub(super) name: String,
    pub(super) port: u16,
}

pub(super) async fn read() -> (Reading, Vec<Tunnel>) {
    let mut reading = Reading::default();
    let mut tunnels = Vec::new();
    match json(&["-json", "-details", "address"]).await {
        Ok(links) => {
            for link in links.iter().take(MOST) {
                tunnels.extend(tunnel(link));
                // One end of each pod's cable is enough to say on routes.
                if kind(link) != "veth" {
                    reading.add("ip -d address", Fact::Network(interface(link)));
                }
            }
        }
        Err(why) => reading.miss("interfaces", why),
    }
    for family in ["-4", "-6"] {
        match json(&["-json", family, "route"]).await {
            Ok(routes) => {
                let facts = routes.iter().take(MOST).filter_map(route);
                facts.for_each(|fact| reading.add("ip route", Fact::Network(fact)));
            }
            Err(why) => reading.miss("routes", why),
        }
    }
    (reading, tunnels)
}

/// What `ip` says as a list; older ones leave empty objects in between.
async fn json(arguments: &[&str]) -> Result<Vec<Value>, String> {
    let said = output("ip", arguments).await?;
    if said.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let list: Vec<Value> = serde_json::from_slice(&said).map_err(|error| format!("ip: {error}"))?;
    Ok(list.into_iter().filter(|entry| entry.as_object().is_some_and(|entry| !entry.is_empty())).collect())
}

fn interface(link: &Value) -> NetworkFact {
    let addresses = link["addr_info"].as_array().into_iter().flatten();
    let address = |address: &Value| Some(format!("{}/{}", address["local"].as_str()?, address["prefixlen"]));
    NetworkFact::Interface {
        name: text(&link["ifname"]).to_owned(),
        mtu: link["mtu"].as_u64().and_then(|mtu| u32::try_from(mtu).ok()).unwrap_or_default(),
        kind: kind(link).to_owned(),
        up: link["flags"].as_array().into_iter().flatten().any(|flag| flag == "UP"),
        addresses: addresses.filter_map(address).collect(),
    }
}

fn kind(link: &Value) -> &str {
    match (link["linkinfo"]["info_kind"].as_str(), text(&link["link_type"])) {
        (Some(kind), _) => kind,
        (None, "ether") => "ethernet",
        (None, kind) => kind,
    }
}

fn tunnel(link: &Value) -> Option<Tunnel> {
    let port = link["linkinfo"]["info_data"]["port"].as_u64().filter(|_| kind(link) == "vxlan")?;
    Some(Tunnel { name: text(&link["ifname"]).to_owned(), port: u16::try_from(port).ok()? })
}

fn route(route: &Value) -> Option<NetworkFact> {
    // A route may have several hops, or lead nowhere.
    let hop = if route["dev"].is_string() { route } else { &route["nexthops"][0] };
    let via = hop["gateway"].as_str().or_else(|| hop["via"]["host"].as_str());
    Some(NetworkFact::Route {
        to: text(&route["dst"]).to_owned(),
        via: via.map(str::to_owned),
        interface: hop["dev"].as_str()?.to_owned(),
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_ip_says_is_read() {
        let link = json!({"ifname": "flannel.1", "flags": ["BROADCAST", "UP"], "mtu": 1450, "link_type": "ether",
            "linkinfo": {"info_kind": "vxlan", "info_data": {"id": 1, "port": 8472}},
            "addr_info": [{"family": "inet", "local": "10.244.0.0", "prefixlen": 32}]});
        assert_eq!(interface(&link).to_string(), "flannel.1: mtu 1450 10.244.0.0/32");
        assert_eq!(tunnel(&link), Some(Tunnel { name: "flannel.1".to_owned(), port: 8472 }));
        assert_eq!(kind(&json!({"link_type": "ether"})), "ethernet");
        let shown = |value: Value| route(&value).map(|fact| fact.to_string());
        assert_eq!(
            shown(json!({"dst": "default", "gateway": "10.0.0.254", "dev": "eth0"})).as_deref(),
            Some("default via 10.0.0.254 dev eth0")
        );
        assert_eq!(
            shown(json!({"dst": "10.1.0.0/24", "nexthops": [{"gateway": "10.0.0.2", "dev": "eth1"}]})).as_deref(),
            Some("10.1.0.0/24 via 10.0.0.2 dev eth1")
        );
        assert_eq!(shown(json!({"type": "blackhole", "dst": "10.2.0.0/26"})), None);
    }

    #[tokio::test]
    async fn this_machine_has_a_loopback_or_says_why_not() {
        let (reading, _) = read().await;
        let has_loopback = reading.facts().any(|(_, fact)| fact.to_string().contains("127.0.0.1/8"));
        assert!(has_loopback || reading.missed().contains(&"interfaces"));
    }
}
