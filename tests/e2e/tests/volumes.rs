//! Volumes of real pods: every kind that this node makes, through kubectl and a CSI driver in the test's own process.

use std::path::PathBuf;
use std::time::Duration;

use kedge_csi_driver::{Call, DriverOptions, TestDriver};
use kedge_e2e::{Host, HostOptions, Kubectl, busybox_image, eventually};

const BUSYBOX: &str = "localhost/busybox:test";
const DRIVER: &str = "test.csi.kedge.example";
/// As long as the kubelet may take to see a change of an object, and some more.
const LIVE: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);

fn node() -> Option<(Host, Kubectl)> {
    let host = Host::up(HostOptions::default())?;
    let archive = host.file("busybox.tar");
    busybox_image(BUSYBOX, &archive);
    let loaded = host.kedge("image", &["load", archive.to_str().expect("text")]);
    assert!(loaded.ok, "{}", loaded.all());
    let kubectl = host.kubectl();
    Some((host, kubectl))
}

/// A pod that runs a command; `rest` is YAML of the container and, after `---`, of the pod.
fn pod(name: &str, command: &str, container: &str, rest: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}, annotations: {{builder: bar}}}}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers:
  - name: c
    image: '{BUSYBOX}'
    command: [sh, -c, '{command}']
{container}
{rest}
"
    )
}

fn sleeper(name: &str, container: &str, rest: &str) -> String {
    pod(name, "sleep 3600", container, rest)
}

