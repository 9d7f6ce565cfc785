//! Readiness of the pod network, with kubectl: why a node is not ready, and networks of others. One cluster for all.

use std::process::Command;
use std::time::{Duration, Instant};

use kedge_e2e::{Host, HostOptions, Kubectl, Output, eventually};

const PATIENCE: Duration = Duration::from_secs(90);
const NOT_READY: &str = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                         message:Network plugin returns error: cni plugin not initialized";
/// Another network, of a plugin that every node has.
const FOREIGN: &str = r#"{"cniVersion": "0.4.0", "name": "cbr0", "plugins": [
  {"type": "bridge", "bridge": "cbr0", "isGateway": true, "ipMasq": false, "ipam": {"type": "host-local",
   "dataDir": "DIR", "ranges": [[{"subnet": "10.200.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}"#;

fn condition(kubectl: &Kubectl, kind: &str) -> String {
    let path = format!(
        "jsonpath={{range .status.conditions[?(@.type==\"{kind}\")]}}{{.status}} {{.reason}}: {{.message}}{{end}}"
    );
    kubectl.try_run(&["get", "node", "node-1", "-o", &path]).stdout
}

fn expect_condition(kubectl: &Kubectl, kind: &str, expected: &str) {
    eventually(&format!("{kind} is {expected}"), PATIENCE, || {
        let seen = condition(kubectl, kind);
        if seen == expected { Ok(()) } else { Err(seen) }
    });
}

fn expect_status(host: &Host, expected: &[&str]) {
    eventually(&format!("the status says {expected:?}"), PATIENCE, || {
        let seen = host.kedge("status", &["--output", "json"]);
        match expected.iter().all(|text| seen.stdout.contains(text)) {
            true => Ok(()),
            false => Err(seen.all()),
        }
    });
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers: [{{name: c, image: 'localhost/busybox:test', command: [sleep, '3600']}}]\n"
    )
}

fn pod_ip(kubectl: &Kubectl, name: &str) -> String {
    kubectl.run(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    kubectl.run(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"])
}

/// What keeps the network from being made until it is taken away: a bridge of the same name with an address of others.
fn obstacle(namespace: &str, wanted: bool) {
    let commands: &[&str] = match wanted {
        true => &["link add cni0 type bridge", "address add 172.16.0.1/24 dev cni0"],
        false => &["address flush dev cni0"],
    };
    for command in commands {
        let status = Command::new("ip").args(["-n", namespace]).args(command.split(' ')).status();
        assert!(status.expect("there is ip").success(), "{command}");
    }
}

#[test]
fn a_node_says_why_its_network_is_not_ready_and_leaves_others_networks_alone() {
    let Some(mut host) = Host::prepare(HostOptions::default()) else { return };
    let namespace = host.namespace().expect("a node needs one").to_owned();
    let kubectl = host.kubectl();
    obstacle(&namespace, true);
    let taken_away = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let deadline = Instant::now() + PATIENCE;
            let wanted = format!("False KubeletNotReady: {NOT_READY}");
            let mut seen = String::new();
            while seen != wanted && Instant::now() < deadline {
                seen = condition(&kubectl, "Ready");
                std::thread::sleep(Duration::from_millis(100));
            }
            obstacle(&namespace, false);
            (seen, wanted)
        });
        host.start();
        watcher.join().expect("the watcher ends")
    });
    assert_eq!(taken_away.0, taken_away.1, "the node says why it is not ready");
    expect_condition(&kubectl, "Ready", "True KubeletReady: kubelet is posting ready status");
    expect_condition(&kubectl, "NetworkUnavailable", "False KedgeIsUp: kedge's pod network is up on this node");

    let archive = host.file("busybox.tar");
    kedge_e2e::busybox_image("localhost/busybox:test", &archive);
    let loaded: Output = host.kedge("image", &["load", archive.to_str().expect("text")]);
    assert!(loaded.ok, "{}", loaded.all());
    kubectl.apply(&pod("ours"));
    assert!(pod_ip(&kubectl, "ours").starts_with("10.244."));

    let net_d = host.data_dir().join("cni/net.d");
    assert!(net_d.join("10-kedge.conflist").exists(), "{}", net_d.display());
    let ipam = host.file("ipam").display().to_string();
    std::fs::write(net_d.join("10-flannel.conflist"), FOREIGN.replace("DIR", &ipam)).expect("it can be written");
    expect_status(&host, &["ForeignCNIConfiguration", "pods join the network cbr0 of"]);
    assert!(!net_d.join("10-kedge.conflist").exists(), "one configuration is enough");
    kubectl.apply(&pod("theirs"));
    assert!(pod_ip(&kubectl, "theirs").starts_with("10.200."));
    expect_condition(&kubectl, "Ready", "True KubeletReady: kubelet is posting ready status");
    kubectl.run(&["delete", "pod", "theirs", "ours", "--wait=true", "--timeout=60s"]);

    std::fs::remove_file(net_d.join("10-flannel.conflist")).expect("it can be removed");
    eventually("ours is back", PATIENCE, || match net_d.join("10-kedge.conflist").exists() {
        true => Ok(()),
        false => Err(host.log()),
    });
    accepts_manifests_of_others(&kubectl);
}

/// Objects with the kinds and fields that Flannel and Calico install.
fn accepts_manifests_of_others(kubectl: &Kubectl) {
    kubectl.apply(include_str!("network/flannel.yaml"));
    let network = kubectl.run(&[
        "get",
        "configmap",
        "-n",
        "kube-flannel",
        "kube-flannel-cfg",
        "-o",
        "jsonpath={.data.net-conf\\.json}",
    ]);
    assert!(network.contains("\"Type\": \"vxlan\""), "{network}");
    let tolerations = "jsonpath={.spec.template.spec.tolerations[0].operator} {.spec.template.spec.hostNetwork}";
    assert_eq!(
        kubectl.run(&["get", "daemonset", "-n", "kube-flannel", "kube-flannel-ds", "-o", tolerations]),
        "Exists true"
    );
    kubectl.apply(include_str!("network/calico.yaml"));
    let stored = kubectl.run(&["get", "crd", "ippools.crd.projectcalico.org", "-o", "jsonpath={.spec.names.kind}"]);
    assert_eq!(stored, "IPPool");
    let probe = "jsonpath={.spec.template.spec.containers[0].readinessProbe.exec.command[2]}";
    assert_eq!(kubectl.run(&["get", "daemonset", "-n", "calico-system", "calico-node", "-o", probe]), "-bird-ready");
    for name in ["kube-flannel", "calico-system"] {
        kubectl.run(&["delete", "namespace", name, "--wait=false"]);
    }
}
