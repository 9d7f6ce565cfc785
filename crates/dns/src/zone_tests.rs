//! Tables of questions against answers, over a fixed cluster.

use super::*;
use k8s_openapi::api::core::v1::Namespace;
use kedge_client::Informer;
use serde_json::{Value, json};

fn drain<K: kube::Resource + Clone>(informer: &Informer<K>, mut note: impl FnMut(&kedge_client::Change<K>)) {
    let mut changes = informer.subscribe();
    while let Some(change) = changes.try_next() {
        note(&change);
    }
}

fn service(name: &str, spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap()
}

fn slice(service: &str, kind: &str, ports: Value, endpoints: Value) -> EndpointSlice {
    let labels = json!({"kubernetes.io/service-name": service});
    let metadata = json!({"namespace": "ns", "name": format!("{service}-{kind}"), "labels": labels});
    serde_json::from_value(json!({"metadata": metadata, "addressType": kind, "ports": ports, "endpoints": endpoints}))
        .unwrap()
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let services = Informer::fixed([
        service("web", json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"], "ports": ports})),
        service("one", json!({"clusterIP": "10.96.0.6", "ports": [{"port": 80}]})),
        service("db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]})),
        service("empty", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]})),
        service("out", json!({"type": "ExternalName", "externalName": "www.Example.org"})),
    ]);
    let ports = json!([{"name": "sql", "port": 15432}]);
    let slices = Informer::fixed([
        slice(
            "db",
            "IPv4",
            ports.clone(),
            json!([
            {"addresses": ["10.244.0.3"], "hostname": "db-0"}, {"addresses": ["10.244.0.4"]},
            {"addresses": ["10.244.0.9"], "hostname": "db-9", "conditions": {"ready": false}}]),
        ),
        slice("db", "IPv6", ports, json!([{"addresses": ["fd00:1::3"], "hostname": "db-0"}])),
        slice(
            "web",
            "IPv4",
            json!([{"name": "http", "port": 8080}]),
            json!([{"addresses": ["10.244.0.7"], "hostname": "web-0"}]),
        ),
    ]);
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "ns"}})).unwrap();
    drain(&services, |change| catalog.note_service(change));
    drain(&slices, |change| catalog.note_slice(change));
    drain(&Informer::fixed([namespace]), |change| catalog.note_namespace(change));
    catalog
}

fn zone() -> Zone {
    let reverse = ["10.244.0.0/16", "10.96.0.0/12"].map(|range| range.parse().unwrap()).to_vec();
    Zone::new("cluster.local", reverse, vec!["10.96.0.10".parse().unwrap()]).unwrap()
}

fn show(records: &[Record]) -> String {
    records
        .iter()
        .map(|record| format!("{} {} {}", record.ttl, record.record_type(), record.data))
        .collect::<Vec<_>>()
        .join("; ")
}

fn ask(name: &str, kind: RecordType) -> String {
    match zone().resolve(&catalog(), &Name::from_ascii(name).unwrap(), kind) {
        Outcome::Records { answers, additionals } if additionals.is_empty() => show(&answers),
        Outcome::Records { answers, additionals } => format!("{} + {}", show(&answers), show(&additionals)),
        Outcome::Alias { record, target } => format!("{} -> {target}", show(&[*record])),
        Outcome::NoSuchName => "NXDOMAIN".to_owned(),
        Outcome::Foreign => "foreign".to_owned(),
    }
}

#[test]
fn addresses_of_services_and_pods() {
    use RecordType::{A, AAAA, TXT};
    let check = |name: &str, kind, expected: &str| assert_eq!(ask(name, kind), expected, "{name} {kind}");
    check("web.ns.svc.cluster.local.", A, "30 A 10.96.0.5");
    check("WEB.Ns.SVC.Cluster.Local.", A, "30 A 10.96.0.5");
    check("web.ns.svc.cluster.local.", AAAA, "30 AAAA fd00::5");
    check("web.ns.svc.cluster.local.", TXT, "");
    check("one.ns.svc.cluster.local.", AAAA, "");
    check("db.ns.svc.cluster.local.", A, "5 A 10.244.0.3; 5 A 10.244.0.4");
    check("db-0.db.ns.svc.cluster.local.", A, "5 A 10.244.0.3");
    check("db-0.db.ns.svc.cluster.local.", AAAA, "5 AAAA fd00:1::3");
    check("10-244-0-4.db.ns.svc.cluster.local.", A, "5 A 10.244.0.4");
    check("10-244-0-3.db.ns.svc.cluster.local.", A, "NXDOMAIN");
    check("db-9.db.ns.svc.cluster.local.", A, "NXDOMAIN");
    check("web-0.web.ns.svc.cluster.local.", A, "5 A 10.244.0.7");
    check("empty.ns.svc.cluster.local.", A, "");
    check("10-244-0-77.ns.pod.cluster.local.", A, "30 A 10.244.0.77");
    check("10-244-0-77.ns.pod.cluster.local.", AAAA, "");
    check("fd00--7.ns.pod.cluster.local.", AAAA, "30 AAAA fd00::7");
    check("10-244-0-77.none.pod.cluster.local.", A, "NXDOMAIN");
    check("no-address.ns.pod.cluster.local.", A, "NXDOMAIN");
    check("out.ns.svc.cluster.local.", A, "30 CNAME www.Example.org. -> www.Example.org.");
    check("out.ns.svc.cluster.local.", RecordType::CNAME, "30 CNAME www.Example.org.");
    check("ns.dns.cluster.local.", A, "30 A 10.96.0.10");
}

