//! Addresses and ports of Services, by example.

use std::sync::Arc;

use kedge_store::{MemoryStore, Store, Transaction};

use super::*;

struct Cluster {
    store: Arc<dyn Store>,
    families: Vec<bool>,
    ranges: Vec<Cidr>,
    ports: (u16, u16),
}

fn cluster(range: &str, ports: (u16, u16)) -> Cluster {
    let range: Cidr = range.parse().unwrap();
    let store = Arc::new(MemoryStore::default());
    Cluster { store, families: vec![range.is_ipv6()], ranges: vec![range], ports }
}

fn ledger(cluster: &Cluster, name: &str) -> Ledger {
    let kind = kedge_kinds::builtin_by_resource("networking.k8s.io", "v1", "ipaddresses").unwrap();
    let resource = Arc::new(Resource::new(kind.clone()));
    Ledger::new(cluster.store.clone(), resource, ObjectKey::new("d", name), jiff::Timestamp::UNIX_EPOCH)
}

async fn commit(cluster: &Cluster, ledger: Ledger) -> bool {
    let Ledger { conditions, writes, .. } = ledger;
    let committed = cluster.store.commit(Transaction { conditions, writes, ..Transaction::default() }).await;
    committed.is_ok()
}

async fn fill(cluster: &Cluster, name: &str, spec: Value) -> Result<Value, String> {
    let mut service = json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec});
    let (families, ranges, ports) = (cluster.families.clone(), cluster.ranges.clone(), cluster.ports);
    let before = Holdings::default();
    let mut round = Round { families, ranges, ports, before, ledger: ledger(cluster, name) };
    match round.fill(&mut service, None).await {
        Ok(()) => {
            assert!(commit(cluster, round.ledger).await);
            Ok(service["spec"].take())
        }
        Err(refusal) => Err(refusal.into_status(name).message),
    }
}

#[tokio::test]
async fn addresses_are_given_once() {
    let cluster = cluster("10.0.0.0/30", (30000, 30001));
    let first = fill(&cluster, "a", json!({"clusterIPs": ["10.0.0.1"]})).await.unwrap();
    assert_eq!(
        first,
        json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})
    );
    assert_eq!(fill(&cluster, "b", json!({})).await.unwrap()["clusterIP"], "10.0.0.2");
    assert_eq!(
        fill(&cluster, "c", json!({})).await.unwrap_err(),
        "Internal error occurred: failed to allocate a serviceIP: range is full"
    );
    let taken = fill(&cluster, "c", json!({"clusterIPs": ["10.0.0.1"]})).await.unwrap_err();
    assert_eq!(
        taken,
        "Service \"c\" is invalid: spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: failed to allocate IP 10.0.0.1: provided IP is already allocated"
    );
    let outside = fill(&cluster, "c", json!({"clusterIPs": ["10.0.1.1"]})).await.unwrap_err();
    assert!(outside.ends_with("is not in the valid range. The range of valid IPs is 10.0.0.0/30"), "{outside}");
    let headless = fill(&cluster, "c", json!({"clusterIPs": ["None"]})).await.unwrap();
    assert_eq!((&headless["clusterIP"], &headless["clusterIPs"]), (&json!("None"), &json!(["None"])));
    let mut gone = ledger(&cluster, "b");
    gone.give_back_address("10.0.0.2".parse().unwrap()).await.unwrap();
    assert!(commit(&cluster, gone).await);
    fill(&cluster, "c", json!({})).await.unwrap();
}

#[tokio::test]
async fn ports_are_given_once() {
    let cluster = cluster("10.0.0.0/24", (30000, 30001));
    let ports = |ports: Value| json!({"type": "NodePort", "ports": ports});
    fill(&cluster, "a", ports(json!([{"nodePort": 30000, "protocol": "TCP"}, {"nodePort": 30000, "protocol": "UDP"}])))
        .await
        .unwrap();
    let taken = fill(&cluster, "b", ports(json!([{"nodePort": 30000}]))).await.unwrap_err();
    assert_eq!(
        taken,
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30000: provided port is already allocated"
    );
    let outside = fill(&cluster, "b", ports(json!([{"nodePort": 80}]))).await.unwrap_err();
    assert!(outside.ends_with("provided port is not in the valid range. The range of valid ports is 30000-30001"));
    assert_eq!(fill(&cluster, "b", ports(json!([{"port": 80}]))).await.unwrap()["ports"][0]["nodePort"], 30001);
    let full = fill(&cluster, "c", ports(json!([{"port": 80}]))).await.unwrap_err();
    assert_eq!(full, "Internal error occurred: failed to allocate a nodePort: range is full");
}

#[tokio::test]
async fn both_families_need_both_ranges() {
    let mut cluster = cluster("10.0.0.0/24", (30000, 30001));
    let refused = fill(&cluster, "a", json!({"ipFamilyPolicy": "RequireDualStack"})).await.unwrap_err();
    assert!(refused.contains("this cluster is not configured for dual-stack services"), "{refused}");
    assert_eq!(
        fill(&cluster, "a", json!({"ipFamilyPolicy": "PreferDualStack"})).await.unwrap()["ipFamilies"],
        json!(["IPv4"])
    );
    cluster.ranges.push("fd00::/112".parse().unwrap());
    cluster.families.push(true);
    let spec = fill(&cluster, "b", json!({"ipFamilyPolicy": "PreferDualStack"})).await.unwrap();
    assert_eq!((spec["clusterIPs"].as_array().unwrap().len(), &spec["ipFamilies"]), (2, &json!(["IPv4", "IPv6"])));
}

#[tokio::test]
async fn of_two_servers_one_gets_what_both_want() {
    let cluster = cluster("10.0.0.0/24", (30000, 30001));
    let (mut one, mut other) = (ledger(&cluster, "a"), ledger(&cluster, "b"));
    for ledger in [&mut one, &mut other] {
        ledger.take_address("10.0.0.9".parse().unwrap()).await.unwrap();
        ledger.take_port(30000).await.unwrap();
    }
    assert!(commit(&cluster, one).await);
    assert!(!commit(&cluster, other).await);
    let mut again = ledger(&cluster, "b");
    assert!(matches!(again.take_address("10.0.0.9".parse().unwrap()).await, Err(LedgerError::Taken)));
    assert_eq!(again.draw_port((30000, 30001)).await.unwrap(), 30001);
    // What another has is not given back.
    again.give_back_address("10.0.0.9".parse().unwrap()).await.unwrap();
    assert!(again.writes.iter().all(|write| matches!(write, Write::Put { .. })));
}
