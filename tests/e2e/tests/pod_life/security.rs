//! Who containers run as and what they may do: security contexts, namespaces, sysctls and runtime classes.

use kedge_e2e::{HostOptions, Node, condition, container, script_spec};
use serde_json::json;

fn context(container: &str) -> String {
    format!("    securityContext: {{{container}}}\n")
}

fn line<'a>(output: &'a str, name: &str) -> &'a str {
    let found = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.map(str::trim).unwrap_or_else(|| panic!("no line {name:?} in:\n{output}"))
}

#[test]
fn containers_run_as_they_are_told() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    let who = "id -u; id -g; id -G; cat /proc/self/status";
    node.script("plain", who, "", "");
    node.script("user", who, &context("runAsUser: 65534, runAsGroup: 2002"), "");
    let pod = "  securityContext: {runAsUser: 1001, runAsGroup: 2003, supplementalGroups: [1234], fsGroup: 4321}\n";
    node.script("pod-user", who, "", pod);
    node.script("own-user", who, &context("runAsUser: 1002"), pod);
    node.script("no-new", who, &context("allowPrivilegeEscalation: false, runAsUser: 1000"), "");
    node.script("default-seccomp", who, &context("seccompProfile: {type: RuntimeDefault}"), "");
    node.script("caps", who, &context("capabilities: {add: [NET_ADMIN], drop: [CHOWN]}"), "");
    node.script(
        "privileged",
        "cat /proc/self/status; touch /proc/sys/x 2>&1; ls /dev | wc -l",
        &context("privileged: true"),
        "",
    );
    node.script("read-only", "touch /x 2>&1 || echo refused", &context("readOnlyRootFilesystem: true"), "");
    node.script("writable", "touch /x && echo written", &context("readOnlyRootFilesystem: false"), "");
    node.script("root-refused", "true", &context("runAsNonRoot: true"), "");
    node.script("other-user-ns", "true", "", "  hostUsers: false\n");
    let plain = node.output("plain");
    assert!(plain.starts_with("0\n0\n"), "{plain}");
    assert_eq!((line(&plain, "NoNewPrivs"), line(&plain, "Seccomp")), ("0", "0"));
    assert!(node.output("user").starts_with("65534\n2002\n2002\n"));
    assert!(node.output("pod-user").starts_with("1001\n2003\n2003 1234 4321\n"), "{}", node.output("pod-user"));
    assert!(node.output("own-user").starts_with("1002\n2003\n"));
    assert_eq!(line(&node.output("no-new"), "NoNewPrivs"), "1");
    assert_eq!(line(&node.output("default-seccomp"), "Seccomp"), "2");
    let effective = |pod: &str| u64::from_str_radix(line(&node.output(pod), "CapEff"), 16).expect("it is a number");
    let (usual, changed, all) = (effective("plain"), effective("caps"), effective("privileged"));
    let (chown, net_admin, sys_admin) = (1 << 0, 1 << 12, 1 << 21);
    assert_eq!((usual & chown, usual & net_admin, usual & sys_admin), (chown, 0, 0));
    assert_eq!((changed & chown, changed & net_admin), (0, net_admin));
    assert_eq!(all & sys_admin, sys_admin);
    assert!(node.output("read-only").ends_with("refused\n"));
    assert_eq!(node.output("writable"), "written\n");
    node.event("root-refused", "Error: container has runAsNonRoot and image will run as root");
    let refused = node.get("pod", "root-refused");
    assert_eq!(container(&refused, "c")["state"]["waiting"]["reason"], "CreateContainerConfigError");
    let refused =
        "Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does not support user namespaces";
    node.event("other-user-ns", refused);
    namespaces(&node);
}

