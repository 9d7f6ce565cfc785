//! Drills on a control plane of static pods, as `kedge init` makes it.

use std::path::Path;

use kedge_e2e::{BUSYBOX, Machine, names_no_failure, names_only};

use super::{in_two_runs, judge, scenarios};

const ADDRESS: &str = "198.51.100.31";
const NAME: &str = "drills-1";
const CONFIGURATION: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 198.51.100.31}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: 10.244.0.0/16}
controlPlaneEndpoint: drills-1:6443
---
";

pub(super) fn are_done() {
    if !Path::new("/usr/bin/etcd").exists() {
        kedge_skip::skip("drills on a control plane of static pods", "etcd is not installed");
        return;
    }
    let Some(machine) = Machine::start(NAME, ADDRESS) else { return };
    machine.put("/root/kubeadm.yaml", &format!("{CONFIGURATION}{}", Machine::calm_kubelet()));
    machine.load_busybox();
    machine.sh("$KEDGE init --fix --config /root/kubeadm.yaml 2>&1 && $KEDGE init phase addon network 2>&1");
    machine.sh("kubectl wait --for=condition=Ready node --all --timeout=120s");
    machine.sh("kubectl taint nodes --all node-role.kubernetes.io/control-plane-");
    machine.sh("kubectl rollout status -n kube-system deployment/coredns --timeout=120s");
    machine.sh("kubectl create configmap told --from-literal=told=acknowledged");
    machine.sh(&format!("kubectl create deployment bystander --image={BUSYBOX} -- sleep 100000"));
    machine.sh("kubectl rollout status deployment/bystander --timeout=90s");
    nothing_alarms(&machine);
    nothing_is_broken_by_mistake(&machine);
    let before = files(&machine);
    let all = scenarios(true);
    let verified = in_two_runs(&all, |ids, shell| {
        let image = if shell { format!("--image {BUSYBOX}") } else { String::new() };
        let done = machine
            .try_sh(&format!("$KEDGE drill verify --this-machine --yes --output json {image} {}", ids.join(" ")));
        eprint!("{}", done.stderr);
        done.stdout
    });
    judge(&verified, all.len());
    assert_eq!(files(&machine), before);
    assert_eq!(machine.sh("kubectl get configmap told -o jsonpath={.data.told}"), "acknowledged");
}

/// A cluster that was made a moment ago.
fn nothing_alarms(machine: &Machine) {
    names_only(&machine.try_sh("$KEDGE doctor --output json"), "nothing", &[]);
    names_no_failure(&machine.try_sh("$KEDGE doctor node --output json"), "nothing");
}

fn files(machine: &Machine) -> String {
    machine.sh("cd /etc/kubernetes && ls -A . manifests pki && sha256sum manifests/* pki/*.crt pki/*.key")
}

/// A cluster that is not one of test hosts is broken only by somebody who says so twice.
fn nothing_is_broken_by_mistake(machine: &Machine) {
    let before = files(machine);
    let start = "$KEDGE drill start scheduler-program";
    let nowhere = machine.try_sh(&format!("KEDGE_CLUSTERS_DIR=/none {start}"));
    assert!(!nowhere.ok && nowhere.all().contains("there is no cluster of test hosts"), "{}", nowhere.all());
    let unsure = machine.try_sh(&format!("{start} --this-machine"));
    assert!(!unsure.ok && unsure.all().contains("say --yes"), "{}", unsure.all());
    let told = machine.sh(&format!("{start} --this-machine --dry-run"));
    assert!(told.contains("editFile") && told.contains("kube-scheduler.yaml"), "{told}");
    assert_eq!(files(machine), before);
    assert!(machine.sh("$KEDGE drill status").contains("no drill is going on"));
}