fn ready(kubectl: &Kubectl, name: &str) {
    let waited = kubectl.try_run(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    assert!(waited.ok, "{}\n{}", waited.all(), kubectl.try_run(&["describe", "pod", name]).all());
}

fn inside(kubectl: &Kubectl, name: &str, command: &str) -> String {
    kubectl.run(&["exec", name, "--", "sh", "-c", command])
}

fn becomes(kubectl: &Kubectl, name: &str, command: &str, expected: &str) {
    eventually(&format!("{command:?} in {name} giving {expected:?}"), LIVE, || {
        let seen = kubectl.try_run(&["exec", name, "--", "sh", "-c", command]);
        if seen.stdout.trim_end() == expected { Ok(()) } else { Err(seen.all()) }
    });
}

fn gone(kubectl: &Kubectl, name: &str) {
    kubectl.run(&["delete", "pod", name, "--wait=false"]);
    eventually(&format!("the end of {name}"), SOON, || {
        let seen = kubectl.try_run(&["get", "pod", name, "-o", "yaml"]);
        if seen.stderr.contains("not found") { Ok(()) } else { Err(seen.all()) }
    });
}

fn has_event(kubectl: &Kubectl, name: &str, reason: &str, text: &str) {
    eventually(&format!("an event {reason} with {text:?}"), SOON, || {
        let path = "jsonpath={range .items[*]}{.reason} {.message}{\"\\n\"}{end}";
        let selector = format!("involvedObject.name={name}");
        let events = kubectl.run(&["get", "events", "--field-selector", &selector, "-o", path]);
        match events.lines().any(|line| line.starts_with(reason) && line.contains(text)) {
            true => Ok(()),
            false => Err(events),
        }
    });
}

/// What conformance asks of configMap, secret, downwardAPI and projected volumes: content, modes, mappings, and changes.
#[test]
fn volumes_follow_their_objects() {
    let Some((_host, kubectl)) = node() else { return };
    kubectl.run(&[
        "create",
        "configmap",
        "one",
        "--from-literal",
        "data-1=value-1",
        "--from-literal",
        "data-2=value-2",
    ]);
    kubectl.run(&["create", "configmap", "doomed", "--from-literal", "data-1=value-1"]);
    kubectl.run(&["create", "secret", "generic", "keys", "--from-literal", "data-1=hidden"]);
    let container = "    resources: {requests: {cpu: 250m, memory: 32Mi}, limits: {cpu: 1250m, memory: 64Mi}}
    securityContext: {runAsUser: 1000}
    volumeMounts:
    - {name: plain, mountPath: /plain}
    - {name: mapped, mountPath: /mapped}
    - {name: doomed, mountPath: /doomed}
    - {name: late, mountPath: /late}
    - {name: keys, mountPath: /keys}
    - {name: all, mountPath: /all}
    - {name: info, mountPath: /info}";
    let rest = "  securityContext: {fsGroup: 1001}
  volumes:
  - {name: plain, configMap: {name: one}}
  - {name: mapped, configMap: {name: one, defaultMode: 256, items: [{key: data-2, path: path/to/data-2, mode: 292}]}}
  - {name: doomed, configMap: {name: doomed, optional: true}}
  - {name: late, configMap: {name: late, optional: true}}
  - {name: keys, secret: {secretName: keys, defaultMode: 288}}
  - name: all
    projected:
      defaultMode: 292
      sources:
      - {configMap: {name: one, items: [{key: data-1, path: config}]}}
      - {secret: {name: keys, items: [{key: data-1, path: secret, mode: 256}]}}
      - {downwardAPI: {items: [{path: podname, fieldRef: {fieldPath: metadata.name}}]}}
      - {serviceAccountToken: {path: token, audience: tests, expirationSeconds: 600}}
  - name: info
    downwardAPI:
      items:
      - {path: name, fieldRef: {fieldPath: metadata.name}, mode: 256}
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: annotation, fieldRef: {fieldPath: \"metadata.annotations['builder']\"}}
      - {path: cpu_limit, resourceFieldRef: {containerName: c, resource: limits.cpu}}
      - {path: cpu_request, resourceFieldRef: {containerName: c, resource: requests.cpu, divisor: 1m}}
      - {path: memory_limit, resourceFieldRef: {containerName: c, resource: limits.memory, divisor: 1Mi}}
      - {path: memory_request, resourceFieldRef: {containerName: c, resource: requests.memory, divisor: 1Mi}}";
    kubectl.apply(&sleeper("follower", container, rest));
    ready(&kubectl, "follower");
    let is = |command: &str, expected: &str| assert_eq!(inside(&kubectl, "follower", command).trim_end(), expected);
    let mode = |path: &str, expected: &str| is(&format!("busybox stat -L -c %a-%g {path}"), expected);
    is("cat /plain/data-1 /plain/data-2", "value-1value-2");
    is("ls /plain", "data-1\ndata-2");
    is("cat /mapped/path/to/data-2", "value-2");
    mode("/mapped/path/to/data-2", "444-1001");
    mode("/keys/data-1", "440-1001");
    is("cat /keys/data-1 /all/config /all/secret /all/podname", "hiddenvalue-1hiddenfollower");
    mode("/all/secret", "440-1001");
    is("cat /info/name; cat /info/annotation; cat /info/cpu_limit", "followerbar2");
    is("cat /info/cpu_request; echo; cat /info/memory_limit; echo; cat /info/memory_request", "250\n64\n32");
    is("cat /doomed/data-1; ls /late", "value-1");
    let first_token = inside(&kubectl, "follower", "cat /all/token");
    assert_eq!(first_token.split('.').count(), 3, "{first_token}");

    kubectl.run(&["patch", "configmap", "one", "-p", r#"{"data":{"data-1":"value-3","data-3":"new"}}"#]);
    kubectl.run(&["patch", "secret", "keys", "-p", r#"{"stringData":{"data-1":"other"}}"#]);
    kubectl.run(&["delete", "configmap", "doomed"]);
    kubectl.run(&["create", "configmap", "late", "--from-literal", "data-1=value-1"]);
    kubectl.run(&["label", "pod", "follower", "more=yes"]);
    kubectl.run(&["annotate", "--overwrite", "pod", "follower", "builder=foo"]);
    becomes(&kubectl, "follower", "cat /info/annotation", "foo");
    is("grep more /info/labels", "more=\"yes\"");
    becomes(&kubectl, "follower", "cat /plain/data-1 /plain/data-3 /all/config", "value-3newvalue-3");
    becomes(&kubectl, "follower", "cat /keys/data-1 /all/secret", "otherother");
    becomes(&kubectl, "follower", "ls /doomed; cat /late/data-1", "value-1");
    assert_eq!(inside(&kubectl, "follower", "cat /all/token"), first_token, "a token is used for most of its life");
    // What says that it never changes is refused a change, and the pod keeps what it has.
    kubectl.run(&["patch", "configmap", "one", "-p", r#"{"immutable":true}"#]);
    let refused = kubectl.try_run(&["patch", "configmap", "one", "-p", r#"{"data":{"data-1":"never"}}"#]);
    assert!(!refused.ok && refused.stderr.contains("immutable"), "{}", refused.all());
}

/// What conformance asks of emptyDir and of sub-paths.
#[test]
fn directories_and_what_is_below_them() {
    let Some((host, kubectl)) = node() else { return };
    kubectl.run(&["create", "configmap", "text", "--from-literal", "configmap-key=configmap-value"]);
    kubectl.run(&["create", "secret", "generic", "keys", "--from-literal", "secret-key=secret-value"]);
    let files = host.file("files");
    std::fs::create_dir_all(&files).expect("a directory can be made");
    let container = "    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    securityContext: {runAsUser: 1001}
    volumeMounts:
    - {name: disk, mountPath: /disk}
    - {name: memory, mountPath: /memory}
    - {name: disk, mountPath: /expanded, subPathExpr: $(POD)/deep}
    - {name: text, mountPath: /text, subPath: configmap-key}
    - {name: text, mountPath: /etc/resolv.conf.own, subPath: configmap-key}
    - {name: text, mountPath: /bin/curl, subPath: configmap-key}
    - {name: keys, mountPath: /key, subPath: secret-key}
    - {name: info, mountPath: /podname, subPath: downward/podname}
    - {name: all, mountPath: /projected, subPath: projected/key}
    - {name: host, mountPath: /made}
    - {name: host, mountPath: /made-ro, readOnly: true, recursiveReadOnly: IfPossible}";
    let rest = format!(
        "  volumes:
  - {{name: disk, emptyDir: {{}}}}
  - {{name: memory, emptyDir: {{medium: Memory, sizeLimit: 4Mi}}}}
  - {{name: text, configMap: {{name: text}}}}
  - {{name: keys, secret: {{secretName: keys}}}}
  - {{name: info, downwardAPI: {{items: [{{path: downward/podname, fieldRef: {{fieldPath: metadata.name}}}}]}}}}
  - {{name: all, projected: {{sources: [{{configMap: {{name: text, items: [{{key: configmap-key, path: projected/key}}]}}}}]}}}}
  - {{name: host, hostPath: {{path: {}, type: DirectoryOrCreate}}}}",
        files.join("made").display()
    );
    let command = "touch /disk/first; sleep 3600";
    kubectl.apply(&pod("directories", command, container, &rest));
    ready(&kubectl, "directories");
    let is = |command: &str, expected: &str| assert_eq!(inside(&kubectl, "directories", command).trim_end(), expected);
    is("busybox stat -c %a /disk /memory", "777\n777");
    is("grep \" /memory \" /proc/mounts | busybox awk \"{print \\$3}\"", "tmpfs");
    is("busybox df -k /memory | tail -1 | busybox awk \"{print \\$2}\"", "4096");
    is("echo x > /memory/f; busybox chmod 666 /memory/f; busybox stat -c %a-%u /memory/f", "666-1001");
    is(
        "cat /text /etc/resolv.conf.own /bin/curl /key /podname /projected",
        "configmap-valueconfigmap-valueconfigmap-valuesecret-valuedirectoriesconfigmap-value",
    );
    is("ls /disk; ls -d /disk/directories/deep", "directories\nfirst\n/disk/directories/deep");
    assert!(files.join("made").is_dir());
    let mounts =
        kubectl.run(&["get", "pod", "directories", "-o", "jsonpath={.status.containerStatuses[0].volumeMounts}"]);
    assert!(
        mounts.contains(r#""mountPath":"/made-ro","name":"host","readOnly":true,"recursiveReadOnly":"Disabled""#),
        "{mounts}"
    );

    // An updated object behind a sub-path does not show, and a restarted container finds the same place again.
    is("echo kept > /expanded/kept; ls /disk/directories/deep", "kept");
    for (name, type_, expected) in [
        ("wrong", "Directory", "is not a directory"),
        ("none", "Socket", "is not a socket file"),
        ("device", "BlockDevice", "is not a block device"),
    ] {
        let path = files.join("none");
        let rest = format!("  volumes: [{{name: h, hostPath: {{path: {}, type: {type_}}}}}]", path.display());
        kubectl.apply(&sleeper(name, "    volumeMounts: [{name: h, mountPath: /h}]", &rest));
        has_event(&kubectl, name, "FailedMount", expected);
    }
    let volumes = "    volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Enabled}]";
    kubectl.apply(&sleeper("rro", volumes, "  volumes: [{name: v, emptyDir: {}}]"));
    has_event(&kubectl, "rro", "Failed", "it is not supported by the runtime");
    let nfs = "  volumes: [{name: v, nfs: {server: 127.0.0.1, path: /x}}]";
    kubectl.apply(&sleeper("nfs", "    volumeMounts: [{name: v, mountPath: /v}]", nfs));
    has_event(&kubectl, "nfs", "FailedMount", "mount failed: exit status ");
    gone(&kubectl, "directories");
}

fn volume(name: &str, claim: &str, mode: &str, source: &str) -> String {
    format!(
        "apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 16Mi}}
  accessModes: [ReadWriteOnce]
  volumeMode: {mode}
  storageClassName: by-hand
  claimRef: {{namespace: default, name: {claim}}}
  {source}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {claim}}}
spec: {{accessModes: [ReadWriteOnce], volumeMode: {mode}, storageClassName: by-hand, volumeName: {name}, resources: {{requests: {{storage: 16Mi}}}}}}
"
    )
}

fn claimed(claim: &str) -> String {
    format!("  volumes: [{{name: v, persistentVolumeClaim: {{claimName: {claim}}}}}]")
}

/// Claims on `local` and `hostPath` volumes, and a StatefulSet that finds its data again.
#[test]
fn claims_keep_their_data() {
    let Some((host, kubectl)) = node() else { return };
    let place = host.file("local");
    std::fs::create_dir_all(&place).expect("a directory can be made");
    let affinity = "nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node-1]}]}]}}";
    let local = format!("local: {{path: {}}}\n  {affinity}", place.display());
    kubectl.apply(&volume("local", "data-keeper-0", "Filesystem", &local));
    let on_host = format!("hostPath: {{path: {}, type: DirectoryOrCreate}}", host.file("on-host").display());
    kubectl.apply(&volume("on-host", "on-host", "Filesystem", &on_host));
    kubectl.apply(&format!(
        "apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: keeper}}
spec:
  serviceName: keeper
  selector: {{matchLabels: {{app: keeper}}}}
  template:
    metadata: {{labels: {{app: keeper}}}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {{fsGroup: 3000}}
      containers:
      - name: c
        image: '{BUSYBOX}'
        command: [sh, -c, 'echo $HOSTNAME >> /data/starts; sleep 3600']
        volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], storageClassName: by-hand, resources: {{requests: {{storage: 16Mi}}}}}}
"
    ));
    becomes(&kubectl, "keeper-0", "cat /data/starts", "keeper-0");
    assert_eq!(inside(&kubectl, "keeper-0", "busybox stat -c %g /data").trim_end(), "3000");
    kubectl.run(&["delete", "pod", "keeper-0"]);
    becomes(&kubectl, "keeper-0", "cat /data/starts", "keeper-0\nkeeper-0");
    kubectl.run(&["delete", "statefulset", "keeper"]);
    eventually("the end of the set's pod", SOON, || {
        let seen = kubectl.try_run(&["get", "pod", "keeper-0"]);
        if seen.stderr.contains("not found") { Ok(()) } else { Err(seen.all()) }
    });
    assert_eq!(std::fs::read_to_string(place.join("starts")).expect("the data is there"), "keeper-0\nkeeper-0\n");
    kubectl.apply(&sleeper("on-host", "    volumeMounts: [{name: v, mountPath: /v}]", &claimed("on-host")));
    ready(&kubectl, "on-host");
    inside(&kubectl, "on-host", "echo here > /v/file");
    assert_eq!(std::fs::read_to_string(host.file("on-host").join("file")).expect("the data is there"), "here\n");
    kubectl.apply(
        &sleeper("nothing", "    volumeMounts: [{name: v, mountPath: /v}]", &claimed("on-host"))
            .replace("volumeMounts: [{name: v, mountPath: /v}]", "volumeDevices: [{name: v, devicePath: /dev/v}]"),
    );
    has_event(&kubectl, "nothing", "FailedMount", "has volumeMode Filesystem, but is specified in volumeDevices");
}

struct Csi {
    host: Host,
    kubectl: Kubectl,
    driver: Option<TestDriver>,
}

impl Csi {
    fn start() -> Option<Self> {
        let (host, kubectl) = node()?;
        let mut csi = Self { host, kubectl, driver: None };
        csi.start_driver();
        let path = "jsonpath={.spec.drivers[0].nodeID} {.spec.drivers[0].allocatable.count} {.spec.drivers[0].topologyKeys[0]}";
        eventually("the driver in the CSINode", SOON, || {
            let seen = csi.kubectl.try_run(&["get", "csinode", "node-1", "-o", path]);
            if seen.stdout == "driver-node-1 7 example.com/rack" { Ok(()) } else { Err(seen.all()) }
        });
        let node =
            csi.kubectl.run(&["get", "node", "node-1", "-o", "jsonpath={.metadata.labels}{.metadata.annotations}"]);
        assert!(node.contains(r#""example.com/rack":"r1""#), "{node}");
        assert!(node.contains(r#"{\"test.csi.kedge.example\":\"driver-node-1\"}"#), "{node}");
        Some(csi)
    }

    fn start_driver(&mut self) {
        let options = DriverOptions {
            name: DRIVER.to_owned(),
            node_id: "driver-node-1".to_owned(),
            max_volumes: 7,
            topology: vec![("example.com/rack".to_owned(), "r1".to_owned())],
        };
        let root = self.kubelet_root();
        self.driver = Some(TestDriver::start(options, &self.host.file("csi"), &root));
    }

    fn kubelet_root(&self) -> PathBuf {
        self.host.data_dir().join("kubelet")
    }

    fn driver(&self) -> &TestDriver {
        self.driver.as_ref().expect("the driver runs")
    }

    fn calls(&self, method: &str, volume: &str) -> Vec<Call> {
        let calls = self.driver().calls().into_iter();
        calls.filter(|call| call.method == method && (volume.is_empty() || call.volume_id == volume)).collect()
    }

    fn driver_object(&self, spec: &str) {
        let manifest =
            format!("apiVersion: storage.k8s.io/v1\nkind: CSIDriver\nmetadata: {{name: {DRIVER}}}\nspec: {spec}\n");
        self.kubectl.apply(&manifest);
    }

    fn persistent(&self, handle: &str, mode: &str) {
        let source = format!(
            "csi: {{driver: {DRIVER}, volumeHandle: {handle}, fsType: ext4, volumeAttributes: {{color: blue}}, nodeStageSecretRef: {{name: stage, namespace: default}}}}"
        );
        self.kubectl.apply(&volume(handle, handle, mode, &source));
    }
}

impl Drop for Csi {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(driver) = &self.driver
        {
            eprintln!("--- the driver's calls ---\n{:#?}", driver.calls());
        }
    }
}

/// Persistent CSI volumes: staged once, published for each pod, kept over a restart of the node agent, undone in order.
#[test]
fn csi_volumes_are_staged_published_and_undone() {
    let Some(mut csi) = Csi::start() else { return };
    let kubectl = csi.kubectl.clone();
    kubectl.run(&["create", "secret", "generic", "stage", "--from-literal", "password=x"]);
    csi.driver_object("{attachRequired: false, podInfoOnMount: true, requiresRepublish: true, fsGroupPolicy: File, tokenRequests: [{audience: tests}], volumeLifecycleModes: [Persistent, Ephemeral]}");
    csi.driver().create("vol-1");
    csi.persistent("vol-1", "Filesystem");
    let rest = format!("{}\n  securityContext: {{fsGroup: 4000}}", claimed("vol-1"));
    for name in ["first", "second"] {
        kubectl.apply(&sleeper(name, "    volumeMounts: [{name: v, mountPath: /v}]", &rest));
        ready(&kubectl, name);
    }
    inside(&kubectl, "first", "echo shared > /v/file");
    assert_eq!(inside(&kubectl, "second", "cat /v/file; busybox stat -c %g /v"), "shared\n4000\n");
    let stage = &csi.calls("NodeStageVolume", "vol-1")[0];
    assert_eq!(stage.secrets.get("password").map(String::as_str), Some("x"));
    assert_eq!((stage.how.as_str(), stage.context["color"].as_str()), ("mount ext4 1", "blue"));
    let publish = &csi.calls("NodePublishVolume", "vol-1")[0];
    assert_eq!(publish.context["csi.storage.k8s.io/pod.name"], "first");
    assert_eq!(publish.context["csi.storage.k8s.io/ephemeral"], "false");
    assert!(
        publish.context["csi.storage.k8s.io/serviceAccount.tokens"].contains("\"tests\":{\"expirationTimestamp\":")
    );

    published_again(&csi, &kubectl);
    says_how_full(&csi, &kubectl);
    grows_with_its_claim(&csi, &kubectl);

    let before = csi.driver().calls().len();
    csi.host.kill();
    csi.host.start();
    ready(&kubectl, "first");
    gone(&kubectl, "first");
    assert_eq!(inside(&kubectl, "second", "cat /v/file"), "shared\n");
    assert_eq!(csi.calls("NodeUnstageVolume", "vol-1"), [], "another pod uses the volume");
    gone(&kubectl, "second");
    eventually("the volume being unstaged", SOON, || {
        let undone: Vec<String> = csi.driver().calls().split_off(before).into_iter().map(|call| call.method).collect();
        let wanted = ["NodeUnpublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"];
        let undone: Vec<&String> =
            undone.iter().filter(|method| method.starts_with("NodeUn") || method.starts_with("NodeSt")).collect();
        if undone == wanted { Ok(()) } else { Err(format!("{undone:?}")) }
    });
    assert_eq!(std::fs::read_to_string(csi.driver().volume("vol-1").join("file")).expect("it is kept"), "shared\n");

    inline(&csi, &kubectl);
    block(&csi, &kubectl);
    csi.driver = None;
    eventually("the driver leaving the CSINode", SOON, || {
        let seen = kubectl.run(&["get", "csinode", "node-1", "-o", "jsonpath={.spec.drivers}"]);
        if seen.contains(DRIVER) { Err(seen) } else { Ok(()) }
    });
}

/// A driver that wants it is called again with what changed; here at once, as the pod changes.
fn published_again(csi: &Csi, kubectl: &Kubectl) {
    let calls = || {
        csi.calls("NodePublishVolume", "vol-1")
            .into_iter()
            .filter(|call| call.context["csi.storage.k8s.io/pod.name"] == "first")
    };
    let before = calls().count();
    kubectl.run(&["annotate", "pod", "first", "again=yes"]);
    eventually("another call for the first pod's volume", SOON, || {
        let all: Vec<Call> = calls().collect();
        if all.len() > before { Ok(()) } else { Err(format!("{all:?}")) }
    });
    let (first, last) = (calls().next().expect("one"), calls().next_back().expect("one"));
    assert_eq!((first.path, first.how, first.secrets), (last.path, last.how, last.secrets));
    assert_eq!(csi.calls("NodeStageVolume", "vol-1").len(), 1, "staged once");
}

/// The driver's own words, in the summary and in the metrics.
fn says_how_full(csi: &Csi, kubectl: &Kubectl) {
    eventually("what the driver says in the summary", SOON, || {
        let summary = kubectl.run(&["get", "--raw", "/api/v1/nodes/node-1/proxy/stats/summary"]);
        let summary: serde_json::Value = serde_json::from_str(&summary).expect("the summary is JSON");
        let pods = summary["pods"].as_array().cloned().unwrap_or_default();
        let pod = pods.into_iter().find(|pod| pod["podRef"]["name"] == "first").unwrap_or_default();
        let volumes = pod["volume"].as_array().cloned().unwrap_or_default();
        let volume = volumes.into_iter().find(|volume| volume["name"] == "v").unwrap_or_default();
        let wanted = [("availableBytes", 3000), ("capacityBytes", 5000), ("usedBytes", 2000), ("inodesUsed", 20)];
        match wanted.iter().all(|(field, value)| volume[field] == *value) && volume["pvcRef"]["name"] == "vol-1" {
            true => Ok(()),
            false => Err(pod.to_string()),
        }
    });
    let metrics = kubectl.run(&["get", "--raw", "/api/v1/nodes/node-1/proxy/metrics"]);
    let line = "kubelet_volume_stats_used_bytes{namespace=\"default\",persistentvolumeclaim=\"vol-1\"} 2000";
    assert!(metrics.lines().any(|known| known == line), "{metrics}");
    assert!(metrics.contains("rest_client_requests_total{code=\"200\",host="), "{metrics}");
    let asked = csi.calls("NodeGetVolumeStats", "vol-1");
    assert!(asked.iter().all(|call| call.path.ends_with("/mount")) && asked.len() <= 4, "{asked:?}");
}

/// The node's part of a resize: somebody else has made the volume larger.
fn grows_with_its_claim(csi: &Csi, kubectl: &Kubectl) {
    kubectl.apply(&format!(
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: by-hand}}\nprovisioner: {DRIVER}\nallowVolumeExpansion: true\n"
    ));
    kubectl.run(&["patch", "pvc", "vol-1", "-p", r#"{"spec":{"resources":{"requests":{"storage":"32Mi"}}}}"#]);
    kubectl.run(&["patch", "pv", "vol-1", "-p", r#"{"spec":{"capacity":{"storage":"32Mi"}}}"#]);
    let pending = r#"{"status":{"conditions":[{"type":"FileSystemResizePending","status":"True"}]}}"#;
    kubectl.run(&["patch", "pvc", "vol-1", "--subresource=status", "-p", pending]);
    kubectl.run(&["annotate", "pod", "first", "--overwrite", "again=larger"]);
    eventually("the claim's new size", SOON, || {
        let seen =
            kubectl.run(&["get", "pvc", "vol-1", "-o", "jsonpath={.status.capacity.storage}{.status.conditions}"]);
        if seen == "32Mi" { Ok(()) } else { Err(seen) }
    });
    assert_eq!(csi.calls("NodeExpandVolume", "vol-1")[0].how, (32 << 20).to_string());
    has_event(
        kubectl,
        "first",
        "FileSystemResizeSuccessful",
        "MountVolume.NodeExpandVolume succeeded for volume \"vol-1\" node-1",
    );
}

fn inline(csi: &Csi, kubectl: &Kubectl) {
    let rest = format!("  volumes: [{{name: v, csi: {{driver: {DRIVER}, volumeAttributes: {{size: small}}}}}}]");
    kubectl.apply(&sleeper("inline", "    volumeMounts: [{name: v, mountPath: /v}]", &rest));
    ready(kubectl, "inline");
    inside(kubectl, "inline", "echo mine > /v/file");
    let publishes = csi.calls("NodePublishVolume", "");
    let publish = publishes.iter().find(|call| call.context.contains_key("size")).expect("it was published");
    assert!(publish.volume_id.starts_with("csi-") && publish.path.ends_with("/v/mount"), "{publish:?}");
    assert_eq!(publish.context["csi.storage.k8s.io/ephemeral"], "true");
    gone(kubectl, "inline");
    assert_eq!(csi.calls("NodeUnpublishVolume", &publish.volume_id).len(), 1);
    assert_eq!(csi.calls("NodeStageVolume", &publish.volume_id), []);
}

fn block(csi: &Csi, kubectl: &Kubectl) {
    csi.driver().create_block("raw", 1 << 20);
    csi.persistent("raw", "Block");
    let devices = "    volumeDevices: [{name: v, devicePath: /dev/raw}]";
    kubectl.apply(&sleeper("raw", devices, &claimed("raw")));
    ready(kubectl, "raw");
    assert_eq!(
        inside(
            kubectl,
            "raw",
            "test -b /dev/raw && busybox dd if=/dev/raw bs=4096 count=1 2>/dev/null | busybox wc -c"
        ),
        "4096\n"
    );
    assert_eq!(csi.calls("NodePublishVolume", "raw")[0].how, "block 1");
    gone(kubectl, "raw");
    let undone =
        csi.driver().calls().into_iter().filter(|call| call.volume_id == "raw" && call.method.starts_with("NodeUn"));
    assert_eq!(undone.map(|call| call.method).collect::<Vec<_>>(), ["NodeUnpublishVolume", "NodeUnstageVolume"]);
}

/// A volume that must be attached first, and drivers that are not there or hang.
#[test]
fn csi_waits_for_attachments_and_outlives_drivers() {
    let Some(csi) = Csi::start() else { return };
    let kubectl = csi.kubectl.clone();
    kubectl.run(&["create", "secret", "generic", "stage", "--from-literal", "password=x"]);
    let refused = format!("  volumes: [{{name: v, csi: {{driver: {DRIVER}}}}}]");
    kubectl.apply(&sleeper("refused", "    volumeMounts: [{name: v, mountPath: /v}]", &refused));
    has_event(&kubectl, "refused", "FailedMount", "volume mode \"Ephemeral\" not supported by driver");

    csi.driver_object("{attachRequired: true}");
    csi.driver().create("vol-2");
    csi.persistent("vol-2", "Filesystem");
    kubectl.apply(&sleeper("waiter", "    volumeMounts: [{name: v, mountPath: /v}]", &claimed("vol-2")));
    let name = csi.host.run("sh", &["-c", &format!("printf 'vol-2{DRIVER}node-1' | sha256sum | cut -d' ' -f1")]);
    let attachment = format!("csi-{}", name.stdout.trim());
    kubectl.apply(&format!(
        "apiVersion: storage.k8s.io/v1\nkind: VolumeAttachment\nmetadata: {{name: {attachment}}}\nspec: {{attacher: {DRIVER}, nodeName: node-1, source: {{persistentVolumeName: vol-2}}}}\n"
    ));
    assert_eq!(csi.calls("NodeStageVolume", "vol-2"), [], "nothing happens before the volume is attached");
    let attached = r#"{"status":{"attached":true,"attachmentMetadata":{"device":"sdb"}}}"#;
    kubectl.run(&["patch", "volumeattachment", &attachment, "--subresource=status", "--type=merge", "-p", attached]);
    ready(&kubectl, "waiter");
    assert_eq!(csi.calls("NodePublishVolume", "vol-2")[0].publish_context["device"], "sdb");
    eventually("the volume being in use", SOON, || {
        let seen = kubectl.run(&["get", "node", "node-1", "-o", "jsonpath={.status.volumesInUse}"]);
        if seen.contains(&format!("kubernetes.io/csi/{DRIVER}^vol-2")) { Ok(()) } else { Err(seen) }
    });

    // A driver that hangs holds up its own pods only, and nothing is lost when it comes back.
    csi.driver().hang(true);
    kubectl.run(&["delete", "pod", "waiter", "--wait=false"]);
    kubectl.apply(&sleeper("other", "", "  volumes: [{name: v, emptyDir: {}}]"));
    ready(&kubectl, "other");
    eventually("the driver being asked", SOON, || {
        let asked = csi.calls("NodeUnpublishVolume", "vol-2");
        if asked.is_empty() { Err("nothing".to_owned()) } else { Ok(()) }
    });
    let waiting = kubectl.run(&["get", "pod", "waiter", "-o", "jsonpath={.metadata.deletionTimestamp}"]);
    assert!(!waiting.is_empty(), "the pod stays until its volume is down");
    csi.driver().hang(false);
    eventually("the end of the pod", Duration::from_secs(200), || {
        let seen = kubectl.try_run(&["get", "pod", "waiter", "-o", "yaml"]);
        if seen.stderr.contains("not found") { Ok(()) } else { Err(seen.all()) }
    });
    assert_eq!(csi.calls("NodeUnstageVolume", "vol-2").len(), 1);

    let absent = volume("absent", "absent", "Filesystem", "csi: {driver: none.example, volumeHandle: x}");
    kubectl.apply(&absent);
    kubectl.apply("apiVersion: storage.k8s.io/v1\nkind: CSIDriver\nmetadata: {name: none.example}\nspec: {attachRequired: false}\n");
    kubectl.apply(&sleeper("absent", "    volumeMounts: [{name: v, mountPath: /v}]", &claimed("absent")));
    let text = "driver name none.example not found in the list of registered CSI drivers";
    has_event(&kubectl, "absent", "FailedMount", text);
}
