//! The doctor as a pod of the cluster: what goes wrong becomes a finding, an event of whom it concerns and a metric, and
//! is gone again once it is mended.

use kedge_e2e::{BUSYBOX, Machine, eventually};
use serde_json::Value;

use crate::PATIENCE;

/// A pod that no node takes until one has a label.
fn waiting_pod(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  nodeSelector: {{example.com/{name}: there}}
  tolerations: [{{operator: Exists, key: node-role.kubernetes.io/control-plane}}]
  containers:
  - {{name: c, image: '{BUSYBOX}', command: [sleep, '3600']}}
"
    )
}

pub(crate) fn what_goes_wrong_is_kept_and_goes(machine: &Machine) {
    machine.sh("$KEDGE init phase addon kube-proxy --config /etc/kubeadm.yaml 2>&1");
    machine.sh("$KEDGE init phase addon doctor --config /etc/kubeadm.yaml 2>&1");
    eventually("a doctor that has looked", PATIENCE, || {
        let text = metrics(machine)?;
        let has_looked = text.contains("kedge_doctor_leader 1") && text.contains("kedge_doctor_last_look_timestamp");
        if has_looked { Ok(()) } else { Err(text) }
    });
    // It may look at everything that it wants to see.
    let unseen = machine.sh("kubectl -n kube-system get configmap kedge-doctor -o 'jsonpath={.data.notSeen}'");
    assert_eq!(unseen.trim(), "[]");

    machine.put("/etc/pod.yaml", &waiting_pod("kept"));
    machine.sh("kubectl apply -f /etc/pod.yaml");
    eventually("a finding", PATIENCE, || {
        let (all, found) = findings(machine)?;
        if found.iter().any(is_of_the_pod) { Ok(()) } else { Err(all) }
    });
    let table = machine.sh("kubectl get findings | tr -s ' '");
    assert!(table.starts_with("NAME ID TITLE CONFIDENCE AFFECTS SINCE") && table.contains(" H1 "), "{table}");
    event(machine, "DoctorFinding", "H1 no node takes a pod");
    eventually("a metric", PATIENCE, || {
        let text = metrics(machine)?;
        if text.contains("kedge_doctor_findings{id=\"H1\",confidence=\"proven\"} 1") { Ok(()) } else { Err(text) }
    });

    machine.sh("kubectl label node --all example.com/kept=there");
    eventually("no finding", PATIENCE, || {
        let (all, found) = findings(machine)?;
        if found.iter().any(is_of_the_pod) { Err(all) } else { Ok(()) }
    });
    event(machine, "DoctorFindingGone", "H1 no node takes a pod");
    let history = machine.sh("kubectl -n kube-system get configmap kedge-doctor -o 'jsonpath={.data.history}'");
    assert!(history.contains("\"H1\"") && history.contains("default/kept"), "{history}");
    machine.sh("kubectl delete pod kept --now");
}

fn is_of_the_pod(report: &Value) -> bool {
    report["id"] == "H1" && report["subject"]["name"] == "kept"
}

/// The reports of the objects that are kept.
fn findings(machine: &Machine) -> Result<(String, Vec<Value>), String> {
    let served = machine.try_sh("kubectl get findings -o json");
    let list: Value = serde_json::from_str(&served.stdout).map_err(|error| format!("{error}: {}", served.all()))?;
    let reports = list["items"].as_array().into_iter().flatten().map(|object| object["report"].clone());
    Ok((served.stdout, reports.collect()))
}

fn event(machine: &Machine, reason: &str, text: &str) {
    let command = format!(
        "kubectl get events --field-selector reason={reason},involvedObject.name=kept \
         -o 'jsonpath={{.items[*].message}}'"
    );
    machine.shows(&format!("the event {reason}"), &command, text);
}

/// What the doctor's pod serves for Prometheus.
fn metrics(machine: &Machine) -> Result<String, String> {
    let script = "pod=$(kubectl -n kube-system get pods -l k8s-app=kedge-doctor -o 'jsonpath={.items[0].metadata.name}') && \
        kubectl get --raw /api/v1/namespaces/kube-system/pods/$pod:9099/proxy/metrics";
    let said = machine.try_sh(script);
    if said.ok { Ok(said.stdout) } else { Err(said.all()) }
}