fn namespaces(node: &Node) {
    let two = |pod: &str| {
        script_spec("sleep 3600", "", pod)
            + &script_spec("sleep 7200", "", "")
                .split_once("  containers:\n")
                .expect("it has them")
                .1
                .replace("name: c", "name: d")
    };
    node.pod("apart", &two(""));
    node.pod("shared", &two("  shareProcessNamespace: true\n"));
    node.script("host-pid", "ps | wc -l; cat /proc/1/comm; sleep 3600", "", "  hostPID: true\n");
    node.script("host-ipc", "stat -L -c %i /proc/self/ns/ipc", "", "  hostIPC: true\n");
    for pod in ["apart", "shared", "host-pid"] {
        node.ready(pod);
    }
    let processes = |pod: &str| node.kubectl.run(&["exec", pod, "-c", "c", "--", "ps"]);
    assert!(!processes("apart").contains("sleep 7200"));
    assert!(processes("shared").contains("sleep 7200"));
    let init = std::fs::read_to_string("/proc/1/comm").expect("there is a first process");
    assert!(node.logs("host-pid", None).ends_with(&init), "{}", node.logs("host-pid", None));
    let ours = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/ns/ipc").expect("it is there"));
    assert_eq!(node.output("host-ipc"), format!("{ours}\n"));
}

fn sysctl(name: &str, value: &str) -> String {
    format!("  securityContext: {{sysctls: [{{name: {name}, value: '{value}'}}]}}\n")
}

#[test]
fn sysctls_and_runtime_classes() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    let read = "cat /proc/sys/kernel/shm_rmid_forced";
    node.script("safe", read, "", &sysctl("kernel.shm_rmid_forced", "1"));
    node.script("slashed", read, "", &sysctl("kernel/shm_rmid_forced", "1"));
    node.script("unsafe", "true", "", &sysctl("kernel.msgmax", "65536"));
    let on_host = sysctl("net.ipv4.tcp_syncookies", "1") + "  hostNetwork: true\n";
    let manifest = |name: &str, pod: &str| kedge_e2e::manifest(name, &script_spec("true", "", pod));
    let bad = "  securityContext: {sysctls: [{name: foo-, value: bar}, {name: kernel.shmmax, value: '1'}, {name: bar.., value: '42'}]}\n";
    let refused = node.kubectl.try_run_with(&["create", "-f", "-"], &manifest("bad", bad));
    for text in ["Invalid value: \"foo-\"", "Invalid value: \"bar..\""] {
        assert!(refused.stderr.contains(text), "{}", refused.all());
    }
    assert!(!refused.stderr.contains("kernel.shmmax"), "{}", refused.all());
    let refused = node.kubectl.try_run_with(&["create", "-f", "-"], &manifest("on-host", &on_host));
    assert!(refused.stderr.contains("may not be specified when 'hostNetwork' is true"), "{}", refused.all());
    assert_eq!(node.output("safe"), "1\n");
    assert_eq!(node.output("slashed"), "1\n");
    let seen = node.ended("unsafe", "Failed");
    assert_eq!(seen["status"]["reason"], "SysctlForbidden");
    assert_eq!(seen["status"]["message"], "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted");
    runtime_classes(&node);
}

fn runtime_classes(node: &Node) {
    let class = |name: &str, handler: &str, more: &str| {
        format!(
            "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {{name: {name}}}\nhandler: {handler}\n{more}---\n"
        )
    };
    let overhead = "overhead: {podFixed: {cpu: 10m, memory: 1Mi}}\n";
    node.kubectl
        .apply(&(class("usual", "runc", overhead) + &class("odd", "no-such-handler", "") + &class("gone", "runc", "")));
    let with = |name: &str| script_spec("true", "", &format!("  runtimeClassName: {name}\n"));
    node.pod("usual", &with("usual"));
    node.pod("odd", &with("odd"));
    let spec = node.get("pod", "usual")["spec"].clone();
    assert_eq!(spec["overhead"], json!({"cpu": "10m", "memory": "1Mi"}));
    node.kubectl.run(&["delete", "runtimeclass", "gone"]);
    for name in ["gone", "never-was"] {
        let refused = node.kubectl.try_run_with(&["create", "-f", "-"], &kedge_e2e::manifest("refused", &with(name)));
        let text = format!("pod rejected: RuntimeClass \"{name}\" not found");
        assert!(refused.stderr.contains(&text), "{}", refused.all());
    }
    node.ended("usual", "Succeeded");
    node.event("odd", "FailedCreatePodSandBox Failed to create pod sandbox:");
    let seen = node.get("pod", "odd");
    assert_eq!(condition(&seen, "PodReadyToStartContainers")["status"], "False");
    assert_eq!(container(&seen, "c")["state"]["waiting"]["reason"], "ContainerCreating");
}
