//! What `kedge doctor --fix` mends through the API: a cordon that was forgotten, a taint that was left over, a directive of
//! the Corefile. Each is taken back by `kedge doctor undo`. A cordon of a moment ago is somebody's work, and stays.

use kedge_e2e::{BUSYBOX, Machine, eventually};

use crate::PATIENCE;

const UNSCHEDULABLE: &str = "kubectl get node -o 'jsonpath={.items[0].spec.unschedulable}'";
const TAINTS: &str = "kubectl get node -o 'jsonpath={.items[0].spec.taints[*].key}'";
const LEFT_OVER: &str = "node.kubernetes.io/out-of-service";
const COREFILE: &str = "kubectl -n kube-system get configmap coredns -o 'jsonpath={.data.Corefile}'";

pub(crate) fn are_mended_and_taken_back(machine: &Machine) {
    let pod = |name: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  tolerations: [{{operator: Exists, key: node-role.kubernetes.io/control-plane}}]
  containers:
  - {{name: c, image: '{BUSYBOX}', command: [sleep, '3600']}}
"
        )
    };
    a_cordon(machine, &pod("first"));
    a_taint(machine, &pod("second"));
    a_directive(machine);
}

fn waits(machine: &Machine, manifest: &str, words: &str) {
    machine.put("/etc/pod.yaml", manifest);
    machine.sh("kubectl apply -f /etc/pod.yaml");
    machine.shows("a pod that waits", "kubectl describe -f /etc/pod.yaml", words);
}

fn mended(machine: &Machine, id: &str) {
    let said = machine.try_sh("$KEDGE doctor --fix --yes");
    assert!(said.stdout.contains(&format!("mended: {id} is gone")), "{}", said.all());
}

fn undone(machine: &Machine, id: &str) {
    let said = machine.sh("$KEDGE doctor undo --yes");
    assert!(said.contains(&format!("[{id}]")), "{said}");
}

fn a_cordon(machine: &Machine, manifest: &str) {
    machine.sh("kubectl cordon $(kubectl get node -o name | cut -d/ -f2)");
    machine.shows("the taint of a cordon", TAINTS, "node.kubernetes.io/unschedulable");
    waits(machine, manifest, "were unschedulable");
    let said = machine.try_sh("$KEDGE doctor --fix --yes");
    assert!(
        said.stdout.contains("this is for people") && said.stdout.contains("somebody may be at work"),
        "{}",
        said.all()
    );
    assert_eq!(machine.sh(UNSCHEDULABLE), "true", "a maintenance goes on");
    machine.shows(
        "the kubelet's word on it",
        "kubectl get events -A --field-selector reason=NodeNotSchedulable -o 'jsonpath={.items[*].message}'",
        "status is now: NodeNotSchedulable",
    );

    // Hours later nobody is there any more.
    machine.sh(
        "kubectl patch node $(kubectl get node -o name | cut -d/ -f2) -p '{\"spec\": {\"taints\": [{\"effect\": \"NoSchedule\", \
         \"key\": \"node.kubernetes.io/unschedulable\", \"timeAdded\": \"2026-01-01T00:00:00Z\"}]}}'",
    );
    mended(machine, "H1");
    assert_eq!(machine.sh(UNSCHEDULABLE), "");
    undone(machine, "H1");
    assert_eq!(machine.sh(UNSCHEDULABLE), "true");
    machine.sh("kubectl uncordon $(kubectl get node -o name | cut -d/ -f2)");
}

fn a_taint(machine: &Machine, manifest: &str) {
    machine.sh(&format!("kubectl taint node --all {LEFT_OVER}=nodeshutdown:NoSchedule"));
    waits(machine, manifest, "untolerated taint");
    mended(machine, "H1");
    assert!(!machine.sh(TAINTS).contains(LEFT_OVER));
    undone(machine, "H1");
    assert!(machine.sh(TAINTS).contains(LEFT_OVER));
    machine.sh(&format!("kubectl taint node --all {LEFT_OVER}- && kubectl delete pod first second --now"));
}

fn a_directive(machine: &Machine) {
    machine.sh("printf '.:53 {\\n    errors\\n    proxy . /etc/resolv.conf\\n}\\n' > /etc/Corefile && \
         kubectl -n kube-system create configmap coredns --from-file=/etc/Corefile && \
         kubectl -n kube-system create deployment coredns --image=localhost/coredns:v1 --replicas=0");
    eventually("the directive", PATIENCE, || {
        let said = machine.try_sh("$KEDGE doctor");
        if said.stdout.contains("[G15;") { Ok(()) } else { Err(said.all()) }
    });
    mended(machine, "G15");
    let corefile = machine.sh(COREFILE);
    assert!(corefile.contains("    forward . /etc/resolv.conf") && !corefile.contains("proxy"), "{corefile}");
    let restarted = "kubectl -n kube-system get deployment coredns -o yaml";
    assert!(machine.sh(restarted).contains("kubectl.kubernetes.io/restartedAt"));
    undone(machine, "G15");
    assert!(machine.sh(COREFILE).contains("    proxy . /etc/resolv.conf"));
    machine.sh("kubectl -n kube-system delete configmap/coredns deployment/coredns");
}
