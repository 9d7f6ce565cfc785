//! Whether the first cause is the true one: one trouble with all that it shows, and two at once.
//!
//! Each case is what a machine and its API show of it: cause, symptoms, and bystanders.

use crate::diagnosis::diagnose;
use crate::evidence::Evidence;
use crate::rules::fixtures::*;

/// What is expected, best first, and what is seen.
type Case = (&'static [&'static str], Vec<Item>);

fn api_refuses() -> Item {
    let error = Some("connection refused".to_owned());
    on("one", Fact::Call { target: "https://127.0.0.1:6443".to_owned(), error })
}

fn said(program: &str, text: &str, seconds: i64) -> Item {
    ago(line_of(program, text), seconds)
}

fn many(count: usize, line: &Item) -> Vec<Item> {
    (0..count).map(|_| line.clone()).collect()
}

fn component(name: &str, state: &Value) -> Item {
    let status = json!({"containerStatuses": [{"name": name, "restartCount": 4, "state": state}]});
    on("one", Fact::Object(pod("kube-system", &format!("{name}-one"), json!({"nodeName": "one"}), status)))
}

fn crash_loop(namespace: &str, name: &str, container: &str) -> Item {
    let status = json!({"phase": "Running", "containerStatuses": [{"name": container, "restartCount": 5,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"reason": "Error", "exitCode": 1}}}]});
    on("one", Fact::Object(pod(namespace, name, json!({"nodeName": "one"}), status)))
}

fn waiting_pod() -> Item {
    on("one", Fact::Object(old(pod("a", "web", json!({}), json!({"phase": "Pending"})))))
}

fn wrong_command() -> Item {
    let message = "failed to create shim task: OCI runtime create failed: exec: \"kube-schedulerrr\": executable file not found in $PATH: unknown";
    component("kube-scheduler", &json!({"terminated": {"reason": "StartError", "exitCode": 128, "message": message}}))
}

