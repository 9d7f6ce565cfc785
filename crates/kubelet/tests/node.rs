//! The kubelet with real containers and no API server: static pods on the host's network.
//!
//! Needs root, containerd and a static busybox; without them each test says that it was skipped.

#[path = "node/harness.rs"]
mod harness;

use serde_json::Value;

use harness::{IMAGE, Machine, NODE, TestResult};

/// Runs a test on a machine of its own, and cleans up whatever happens.
async fn on_a_machine<F>(name: &str, test: impl FnOnce(std::sync::Arc<Machine>) -> F) -> TestResult
where
    F: Future<Output = TestResult>,
{
    if kedge_skip::skipped_without_containers(name) {
        return Ok(());
    }
    let directory = tempfile::Builder::new().prefix("kk").tempdir_in("/tmp")?;
    let machine = std::sync::Arc::new(Machine::start(directory.path()).await?);
    let result = test(machine.clone()).await;
    if let Some(machine) = std::sync::Arc::into_inner(machine) {
        machine.clean_up().await?;
    }
    result
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    static NULL: Value = Value::Null;
    let lists = ["containerStatuses", "initContainerStatuses"];
    let mut all = lists.iter().flat_map(|list| pod["status"][list].as_array().into_iter().flatten());
    all.rfind(|status| status["name"] == name).unwrap_or(&NULL)
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn plain(name: &str, script: &str) -> String {
    format!(
        "  terminationGracePeriodSeconds: 1\n  containers:\n  - name: {name}\n    image: {IMAGE}\n    command: [sh, -c, {script:?}]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_start_fail_back_off_and_end() -> TestResult {
    on_a_machine("pods_start_fail_back_off_and_end", |machine| async move {
        let kubelet = machine.kubelet();
        machine.put("good", &plain("main", "echo hello; trap 'exit 0' TERM; while true; do sleep 0.1; done"))?;
        machine.put("crash", &plain("main", "echo boom; echo why > /dev/termination-log; exit 3"))?;
        machine.put("wrong", &plain("main", "x").replace("[sh, -c, \"x\"]", "[/nope]"))?;
        machine.put("missing", &plain("main", "x").replace(IMAGE, "localhost/none:v1"))?;
        machine.put(
            "never",
            &plain("main", "x")
                .replace("    image", "    imagePullPolicy: Never\n    image")
                .replace(IMAGE, "localhost/none:v1"),
        )?;
        std::fs::write(machine.manifest("broken"), "kind: [")?;

        let good = machine.until("good", "ready", ready).await?;
        assert_eq!(good["status"]["phase"], "Running");
        assert_eq!(good["status"]["hostIP"], "127.0.0.1");
        let path = format!("/containerLogs/default/good-{NODE}/main");
        assert_eq!(machine.get(&path).await?, (200, "hello\n".to_owned()));
        let (status, body) = machine.get(&format!("{path}?tailLines=-1")).await?;
        assert_eq!(status, 400, "{body}");

        let crash = machine
            .until("crash", "in CrashLoopBackOff after a restart", |pod| {
                let own = container(pod, "main");
                own["state"]["waiting"]["reason"] == "CrashLoopBackOff" && own["restartCount"] == 1
            })
            .await?;
        let own = container(&crash, "main");
        assert_eq!(own["lastState"]["terminated"]["exitCode"], 3);
        assert_eq!(own["lastState"]["terminated"]["reason"], "Error");
        assert_eq!(own["lastState"]["terminated"]["message"], "why\n");
        let message = own["state"]["waiting"]["message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with("back-off 10s restarting failed container=main pod=crash-node-1_default("),
            "{message}"
        );
        let (status, body) = machine.get(&format!("/containerLogs/default/crash-{NODE}/main?previous=true")).await?;
        assert_eq!((status, body.as_str()), (200, "boom\n"));

        let wrong = machine
            .until("wrong", "in back-off", |pod| {
                container(pod, "main")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            })
            .await?;
        let ended = &container(&wrong, "main")["lastState"]["terminated"];
        assert_eq!((&ended["reason"], &ended["exitCode"]), (&Value::from("StartError"), &Value::from(128)));

        machine
            .until("missing", "in ImagePullBackOff", |pod| {
                container(pod, "main")["state"]["waiting"]["reason"] == "ImagePullBackOff"
            })
            .await?;
        let never = machine
            .until("never", "refused", |pod| {
                container(pod, "main")["state"]["waiting"]["reason"] == "ErrImageNeverPull"
            })
            .await?;
        let message = "Container image \"localhost/none:v1\" is not present with pull policy of Never";
        assert_eq!(container(&never, "main")["state"]["waiting"]["message"], message);

        std::fs::remove_file(machine.manifest("good"))?;
        machine.until("good", "gone", Value::is_null).await?;
        assert!(machine.running(&good).await?.is_empty());
        let uid = good["metadata"]["uid"].as_str().unwrap_or_default();
        assert!(!machine.dir.join("kubelet/pods").join(uid).exists());
        assert!(!machine.dir.join("pods").join(format!("default_good-{NODE}_{uid}")).exists());
        kubelet.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_kubelet_touches_no_container() -> TestResult {
    on_a_machine("a_restarted_kubelet_touches_no_container", |machine| async move {
        let kubelet = machine.kubelet();
        machine.put("steady", &plain("main", "sleep 100000"))?;
        machine.put("twice", &plain("main", "test -e /tmp/x || sleep 1; exit 1"))?;
        let before = machine.until("steady", "ready", ready).await?;
        let ids = machine.running(&before).await?;
        assert_eq!(ids.len(), 1);
        machine.until("twice", "restarted", |pod| container(pod, "main")["restartCount"] == 1).await?;
        kubelet.stop().await?;
        assert_eq!(machine.running(&before).await?, ids, "the end of the kubelet stops nothing");

        let kubelet = machine.kubelet();
        let after = machine.until("steady", "ready again", ready).await?;
        assert_eq!(machine.running(&after).await?, ids);
        assert_eq!(container(&after, "main")["restartCount"], 0);
        assert_eq!(container(&after, "main")["containerID"], container(&before, "main")["containerID"]);
        machine
            .until("twice", "counted on", |pod| {
                container(pod, "main")["restartCount"].as_i64().is_some_and(|count| count >= 2)
            })
            .await?;
        // A changed manifest is another pod, and the former one ends first.
        machine.put("steady", &plain("main", "sleep 200000"))?;
        let changed = machine
            .until("steady", "replaced", |pod| ready(pod) && pod["metadata"]["uid"] != before["metadata"]["uid"])
            .await?;
        assert!(machine.running(&before).await?.is_empty());
        assert_eq!(machine.running(&changed).await?.len(), 1);
        kubelet.stop().await
    })
    .await
}

const VOLUMES: &str = "  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000}
  initContainers:
  - name: prepare
    image: IMAGE
    command: [sh, -c, 'echo from-init > /shared/file; echo sub > /shared/sub']
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: side
    image: IMAGE
    restartPolicy: Always
    command: [sleep, '100000']
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c]
    args: ['cat /shared/file /sub /info/labels /host/given; echo $(POD) $(CPU); ls -ln /shared | cat; cat /etc/hosts; exec sleep 100000']
    env:
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
    resources: {limits: {cpu: 500m, memory: 64Mi}}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: shared, mountPath: /sub, subPath: sub}
    - {name: info, mountPath: /info}
    - {name: host, mountPath: /host, readOnly: true}
    - {name: memory, mountPath: /memory}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: info, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: host, hostPath: {path: HOST, type: Directory}}
  hostAliases: [{ip: 192.0.2.7, hostnames: [alias]}]
";

#[tokio::test(flavor = "multi_thread")]
async fn volumes_init_containers_and_environment() -> TestResult {
    on_a_machine("volumes_init_containers_and_environment", |machine| async move {
        let kubelet = machine.kubelet();
        let host = machine.dir.join("host");
        std::fs::create_dir(&host)?;
        std::fs::write(host.join("given"), "from-host\n")?;
        machine.put("vols", &VOLUMES.replace("IMAGE", IMAGE).replace("HOST", &host.to_string_lossy()))?;
        let pod = machine.until("vols", "ready", ready).await?;
        assert_eq!(container(&pod, "prepare")["state"]["terminated"]["reason"], "Completed");
        assert_eq!(container(&pod, "side")["started"], true);
        let (_, log) = machine.get(&format!("/containerLogs/default/vols-{NODE}/main")).await?;
        for wanted in ["from-init\nsub\napp=\"vols\"", "from-host\n", "vols-node-1 500\n", "2000", "192.0.2.7\talias"] {
            assert!(log.contains(wanted), "{wanted:?} is not in {log}");
        }
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        std::fs::remove_file(machine.manifest("vols"))?;
        machine.until("vols", "gone", Value::is_null).await?;
        assert!(!machine.dir.join("kubelet/pods").join(&uid).exists(), "mounts and files are gone");
        assert_eq!(std::fs::read_to_string(host.join("given"))?, "from-host\n", "the host's files are not");
        kubelet.stop().await
    })
    .await
}

const PROBES: &str = "  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, 'touch /tmp/ready; exec sleep 100000']
    volumeMounts: [{name: flags, mountPath: /flags}]
    startupProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1, failureThreshold: 30}
    readinessProbe: {exec: {command: [cat, /flags/ready]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [cat, /flags/alive]}, periodSeconds: 1, failureThreshold: 1}
  volumes:
  - {name: flags, hostPath: {path: HOST}}
";

#[tokio::test(flavor = "multi_thread")]
async fn probes_decide_readiness_and_life() -> TestResult {
    on_a_machine("probes_decide_readiness_and_life", |machine| async move {
        let kubelet = machine.kubelet();
        let flags = machine.dir.join("flags");
        std::fs::create_dir(&flags)?;
        std::fs::write(flags.join("alive"), "")?;
        machine.put("probed", &PROBES.replace("IMAGE", IMAGE).replace("HOST", &flags.to_string_lossy()))?;
        machine
            .until("probed", "started, not ready", |pod| container(pod, "main")["started"] == true && !ready(pod))
            .await?;
        std::fs::write(flags.join("ready"), "")?;
        let before = machine.until("probed", "ready", ready).await?;
        assert_eq!(container(&before, "main")["restartCount"], 0);
        std::fs::remove_file(flags.join("alive"))?;
        machine.until("probed", "killed and restarted", |pod| container(pod, "main")["restartCount"] == 1).await?;
        std::fs::write(flags.join("alive"), "")?;
        std::fs::remove_file(flags.join("ready"))?;
        machine
            .until("probed", "running, not ready", |pod| {
                container(pod, "main")["state"]["running"].is_object() && !ready(pod)
            })
            .await?;
        kubelet.stop().await
    })
    .await
}
