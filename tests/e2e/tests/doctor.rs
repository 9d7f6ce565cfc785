//! `kedge doctor` on a real control plane and on a machine's files: silent where all is well, and right where it is not.

use std::process::Command;
use std::time::Duration;

use kedge_e2e::{Host, HostOptions, eventually, kedge_binary};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// What `kedge doctor` says as JSON, and its exit code.
fn doctor(arguments: &[&str]) -> Option<(i32, Value)> {
    let mut command = Command::new(kedge_binary()?);
    let output = command.arg("doctor").args(arguments).args(["--output", "json"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let said = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error} in\n{text}\n{}", String::from_utf8_lossy(&output.stderr)));
    Some((output.status.code().expect("it ends by itself"), said))
}

fn ids(diagnosis: &Value) -> Vec<&str> {
    diagnosis["causes"].as_array().expect("a list").iter().map(|cause| cause["id"].as_str().expect("a text")).collect()
}

#[test]
fn a_cluster_is_healthy_until_something_is_wrong() {
    let options = HostOptions { control_plane_only: true, ..HostOptions::default() };
    let Some(mut host) = Host::up(options) else { return };
    let kubectl = host.kubectl();
    let kubeconfig = host.kubeconfig().to_string_lossy().into_owned();
    let look = || doctor(&["--kubeconfig", &kubeconfig]).expect("there is a binary");
    let (code, healthy) = look();
    assert_eq!((code, ids(&healthy)), (0, vec![]), "{healthy}");

    // No node at all: the scheduler says so, and it is the cause.
    kubectl.run(&["create", "deployment", "web", "--image=example/web"]);
    let (code, said) = eventually("a pod that no node takes", PATIENCE, || {
        let (code, said) = look();
        if ids(&said) == ["H1"] { Ok((code, said)) } else { Err(said.to_string()) }
    });
    assert_eq!(code, 2);
    assert!(said["causes"][0]["text"].as_str().expect("a text").contains("no nodes available"), "{said}");

    // A jane without rights: nothing is guessed about what is not seen.
    let stranger = host.file("stranger.conf");
    let own = std::fs::read_to_string(host.kubeconfig()).expect("it is there");
    let other = own.replace("client-key-data", "unknown-key").replace("client-certificate-data", "unknown-certificate");
    std::fs::write(&stranger, other).expect("it is written");
    let (code, said) = doctor(&["--kubeconfig", &stranger.to_string_lossy()]).expect("there is a binary");
    assert_eq!((code, ids(&said)), (3, vec![]), "{said}");
    assert!(said["notSeen"].as_array().is_some_and(|unseen| unseen.len() > 5), "{said}");

    host.kill();
    let (code, said) = look();
    assert_eq!((code, ids(&said)), (2, vec!["A15"]), "{said}");
}

const SCHEDULER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: kube-scheduler, namespace: kube-system, labels: {component: kube-scheduler}}
spec:
  hostNetwork: true
  containers:
  - name: kube-scheduler
    image: example/kubernetes:1
    command: [kube-scheduler, --kubeconfig=/etc/kubernetes/scheduler.conf]
    volumeMounts: [{name: kubeconfig, mountPath: /etc/kubernetes/scheduler.conf}]
  volumes:
  - {name: kubeconfig, hostPath: {path: DIRECTORY/schedulr.conf, type: FileOrCreate}}
";

#[test]
fn a_machine_is_looked_at_without_an_api_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir(path("manifests")).expect("it is made");
    let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("it is written");
    let manifest = SCHEDULER.replace("DIRECTORY", &directory.path().to_string_lossy());
    write("manifests/kube-scheduler.yaml", &manifest);
    write("schedulr.conf", "");
    let own = directory.path().to_string_lossy().into_owned();
    let failures = || {
        let (code, said) = doctor(&["node", "--data-dir", &own, "--node-name", "one"])?;
        let causes = said["causes"].as_array().expect("a list").iter();
        // The machine of the test has warnings of its own.
        let causes: Vec<Value> = causes.filter(|cause| cause.to_string().contains(&own)).cloned().collect();
        Some((code, causes.iter().map(|cause| cause["id"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()))
    };
    let Some(found) = failures() else {
        kedge_skip::skip("a_machine_is_looked_at_without_an_api_server", "there is no release binary");
        return;
    };
    assert_eq!(found, (2, vec!["A7".to_owned()]));
    write("manifests/kube-scheduler.yaml.bak", &manifest);
    write("manifests/etcd.yaml", "kind: [");
    let (_, mut found) = failures().expect("there is a binary");
    found.sort();
    // The copy makes the same pod with the same mistake.
    assert_eq!(found, ["A12", "A14", "A7", "A7"]);
    write("schedulr.conf", "apiVersion: v1\n");
    std::fs::remove_file(path("manifests/kube-scheduler.yaml.bak")).expect("it is removed");
    std::fs::remove_file(path("manifests/etcd.yaml")).expect("it is removed");
    assert_eq!(failures().expect("there is a binary").1, [""; 0]);
}
