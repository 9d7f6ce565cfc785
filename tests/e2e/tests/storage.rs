//! Volumes of the default class with real pods: data outlives pods and kedge, and goes with its claim.

use std::path::PathBuf;
use std::time::Duration;

use kedge_e2e::{Host, HostOptions, Kubectl, busybox_image, eventually};

const BUSYBOX: &str = "localhost/busybox:test";
const PATIENCE: Duration = Duration::from_secs(90);

fn node() -> Option<Host> {
    let host = Host::up(HostOptions::default())?;
    let archive = host.file("busybox.tar");
    busybox_image(BUSYBOX, &archive);
    let loaded = host.kedge("image", &["load", archive.to_str().expect("text")]);
    assert!(loaded.ok, "{}", loaded.all());
    Some(host)
}

fn claim(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}\n"
    )
}

fn user(name: &str, claim: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:
  terminationGracePeriodSeconds: 1
  securityContext: {{runAsUser: 1000}}
  containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, '3600'], volumeMounts: [{{name: data, mountPath: /data}}]}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}]\n"
    )
}

fn wait_ready(kubectl: &Kubectl, pod: &str) {
    kubectl.run(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]);
}

fn write(kubectl: &Kubectl, pod: &str, text: &str) {
    kubectl.run(&["exec", pod, "--", "sh", "-c", &format!("echo {text} >> /data/file")]);
}

fn read(kubectl: &Kubectl, pod: &str) -> String {
    kubectl.run(&["exec", pod, "--", "cat", "/data/file"])
}

fn has_event(kubectl: &Kubectl, about: &str, text: &str) {
    eventually(&format!("an event of {about} with {text:?}"), PATIENCE, || {
        let selector = format!("involvedObject.name={about}");
        let events = kubectl.run(&["get", "events", "--field-selector", &selector]);
        if events.contains(text) { Ok(()) } else { Err(events) }
    });
}

/// The directories of volumes.
fn directories(host: &Host) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(host.data_dir().join("local-path")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.ends_with(".provisioning")).collect()
}

#[test]
fn data_outlives_pods_and_kedge_and_goes_with_its_claim() {
    let Some(mut host) = node() else { return };
    let kubectl = host.kubectl();
    eventually("the default class", PATIENCE, || {
        let classes = kubectl.run(&["get", "storageclass"]);
        let words: Vec<&str> = classes.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        let expected = ["local-path", "(default)", "kedge.dev/local-path", "Delete", "WaitForFirstConsumer", "false"];
        if words.starts_with(&expected) { Ok(()) } else { Err(classes) }
    });
    kubectl.apply(&claim("data"));
    has_event(&kubectl, "data", "waiting for first consumer to be created before binding");
    kubectl.apply(&user("one", "data"));
    wait_ready(&kubectl, "one");
    has_event(&kubectl, "data", "External provisioner is provisioning volume for claim \"default/data\"");
    has_event(&kubectl, "data", "Successfully provisioned volume pvc-");
    write(&kubectl, "one", "first");
    shows_columns(&kubectl);
    let [directory] = directories(&host).try_into().expect("one directory");
    assert_eq!(std::fs::read_to_string(directory.join("file")).expect("the pod's file"), "first\n");

    kubectl.run(&["delete", "pod", "one"]);
    kubectl.apply(&user("two", "data"));
    wait_ready(&kubectl, "two");
    assert_eq!(read(&kubectl, "two"), "first\n");
    host.kill();
    host.start();
    write(&kubectl, "two", "second");
    assert_eq!(read(&kubectl, "two"), "first\nsecond\n");

    // A claim in use stays until its pod is gone.
    kubectl.run(&["delete", "pvc", "data", "--wait=false"]);
    assert!(kubectl.run(&["get", "pvc", "data"]).contains("Terminating"));
    assert!(directory.exists());
    kubectl.run(&["delete", "pod", "two"]);
    eventually("the end of claim, volume and directory", PATIENCE, || {
        let left = kubectl.run(&["get", "pv,pvc", "--no-headers", "--ignore-not-found"]);
        if left.trim().is_empty() && !directory.exists() { Ok(()) } else { Err(left) }
    });
    assert!(host.terminate());
}

fn shows_columns(kubectl: &Kubectl) {
    let claims = kubectl.run(&["get", "pvc", "data", "--no-headers"]);
    let words: Vec<&str> = claims.split_whitespace().collect();
    assert_eq!((words[0], words[1]), ("data", "Bound"), "{claims}");
    assert!(words[2].starts_with("pvc-"), "{claims}");
    assert_eq!(words[3..7], ["64Mi", "RWO", "local-path", "<unset>"], "{claims}");
    let volumes = kubectl.run(&["get", "pv", "--no-headers"]);
    let words: Vec<&str> = volumes.split_whitespace().collect();
    assert_eq!(words[1..8], ["64Mi", "RWO", "Delete", "Bound", "default/data", "local-path", "<unset>"], "{volumes}");
    assert!(kubectl.run(&["describe", "pvc", "data"]).contains("Used By:       one"));
}

#[test]
fn a_stateful_set_keeps_its_data() {
    let Some(host) = node() else { return };
    let kubectl = host.kubectl();
    kubectl.apply(&format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db}}\nspec:
  serviceName: db
  replicas: 2
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, '3600'], volumeMounts: [{{name: data, mountPath: /data}}]}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOncePod], resources: {{requests: {{storage: 64Mi}}}}}}\n"
    ));
    kubectl.run(&["rollout", "status", "statefulset/db", "--timeout=90s"]);
    for pod in ["db-0", "db-1"] {
        write(&kubectl, pod, pod);
    }
    assert_eq!(directories(&host).len(), 2);
    kubectl.run(&["scale", "statefulset", "db", "--replicas=0"]);
    eventually("no pods", PATIENCE, || {
        let pods = kubectl.run(&["get", "pods", "-o", "name"]);
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
    assert_eq!(kubectl.run(&["get", "pvc", "--no-headers"]).matches("Bound").count(), 2);
    kubectl.run(&["scale", "statefulset", "db", "--replicas=2"]);
    kubectl.run(&["rollout", "status", "statefulset/db", "--timeout=90s"]);
    for pod in ["db-0", "db-1"] {
        assert_eq!(read(&kubectl, pod), format!("{pod}\n"));
    }
    // A claim for one pod lets no second one in.
    kubectl.apply(&user("intruder", "data-db-0"));
    let text = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    has_event(&kubectl, "intruder", text);
}
