//! A control plane that `kedge init` made is broken in the ways that people meet. `kedge doctor` names the cause first, on
//! the machine, through the API and from a bundle, with the API server up and down; `--fix` mends it, `undo` takes that back.
//!
//! One machine for all; each break is mended before the next.

#[path = "doctor_control_plane/always_on.rs"]
mod always_on;
#[path = "doctor_control_plane/objects.rs"]
mod objects;

use std::time::Duration;

use kedge_e2e::{Machine, eventually};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);
const MANIFESTS: &str = "/etc/kubernetes/manifests";
const WRONG_DIRECTORY: &str = "/etc/kubernetes/WRONG-PKI-DIRECTORY";
const CONFIGURATION: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 198.51.100.71}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: 10.244.0.0/16}
---
";
/// Enough of a pod network for the node to be ready.
const NETWORK: &str = r#"{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "pods0",
"isDefaultGateway": true, "ipam": {"type": "host-local", "subnet": "10.244.0.0/24"}}]}"#;

#[test]
fn failures_of_a_control_plane_are_named_and_mended() {
    const TEST: &str = "failures_of_a_control_plane_are_named_and_mended";
    if !std::path::Path::new("/usr/bin/etcd").exists() {
        kedge_skip::skip(TEST, "etcd is not installed");
        return;
    }
    let Some(machine) = Machine::start("doctor-1", "198.51.100.71") else { return };
    machine.put("/etc/kubeadm.yaml", &format!("{CONFIGURATION}{}", Machine::calm_kubelet()));
    machine
        .sh("$KEDGE init --fix --config /etc/kubeadm.yaml --skip-phases addon --ignore-preflight-errors=NumCPU 2>&1");
    machine.sh("mkdir -p /etc/cni/net.d");
    machine.put("/etc/cni/net.d/10-pods.conflist", NETWORK);
    machine.sh("kubectl wait --for=condition=Ready node --all --timeout=90s");
    nothing_fails_while_all_is_well(&machine);
    a_wrong_executable(&machine);
    a_wrong_kubeconfig(&machine);
    a_wrong_directory_of_certificates(&machine);
    a_wrong_directory_without_an_api_server(&machine);
    machine.load_busybox();
    always_on::what_goes_wrong_is_kept_and_goes(&machine);
    objects::are_mended_and_taken_back(&machine);
    is_well(&machine);
}

/// The failures that `kedge doctor` finds, best first, each with its text. Warnings are the matter of the machine of the test.
fn failures(machine: &Machine, arguments: &str) -> Vec<(String, String)> {
    let output = machine.try_sh(&format!("$KEDGE doctor {arguments} --output json"));
    let said: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error} in\n{}", output.all()));
    let causes = said["causes"].as_array().expect("a list").iter().filter(|cause| cause["severity"] == "failure");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    causes.map(|cause| (text(&cause["id"]), text(&cause["text"]))).collect()
}

/// Waits until this cause is the first, with these words.
fn names(machine: &Machine, arguments: &str, id: &str, words: &str) {
    eventually(&format!("{id} by kedge doctor {arguments}"), PATIENCE, || {
        let found = failures(machine, arguments);
        let is_first = found.first().is_some_and(|(first, text)| first == id && text.contains(words));
        if is_first { Ok(()) } else { Err(format!("{found:#?}")) }
    });
}

fn is_well(machine: &Machine) {
    for arguments in ["node", ""] {
        eventually(&format!("no failure by kedge doctor {arguments}"), PATIENCE, || {
            let found = failures(machine, arguments);
            if found.is_empty() { Ok(()) } else { Err(format!("{found:#?}")) }
        });
    }
}

fn nothing_fails_while_all_is_well(machine: &Machine) {
    is_well(machine);
    let said = machine.try_sh("$KEDGE doctor node --fix --dry-run");
    assert!(!said.stdout.contains(MANIFESTS), "{}", said.all());
    let none = machine.try_sh("$KEDGE doctor undo --yes");
    assert!(!none.ok && none.all().contains("there is no repair to undo"), "{}", none.all());
}

