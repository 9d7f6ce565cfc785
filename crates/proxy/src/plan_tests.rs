//! Tables of Services and endpoints against the rules they make.

use super::*;

fn node() -> NodeView {
    NodeView {
        name: "me".to_owned(),
        ips: vec!["192.0.2.2".parse().unwrap()],
        node_port_ips: Some(vec!["192.0.2.2".parse().unwrap(), "127.0.0.1".parse().unwrap()]),
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        ..NodeView::default()
    }
}

fn plan(spec: serde_json::Value, endpoints: serde_json::Value) -> ServicePlan {
    let metadata = serde_json::json!({"namespace": "ns", "name": "web"});
    let status = serde_json::json!({"loadBalancer": {"ingress": [{"ip": "5.5.5.5"}]}});
    let service: Service =
        serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec, "status": status})).unwrap();
    let slice: EndpointSlice = serde_json::from_value(serde_json::json!({
        "addressType": "IPv4", "ports": [{"port": 8080}, {"port": 53, "protocol": "UDP"}], "endpoints": endpoints
    }))
    .unwrap();
    plan_service(&service, [&slice], &node(), false)
}

/// Compares without the hashes in names (which decide the order of the chains).
fn check(spec: serde_json::Value, endpoints: serde_json::Value, expected: &str) {
    let shown = show(&plan(spec, endpoints).fragment);
    let words = shown.split_inclusive([' ', '\n', '@']).map(|word| {
        let parts: Vec<&str> = word.splitn(3, '-').collect();
        match parts.as_slice() {
            [kind, hash, rest] if hash.len() == 8 && rest.starts_with("ns/") => format!("{kind}-{rest}"),
            _ => word.to_owned(),
        }
    });
    let lines = |text: &str| text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    assert_eq!(lines(&words.collect::<String>()), lines(expected));
}

#[test]
fn a_cluster_ip_with_two_endpoints() {
    check(
        serde_json::json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}),
        serde_json::json!([{"addresses": ["10.244.0.2"]}, {"addresses": ["10.244.0.3"]}]),
        "
        balanced-cluster-ips { 10.96.0.1 . tcp . 80 }
        cluster-ips { 10.96.0.1 }
        endpoint-0 { 10.96.0.1 . tcp . 80 : 10.244.0.2 . 8080 }
        endpoint-1 { 10.96.0.1 . tcp . 80 : 10.244.0.3 . 8080 }
        hairpin-endpoints { 10.244.0.2 . 10.244.0.2 }
        hairpin-endpoints { 10.244.0.3 . 10.244.0.3 }
        with-2-endpoints { 10.96.0.1 . tcp . 80 }
        ",
    );
}

