//! A control plane that `kedge init` made is broken in three ways that people meet, and `kedge doctor` names the cause, on
//! the machine and through the API, with the API server up and down.
//!
//! One machine for all; each break is mended before the next.

use std::time::Duration;

use kedge_e2e::{Machine, eventually};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);
const MANIFESTS: &str = "/etc/kubernetes/manifests";
const CONFIGURATION: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 198.51.100.71}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: 10.244.0.0/16}
---
";

#[test]
fn three_failures_of_a_control_plane_are_named() {
    const TEST: &str = "three_failures_of_a_control_plane_are_named";
    if !std::path::Path::new("/usr/bin/etcd").exists() {
        kedge_skip::skip(TEST, "etcd is not installed");
        return;
    }
    let Some(machine) = Machine::start("doctor-1", "198.51.100.71") else { return };
    machine.put("/root/kubeadm.yaml", &format!("{CONFIGURATION}{}", Machine::calm_kubelet()));
    machine.sh("$KEDGE init --fix --config /root/kubeadm.yaml --skip-phases addon --ignore-preflight-errors=NumCPU 2>&1");
    nothing_fails_while_all_is_well(&machine);
    a_wrong_executable(&machine);
    a_wrong_kubeconfig(&machine);
    a_wrong_directory_of_certificates(&machine);
    a_wrong_directory_without_an_api_server(&machine);
}

/// The causes that `kedge doctor` finds, best first; those that only warn are the machine's own matter.
fn failures(machine: &Machine, arguments: &str) -> Vec<(String, String)> {
    let output = machine.try_sh(&format!("$KEDGE doctor {arguments} --output json"));
    let said: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error} in\n{}", output.all()));
    let causes = said["causes"].as_array().expect("a list").iter().filter(|cause| cause["severity"] == "failure");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    causes.map(|cause| (text(&cause["id"]), format!("{}\n{:#}", text(&cause["text"]), cause["evidence"]))).collect()
}

/// Waits until the first cause is this one.
fn names(machine: &Machine, arguments: &str, id: &str) {
    eventually(&format!("{id} by kedge doctor {arguments}"), PATIENCE, || {
        let found = failures(machine, arguments);
        if found.first().is_some_and(|(first, _)| first == id) { Ok(()) } else { Err(format!("{found:#?}")) }
    });
}

fn is_well(machine: &Machine, arguments: &str) {
    eventually(&format!("no failure by kedge doctor {arguments}"), PATIENCE, || {
        let found = failures(machine, arguments);
        // Without a pod network the node says so.
        let found: Vec<_> = found.into_iter().filter(|(id, _)| id != "E3" && id != "D15").collect();
        if found.is_empty() { Ok(()) } else { Err(format!("{found:#?}")) }
    });
}

fn nothing_fails_while_all_is_well(machine: &Machine) {
    is_well(machine, "node");
    is_well(machine, "");
}

/// Changes a manifest as a careful person does: beside the directory, and moved in. Keeps what was there.
fn edit(machine: &Machine, component: &str, expression: &str) {
    machine.sh(&format!(
        "cp {MANIFESTS}/{component}.yaml /root/{component}.yaml; sed '{expression}' /root/{component}.yaml > /root/new.yaml; \
         ! cmp -s /root/new.yaml /root/{component}.yaml; mv /root/new.yaml {MANIFESTS}/{component}.yaml"
    ));
}

fn mend(machine: &Machine, component: &str) {
    machine.sh(&format!("mv /root/{component}.yaml {MANIFESTS}/{component}.yaml"));
}

fn a_wrong_executable(machine: &Machine) {
    edit(machine, "kube-scheduler", "s/- kube-scheduler$/- kube-schedulerrr/");
    names(machine, "node", "A5");
    names(machine, "", "A5");
    mend(machine, "kube-scheduler");
}

fn a_wrong_kubeconfig(machine: &Machine) {
    edit(machine, "kube-controller-manager", "s,--kubeconfig=/etc/kubernetes/controller-manager.conf,--kubeconfig=/etc/kubernetes/controller-manager-XXXX.conf,");
    names(machine, "node", "A6");
    names(machine, "", "A6");
    mend(machine, "kube-controller-manager");
}

fn a_wrong_directory_of_certificates(machine: &Machine) {
    edit(machine, "kube-controller-manager", "s,path: /etc/kubernetes/pki$,path: /etc/kubernetes/WRONG-PKI-DIRECTORY,");
    names(machine, "node", "A8");
    names(machine, "", "A8");
    mend(machine, "kube-controller-manager");
    machine.sh("rmdir /etc/kubernetes/WRONG-PKI-DIRECTORY");
    is_well(machine, "node");
}

/// The API server itself: nobody is there to be asked, and the machine tells.
fn a_wrong_directory_without_an_api_server(machine: &Machine) {
    edit(machine, "kube-apiserver", "s,path: /etc/kubernetes/pki$,path: /etc/kubernetes/WRONG-PKI-DIRECTORY,");
    eventually("the end of the API server", PATIENCE, || {
        let output = machine.try_sh("kubectl --request-timeout=2s get --raw /livez");
        if output.ok { Err(output.all()) } else { Ok(()) }
    });
    names(machine, "", "A15");
    names(machine, "node", "A8");
    mend(machine, "kube-apiserver");
    machine.sh("rmdir /etc/kubernetes/WRONG-PKI-DIRECTORY");
    machine.shows("the API server again", "kubectl --request-timeout=5s get --raw /livez", "ok");
}