#[test]
fn names_that_exist_without_records_and_names_that_do_not() {
    let check = |name: &str, expected: &str| assert_eq!(ask(name, RecordType::A), expected, "{name}");
    for name in
        ["", "svc.", "pod.", "ns.svc.", "ns.pod.", "dns.", "dns-version.", "_tcp.web.ns.svc.", "_http._tcp.web.ns.svc."]
    {
        check(&format!("{name}cluster.local."), "");
    }
    for name in [
        "nope.",
        "none.svc.",
        "no.ns.svc.",
        "a.b.web.ns.svc.",
        "_x._tcp.web.ns.svc.",
        "_http._udp.web.ns.svc.",
        "_sctp.web.ns.svc.",
    ] {
        check(&format!("{name}cluster.local."), "NXDOMAIN");
    }
    check("www.example.org.default.svc.cluster.local.", "NXDOMAIN");
    check("www.example.org.", "foreign");
    check("local.", "foreign");
    check("notcluster.local.", "foreign");
}

#[test]
fn services_ports_and_the_zone_itself() {
    let check = |name: &str, kind, expected: &str| assert_eq!(ask(name, kind), expected, "{name} {kind}");
    let web = "30 A 10.96.0.5; 30 AAAA fd00::5";
    check(
        "_http._tcp.web.ns.svc.cluster.local.",
        RecordType::SRV,
        &format!("30 SRV 0 100 80 web.ns.svc.cluster.local. + {web}"),
    );
    check(
        "_DNS._UDP.web.ns.svc.cluster.local.",
        RecordType::SRV,
        &format!("30 SRV 0 100 53 web.ns.svc.cluster.local. + {web}"),
    );
    check(
        "web.ns.svc.cluster.local.",
        RecordType::SRV,
        &format!("30 SRV 0 50 53 web.ns.svc.cluster.local.; 30 SRV 0 50 80 web.ns.svc.cluster.local. + {web}"),
    );
    check(
        "_sql._tcp.db.ns.svc.cluster.local.",
        RecordType::SRV,
        "5 SRV 0 50 15432 10-244-0-4.db.ns.svc.cluster.local.; 5 SRV 0 50 15432 db-0.db.ns.svc.cluster.local. + \
         5 A 10.244.0.4; 5 A 10.244.0.3; 5 AAAA fd00:1::3",
    );
    check("_sql._tcp.empty.ns.svc.cluster.local.", RecordType::SRV, "");
    check("dns-version.cluster.local.", RecordType::TXT, "30 TXT 1.1.0");
    check("cluster.local.", RecordType::NS, "30 NS ns.dns.cluster.local.");
    check(
        "cluster.local.",
        RecordType::SOA,
        "5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5",
    );
}

#[test]
fn reverse_names() {
    let check = |name: &str, kind, expected: &str| assert_eq!(ask(name, kind), expected, "{name} {kind}");
    check("5.0.96.10.in-addr.arpa.", RecordType::PTR, "5 PTR web.ns.svc.cluster.local.");
    check("3.0.244.10.in-addr.arpa.", RecordType::PTR, "5 PTR db-0.db.ns.svc.cluster.local.");
    check("4.0.244.10.in-addr.arpa.", RecordType::PTR, "5 PTR 10-244-0-4.db.ns.svc.cluster.local.");
    check("4.0.244.10.in-addr.arpa.", RecordType::A, "");
    // An endpoint of a Service that has a ClusterIP has no reverse name.
    check("7.0.244.10.in-addr.arpa.", RecordType::PTR, "NXDOMAIN");
    check("8.8.8.8.in-addr.arpa.", RecordType::PTR, "foreign");
    check("244.10.in-addr.arpa.", RecordType::PTR, "");
    check("10.in-addr.arpa.", RecordType::PTR, "foreign");
    let six = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    check(six, RecordType::PTR, "5 PTR web.ns.svc.cluster.local.");
}

#[test]
fn negative_answers_of_the_domain_have_an_authority() {
    let has = |name: &str| zone().negative_authority(&Name::from_ascii(name).unwrap()).is_some();
    assert!(has("no.NS.svc.CLUSTER.local."));
    assert!(!has("7.0.244.10.in-addr.arpa."));
    assert!(Zone::new("", Vec::new(), Vec::new()).is_none());
    assert!(Zone::new("a..b", Vec::new(), Vec::new()).is_none());
}
