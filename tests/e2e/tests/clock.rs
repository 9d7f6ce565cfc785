//! The clock of a whole cluster jumps an hour, forwards and back: containers are untouched, the node stays ready, probes,
//! tokens, leases, events and new pods go on.
//!
//! libfaketime stands between the processes and the system's clock; a program that waits does so by the monotonic clock,
//! which does not jump. Containers and their runtime keep the true time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kedge_e2e::{Container, Host, HostOptions, Kubectl, NodeAgent, dynamic_kedge_binary, eventually};
use serde_json::Value;

const BUSYBOX: &str = "localhost/busybox:test";
const SOON: Duration = Duration::from_secs(60);
/// As long as the kubelet may take to look at a volume again, and some more.
const LIVE: Duration = Duration::from_secs(120);
const TEST: &str = "an_hour_forwards_and_back";

/// A cluster that lives at another time.
struct Elsewhen {
    // Before the host, whose directory it lives in.
    agent: NodeAgent,
    host: Host,
    kubectl: Kubectl,
    offset: PathBuf,
}

impl Elsewhen {
    fn start() -> Option<Self> {
        let Some(library) = library() else {
            kedge_skip::skip(TEST, "there is no libfaketime; install the package faketime");
            return None;
        };
        let Some(binary) = dynamic_kedge_binary() else {
            kedge_skip::skip(TEST, "there is no kedge with shared libraries; it is built with the tests of `kedge`");
            return None;
        };
        let directory = tempfile::tempdir().expect("a directory can be made").keep();
        let offset = directory.join("offset");
        std::fs::write(&offset, "+0").expect("a file can be written");
        let environment = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", offset.display().to_string()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
        let flags = vec!["--control-plane-only".to_owned()];
        let options = HostOptions { flags, binary: Some(binary), environment, ..HostOptions::default() };
        let host = Host::up(options)?;
        let agent = NodeAgent::start(&host, BUSYBOX);
        let kubectl = host.kubectl();
        Some(Self { agent, host, kubectl, offset })
    }

    /// Lets the clock jump to this many seconds from the true time.
    fn jump_to(&self, seconds: i64) {
        // In one step, so that nobody reads half of it.
        let draft = self.offset.with_extension("new");
        std::fs::write(&draft, format!("{seconds:+}")).expect("a file can be written");
        std::fs::rename(draft, &self.offset).expect("a file can be renamed");
    }

    fn get(&self, kind: &str, name: &str) -> Value {
        let output = self.kubectl.try_run(&["get", kind, name, "-o", "json"]);
        serde_json::from_str(&output.stdout).unwrap_or(Value::Null)
    }

    fn condition(&self, kind: &str, name: &str, type_: &str) -> String {
        let object = self.get(kind, name);
        let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|condition| condition["type"] == type_);
        found.and_then(|condition| condition["status"].as_str()).unwrap_or_default().to_owned()
    }

    fn becomes(&self, kind: &str, name: &str, type_: &str, wanted: &str) {
        eventually(&format!("{type_}={wanted} of {name}"), SOON, || match self.condition(kind, name, type_) {
            seen if seen == wanted => Ok(()),
            seen => Err(format!("{seen}\n{}", self.get(kind, name)["status"])),
        });
    }

    fn containers(&self) -> Vec<Container> {
        let mut all = self.agent.containers();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }
}