fn torn_store() -> Vec<Item> {
    vec![
        said("etcd", r#"{"level":"fatal","msg":"walpb: crc mismatch"}"#, 9),
        said("kube-apiserver", "dial tcp 127.0.0.1:2379: connect: connection refused", 8),
        api_refuses(),
        said(
            "kubelet",
            r#""Failed to ensure lease exists, will retry" err="dial tcp 192.0.2.1:6443: connect: connection refused""#,
            7,
        ),
        crash_loop("kube-system", "kube-apiserver-one", "kube-apiserver"),
        crash_loop("kube-system", "kube-scheduler-one", "kube-scheduler"),
    ]
}

fn slow_disk() -> Vec<Item> {
    vec![
        said("etcd", r#"{"level":"warn","msg":"slow fdatasync","took":"3s"}"#, 40),
        said("kube-scheduler", "failed to renew lease kube-system/kube-scheduler: context deadline exceeded", 30),
        said("kube-scheduler", r#""leaderelection lost""#, 29),
        said("kube-apiserver", "etcdserver: request timed out", 35),
        crash_loop("kube-system", "kube-scheduler-one", "kube-scheduler"),
    ]
}

fn overload() -> Vec<Item> {
    let controller = |text: &str, seconds| {
        let source = LogSource::Container {
            namespace: "capi-system".to_owned(),
            pod: "capi-controller-manager-x".to_owned(),
            container: "manager".to_owned(),
            previous: true,
        };
        ago(on("one", Fact::Log(LogFact { source, text: text.to_owned() })), seconds)
    };
    vec![
        controller(
            "E0509 06:45:00.0 1 leaderelection.go:306] failed to renew lease capi-system/controller-leader-election-capi: timed out waiting for the condition",
            20,
        ),
        controller(r#"E0509 06:45:00.0 1 main.go:1] "problem running manager" err="leader election lost""#, 19),
        crash_loop("capi-system", "capi-controller-manager-x", "manager"),
    ]
}

fn full_disk() -> Item {
    let (path, size, available) = ("/var/lib/etcd".to_owned(), 1000, 1);
    on("one", Fact::FileSystem(crate::facts::FileSystemFact { path, size, available, inodes: 0, inodes_free: 0 }))
}

fn singles() -> Vec<Case> {
    let flag = "--kubeconfig=/etc/kubernetes/scheduler.conf";
    let mut empty_file = scheduler_manifest(flag, "/etc/kubernetes/schedulr.conf", "FileOrCreate");
    empty_file.extend([file("/etc/kubernetes/schedulr.conf", FileKind::EmptyFile), waiting_pod()]);
    empty_file.push(crash_loop("kube-system", "kube-scheduler-one", "kube-scheduler"));
    let mut not_mounted =
        scheduler_manifest("--kubeconfig=/etc/kubernetes/x.conf", "/etc/kubernetes/scheduler.conf", "FileOrCreate");
    not_mounted.extend([waiting_pod(), crash_loop("kube-system", "kube-scheduler-one", "kube-scheduler")]);
    let expired = certificate("/etc/kubernetes/pki/apiserver.crt", -400, -1);
    let bad = r#"{"level":"warn","msg":"rejected connection on client endpoint","error":"remote error: tls: bad certificate"}"#;
    vec![
        (&["A5"], vec![wrong_command(), waiting_pod()]),
        (&["A6"], not_mounted),
        (&["A7"], empty_file),
        (&["A11"], vec![said("kube-apiserver", "Error: unknown flag: --insecure-port", 5), api_refuses()]),
        (&["A1"], slow_disk()),
        (&["A2"], overload()),
        (&["B5"], torn_store()),
        (
            &["B2"],
            vec![
                document("etcd", json!({"alarms": [{"alarm": "NOSPACE"}], "status": {"leader": "7"}})),
                said("kube-apiserver", "etcdserver: mvcc: database space exceeded", 5),
            ],
        ),
        (&["C1"], [vec![expired, api_refuses()], many(4, &said("etcd", bad, 5))].concat()),
        (
            &["C10"],
            [
                many(
                    4,
                    &said(
                        "etcd",
                        &bad.replace(
                            "remote error: tls: bad certificate",
                            "x509: certificate signed by unknown authority",
                        ),
                        5,
                    ),
                ),
                vec![said("etcd", r#"{"msg":"prober found high clock drift","clock-drift":"29s"}"#, 6), api_refuses()],
            ]
            .concat(),
        ),
        (
            &["F1"],
            vec![
                full_disk(),
                said("etcd", "write /var/lib/etcd/member/wal/0: no space left on device", 5),
                api_refuses(),
            ],
        ),
        (&["C2"], {
            let served = serving("/pki/apiserver.crt", "127.0.0.1:6443", "old", -400, -1);
            let mut renewed = certificate("/pki/apiserver.crt", -1, 364);
            if let Fact::Certificate(file) = &mut renewed.fact {
                file.fingerprint = "new".to_owned();
            }
            vec![
                served,
                renewed,
                said(
                    "kubelet",
                    "\"Failed to update lease\" err=\"x509: certificate has expired or is not yet valid: current time A is after B\"",
                    5,
                ),
            ]
        }),
        (&["A13"], {
            let config = document("kubelet", json!({"staticPodPath": "/etc/kubernetes/manifest"}));
            let gone = file("/etc/kubernetes/manifest", FileKind::Missing);
            vec![config, gone, api_refuses(), certificate("/etc/kubernetes/pki/apiserver.crt", -1, 364)]
        }),
    ]
}

/// Two troubles that have nothing to do with one another; and one whose loudest symptom is elsewhere.
fn combined() -> Vec<Case> {
    let leak = || {
        let oom = json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 2, "ready": false,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]});
        on("one", Fact::Object(pod("a", "leak", json!({"nodeName": "two"}), oom)))
    };
    vec![
        (&["A5", "W3"], vec![wrong_command(), waiting_pod(), leak()]),
        (&["B5", "W3"], [torn_store(), vec![leak()]].concat()),
        (&["W3", "A1"], [slow_disk(), vec![leak()]].concat()),
        (&["B5", "A5"], [torn_store(), vec![wrong_command()]].concat()),
        (&["W3", "A2"], [overload(), vec![leak()]].concat()),
        (&["F1", "A5"], vec![full_disk(), api_refuses(), wrong_command()]),
    ]
}

fn check(name: &str, cases: Vec<Case>) {
    let all = cases.len();
    let mut wrong = Vec::new();
    for (expected, items) in cases {
        let diagnosis = diagnose(&Evidence { gathered: now(), items: items.into(), unseen: Vec::new() });
        let is_failure = |cause: &&crate::Cause| cause.severity == crate::Severity::Failure;
        let found: Vec<&str> = diagnosis.causes.iter().filter(is_failure).map(|cause| cause.id).collect();
        if found != expected {
            let texts: Vec<&String> = diagnosis.causes.iter().map(|cause| &cause.text).collect();
            wrong.push(format!("{expected:?} became {found:?}: {texts:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{name}: {} of {all} are wrong\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_first_cause_is_the_true_one() {
    check("single troubles", singles());
}

#[test]
fn two_troubles_stay_two() {
    check("combined troubles", combined());
}