/// Changes a manifest as a careful person does: beside the directory, and moved in.
fn edit(machine: &Machine, component: &str, expression: &str) {
    machine.sh(&format!(
        "sed '{expression}' {MANIFESTS}/{component}.yaml > /etc/broken.yaml && \
         if cmp -s /etc/broken.yaml {MANIFESTS}/{component}.yaml; then exit 1; fi && \
         cp /etc/broken.yaml /etc/new.yaml && mv /etc/new.yaml {MANIFESTS}/{component}.yaml"
    ));
}

/// Lets the doctor mend it, which takes the manifest back to what `kedge init` wrote.
fn mend(machine: &Machine, component: &str, id: &str) {
    let said = machine.try_sh("$KEDGE doctor node --fix --yes");
    assert!(said.stdout.contains(&format!("mended: {id} is gone")), "{}", said.all());
    machine.sh(&format!("cmp {MANIFESTS}/{component}.yaml /var/lib/kedge/manifests/{component}.yaml"));
}

/// What was collected is enough for whoever was not there.
fn a_bundle_names(machine: &Machine, id: &str, words: &str) {
    // Between two runs of a container there is none to collect.
    eventually(&format!("{id} in a bundle"), PATIENCE, || {
        machine.sh("rm -f /etc/bundle.tar.gz; $KEDGE doctor collect --file /etc/bundle.tar.gz");
        let found = failures(machine, "bundle /etc/bundle.tar.gz");
        let is_first = found.first().is_some_and(|(first, text)| first == id && text.contains(words));
        if is_first { Ok(()) } else { Err(format!("{found:#?}")) }
    });
}

fn a_wrong_executable(machine: &Machine) {
    let (component, id, words) = ("kube-scheduler", "A5", "kube-schedulerrr");
    edit(machine, component, "s/- kube-scheduler$/- kube-schedulerrr/");
    names(machine, "node", id, words);
    names(machine, "", id, words);
    a_bundle_names(machine, id, words);
    mend(machine, component, id);
    // Something else of the machine of the test may have been mended after it, and is taken back before it.
    machine
        .sh(&format!("for try in 1 2 3 4 5; do $KEDGE doctor undo --yes | grep -F '[{id}]' && exit 0; done; exit 1"));
    machine.sh(&format!("cmp /etc/broken.yaml {MANIFESTS}/{component}.yaml"));
    names(machine, "node", id, words);
    mend(machine, component, id);
    let list = machine.sh("$KEDGE doctor undo --list");
    assert!(list.contains("made") && list.contains("undone"), "{list}");
    is_well(machine);
}

fn a_wrong_kubeconfig(machine: &Machine) {
    let (component, id, words) = ("kube-controller-manager", "A6", "controller-manager-XXXX.conf");
    edit(
        machine,
        component,
        &format!("s,--kubeconfig=/etc/kubernetes/controller-manager.conf,--kubeconfig=/etc/kubernetes/{words},"),
    );
    names(machine, "node", id, words);
    names(machine, "", id, words);
    mend(machine, component, id);
    is_well(machine);
}

fn a_wrong_directory_of_certificates(machine: &Machine) {
    let (component, id) = ("kube-controller-manager", "A8");
    edit(machine, component, &format!("s,path: /etc/kubernetes/pki$,path: {WRONG_DIRECTORY},"));
    names(machine, "node", id, WRONG_DIRECTORY);
    names(machine, "", id, WRONG_DIRECTORY);
    mend(machine, component, id);
    is_well(machine);
}

/// The API server itself: nobody is there to be asked, and the machine tells.
fn a_wrong_directory_without_an_api_server(machine: &Machine) {
    let (component, id) = ("kube-apiserver", "A8");
    edit(machine, component, &format!("s,path: /etc/kubernetes/pki$,path: {WRONG_DIRECTORY},"));
    eventually("the end of the API server", PATIENCE, || {
        let output = machine.try_sh("kubectl --request-timeout=2s get --raw /livez");
        if output.ok { Err(output.all()) } else { Ok(()) }
    });
    names(machine, "", "A15", "198.51.100.71:6443");
    names(machine, "node", id, WRONG_DIRECTORY);
    a_bundle_names(machine, id, WRONG_DIRECTORY);
    mend(machine, component, id);
    machine.shows("the API server again", "kubectl --request-timeout=5s get --raw /livez", "ok");
    is_well(machine);
}