#[test]
fn no_endpoints_are_refused_and_headless_has_no_rules() {
    check(
        serde_json::json!({"clusterIP": "10.96.0.1", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
        serde_json::json!([{"addresses": ["10.244.0.2"], "conditions": {"ready": false}}]),
        "
        cluster-ips { 10.96.0.1 }
        no-endpoint-nodeports { tcp . 30080 : goto reject-chain }
        no-endpoint-services { 10.96.0.1 . tcp . 80 : goto reject-chain }
        ",
    );
    check(
        serde_json::json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        serde_json::json!([{"addresses": ["10.244.0.2"]}]),
        "",
    );
}

#[test]
fn external_addresses_are_masqueraded() {
    check(
        serde_json::json!({"clusterIP": "10.96.0.1", "type": "LoadBalancer", "externalIPs": ["9.9.9.9"],
            "loadBalancerSourceRanges": ["192.0.2.0/24"], "ports": [{"port": 80, "nodePort": 30080}]}),
        serde_json::json!([{"addresses": ["10.244.0.2"]}]),
        "
        balanced-cluster-ips { 10.96.0.1 . tcp . 80 }
        balanced-external-ips { 127.0.0.1 . tcp . 30080 }
        balanced-external-ips { 192.0.2.2 . tcp . 30080 }
        balanced-external-ips { 5.5.5.5 . tcp . 80 }
        balanced-external-ips { 9.9.9.9 . tcp . 80 }
        cluster-ips { 10.96.0.1 }
        endpoint-0 { 10.96.0.1 . tcp . 80 : 10.244.0.2 . 8080 }
        endpoint-0 { 127.0.0.1 . tcp . 30080 : 10.244.0.2 . 8080 }
        endpoint-0 { 192.0.2.2 . tcp . 30080 : 10.244.0.2 . 8080 }
        endpoint-0 { 5.5.5.5 . tcp . 80 : 10.244.0.2 . 8080 }
        endpoint-0 { 9.9.9.9 . tcp . 80 : 10.244.0.2 . 8080 }
        firewall-ips { 5.5.5.5 . tcp . 80 : goto firewall-ns/web/tcp/ }
        hairpin-endpoints { 10.244.0.2 . 10.244.0.2 }
        with-1-endpoints { 10.96.0.1 . tcp . 80 }
        with-1-endpoints { 127.0.0.1 . tcp . 30080 }
        with-1-endpoints { 192.0.2.2 . tcp . 30080 }
        with-1-endpoints { 5.5.5.5 . tcp . 80 }
        with-1-endpoints { 9.9.9.9 . tcp . 80 }
        firewall-ns/web/tcp/
          ip saddr != { 5.5.5.5, 192.0.2.0/24 } drop
        ",
    );
}

#[test]
fn local_policies_keep_traffic_here_or_drop_it() {
    check(
        serde_json::json!({"clusterIP": "10.96.0.1", "type": "NodePort", "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Local", "ports": [{"port": 80, "nodePort": 30080}]}),
        serde_json::json!([{"addresses": ["10.244.1.2"], "nodeName": "other"}]),
        "
        cluster-ips { 10.96.0.1 }
        no-endpoint-nodeports { tcp . 30080 : drop }
        no-endpoint-services { 10.96.0.1 . tcp . 80 : drop }
        service-nodeports { tcp . 30080 : goto external-ns/web/tcp/ }
        endpoint-ns/web/tcp/__10.244.1.2/8080
          ip saddr 10.244.1.2 jump mark-for-masquerade
          meta l4proto tcp dnat to 10.244.1.2:8080
        external-ns/web/tcp/
          ip saddr 10.244.0.0/16 goto service-ns/web/tcp/ comment \"short-circuit pod traffic\"
          fib saddr type local jump mark-for-masquerade comment \"masquerade local traffic\"
          fib saddr type local goto service-ns/web/tcp/ comment \"short-circuit local traffic\"
        service-ns/web/tcp/
          goto endpoint-ns/web/tcp/__10.244.1.2/8080
        ",
    );
}

#[test]
fn affinity_remembers_clients_per_endpoint() {
    check(
        serde_json::json!({"clusterIP": "10.96.0.1", "sessionAffinity": "ClientIP", "ports": [{"port": 80}],
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}),
        serde_json::json!([{"addresses": ["10.244.0.2"]}]),
        "
        cluster-ips { 10.96.0.1 }
        service-ips { 10.96.0.1 . tcp . 80 : goto service-ns/web/tcp/ }
        endpoint-ns/web/tcp/__10.244.0.2/8080
          ip saddr 10.244.0.2 jump mark-for-masquerade
          update @affinity-ns/web/tcp/__10.244.0.2/8080 { ip saddr timeout 60s }
          meta l4proto tcp dnat to 10.244.0.2:8080
        service-ns/web/tcp/
          ip daddr 10.96.0.1 tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
          ip saddr @affinity-ns/web/tcp/__10.244.0.2/8080 goto endpoint-ns/web/tcp/__10.244.0.2/8080
          goto endpoint-ns/web/tcp/__10.244.0.2/8080
        set affinity-ns/web/tcp/__10.244.0.2/8080
        ",
    );
}

#[test]
fn udp_ports_and_health_checks_are_reported() {
    let endpoints = serde_json::json!([{"addresses": ["10.244.0.2"], "nodeName": "me"}, {"addresses": ["10.244.1.2"]}]);
    let spec = serde_json::json!({"clusterIP": "10.96.0.10", "type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 31000, "ports": [{"port": 53, "protocol": "UDP", "nodePort": 30053}]});
    let plan = plan(spec, endpoints);
    assert_eq!(plan.health_check, Some(HealthCheck { node_port: 31000, local_endpoints: 1 }));
    assert_eq!(plan.udp.len(), 1);
    assert_eq!(plan.udp[0].endpoints.len(), 2);
    assert_eq!(plan.udp[0].addresses.len(), 2);
}

#[test]
fn what_does_not_fit_the_shared_way_has_chains() {
    let chains = |spec: serde_json::Value, endpoints: usize| {
        let endpoints: Vec<serde_json::Value> =
            (0..endpoints).map(|n| serde_json::json!({"addresses": [format!("10.244.1.{n}")]})).collect();
        plan(spec, endpoints.into()).fragment.chains.len()
    };
    let cluster_ip = serde_json::json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
    assert_eq!(chains(cluster_ip.clone(), 1), 0);
    assert_eq!(chains(cluster_ip.clone(), 64), 0);
    assert_eq!(chains(cluster_ip, 65), 66);
    let sticky = serde_json::json!({"clusterIP": "10.96.0.1", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]});
    assert_eq!(chains(sticky, 2), 3);
    let local = serde_json::json!({"clusterIP": "10.96.0.1", "type": "NodePort", "externalTrafficPolicy": "Local",
        "ports": [{"port": 80, "nodePort": 30080}]});
    assert_eq!(chains(local, 2), 4);
}