impl Drop for Elsewhen {
    fn drop(&mut self) {
        if let Some(directory) = self.offset.parent() {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

fn library() -> Option<PathBuf> {
    let path = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    Path::new(&path).exists().then(|| path.into())
}

const PODS: &str = "apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: 'localhost/busybox:test'
    command: [sh, -c, 'touch /tmp/ready /tmp/alive; sleep 36000']
    readinessProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 3}
    volumeMounts: [{name: token, mountPath: /token}]
  volumes:
  - {name: token, projected: {sources: [{serviceAccountToken: {path: token, expirationSeconds: 600}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: 'localhost/busybox:test', command: [sleep, '36000']}]
";

#[test]
fn an_hour_forwards_and_back() {
    let Some(cluster) = Elsewhen::start() else { return };
    cluster.becomes("node", "node-1", "Ready", "True");
    cluster.kubectl.apply(PODS);
    let still = "apiVersion: v1\nkind: Pod\nmetadata: {name: still}\nspec:\n  containers: [{name: c, image: 'localhost/busybox:test', command: [sleep, '36000']}]\n";
    std::fs::write(cluster.agent.manifest("still"), still).expect("the manifest can be written");
    for pod in ["probed", "still-node-1"] {
        cluster.becomes("pod", pod, "Ready", "True");
    }
    cluster.becomes("deployment", "web", "Available", "True");
    let before = cluster.containers();
    assert_eq!(before.len(), 4, "{before:?}");
    for (round, seconds) in [(1, 3600), (2, 0)] {
        println!("the clock jumps to {seconds:+} s");
        let log = (cluster.agent.log().len(), cluster.host.log().len());
        cluster.jump_to(seconds);
        lease_is_renewed(&cluster, seconds);
        probes_go_on(&cluster);
        tokens_are_good(&cluster, seconds);
        new_pods_start(&cluster, round, seconds);
        // Whoever watches leases and taints has had the time to be wrong.
        cluster.becomes("node", "node-1", "Ready", "True");
        assert!(cluster.get("node", "node-1")["spec"]["taints"].is_null(), "{}", cluster.get("node", "node-1"));
        let now: Vec<Container> = cluster.containers().into_iter().filter(|one| !one.pod.starts_with("new-")).collect();
        assert_eq!(now, before, "containers were touched");
        says_little(&cluster.agent.log()[log.0..]);
    }
}

/// The node renews its lease by the new time.
fn lease_is_renewed(cluster: &Elsewhen, seconds: i64) {
    eventually("a lease of the new time", SOON, || {
        let path = "jsonpath={.spec.renewTime}";
        let lease = cluster.kubectl.try_run(&["get", "lease", "node-1", "-n", "kube-node-lease", "-o", path]);
        let renewed: Timestamp = lease.stdout.parse().map_err(|_| lease.all())?;
        let off = renewed.duration_since(Timestamp::now()).as_secs() - seconds;
        if off.abs() < 60 { Ok(()) } else { Err(format!("{} is {off} s off", lease.stdout)) }
    });
}

/// A probe that fails and one that succeeds again show at once.
fn probes_go_on(cluster: &Elsewhen) {
    let exec = |script: &str| cluster.kubectl.run(&["exec", "probed", "--", "sh", "-c", script]);
    exec("rm /tmp/ready");
    cluster.becomes("pod", "probed", "Ready", "False");
    exec("touch /tmp/ready");
    cluster.becomes("pod", "probed", "Ready", "True");
}

/// The token in the volume is one that the API server takes, by the new time.
fn tokens_are_good(cluster: &Elsewhen, seconds: i64) {
    let now = Timestamp::now() + SignedDuration::from_secs(seconds);
    // A pod that changes has its volumes looked at now, and not within a minute.
    cluster.kubectl.run(&["annotate", "--overwrite", "pod", "probed", &format!("jump={seconds}")]);
    let token = eventually("a token that is good now", LIVE, || {
        let token = cluster.kubectl.run(&["exec", "probed", "--", "cat", "/token/token"]);
        let claims = claims(&token);
        let (issued, expires) =
            (claims["iat"].as_i64().unwrap_or_default(), claims["exp"].as_i64().unwrap_or_default());
        // One that was issued in what is the future now is refused, too.
        let good = issued <= now.as_second() + 120 && now.as_second() < expires;
        if good { Ok(token) } else { Err(format!("{claims} at {now}")) }
    });
    let url = format!("https://{}:{}/api", cluster.host.address(), cluster.host.port());
    let header = format!("Authorization: Bearer {token}");
    let answer = cluster
        .host
        .run("curl", &["-sk", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header, &url]);
    assert_eq!(answer.stdout, "200", "{}", answer.all());
}

/// What a token says.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let digits = payload.bytes().filter_map(|byte| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    });
    let digits: Vec<u8> = digits.collect();
    let bytes = digits.chunks(4).flat_map(|chunk| {
        let bits = chunk.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - chunk.len()));
        bits.to_be_bytes()[1..chunk.len()].to_vec()
    });
    serde_json::from_slice(&bytes.collect::<Vec<u8>>()).unwrap_or_default()
}

/// Controllers, scheduler and kubelet work on; what they say has the new time.
fn new_pods_start(cluster: &Elsewhen, round: u32, seconds: i64) {
    let pod = format!("new-{round}");
    cluster.kubectl.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, '36000']}}]\n"
    ));
    cluster.becomes("pod", &pod, "Ready", "True");
    let selector = format!("involvedObject.name={pod},reason=Started");
    let event = eventually("an event about the start", SOON, || {
        let path = "jsonpath={.items[0].lastTimestamp}";
        let events = cluster.kubectl.try_run(&["get", "events", "--field-selector", &selector, "-o", path]);
        events.stdout.parse::<Timestamp>().map_err(|_| events.all())
    });
    let off = event.duration_since(Timestamp::now()).as_secs() - seconds;
    assert!(off.abs() < 60, "{event} is {off} s off");
    cluster.kubectl.run(&["delete", "pod", &pod, "--timeout=60s"]);
}

/// A jump is no reason for a flood.
fn says_little(log: &str) {
    let loud: Vec<&str> = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    println!("{} warnings and errors after the jump: {loud:#?}", loud.len());
    assert!(loud.len() <= 5, "{loud:#?}");
}
